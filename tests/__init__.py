"""The tests mirror gptzoo/; `python -m tests.house` measures the code itself."""
