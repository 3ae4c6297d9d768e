"""The Slurm backend: jobs of a cluster, through its own commands."""
