"""SLURM's programs for the login side, thin clients of the same API."""
