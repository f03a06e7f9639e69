"""Twelve ways to cheat in an ablation, planted in an honest study: `python -m tests.cheats`."""
