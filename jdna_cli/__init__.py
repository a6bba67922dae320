"""jdna: how much of a pre-trained transformer can be pruned before a task breaks."""

__version__ = "0.1.0"
