"""Parts for GPTZoo by someone else."""
