"""One study through every launcher, compared byte by byte: `python -m tests.launchers`."""
