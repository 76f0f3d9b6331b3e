"""The words of SLURM: its options, lists of hosts, variables. No I/O and no clock."""
