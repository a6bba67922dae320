"""The training loop, and what takes part in it: schedules, teachers, checkpoints, dynamics."""
