"""Ablations: a plan of arms and seeds, its cells, and the statistics that turn their results into verdicts."""
