"""How many processes this run was started in, as launchers say it. Imports no torch."""

from __future__ import annotations

import os


def size() -> int:
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process decides and records."""
    return rank() == 0
