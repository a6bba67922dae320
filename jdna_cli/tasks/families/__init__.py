"""Families of tasks: each file has a tuple `TASKS`."""
