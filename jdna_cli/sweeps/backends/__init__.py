"""Where cells are run: in processes here, on Ray, on Slurm."""
