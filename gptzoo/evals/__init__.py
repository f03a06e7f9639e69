"""Suites of evaluations: what to measure of a run, written down as a recipe, with the results beside the run."""
