"""Does the analysis keep its promises? The long answer, recorded: `python -m tests.calibration`."""
