"""Pruning and rounding a model's files: planned, calibrated, streamed or block by block."""
