"""How many processes this run was started in, as launchers say it. Imports no torch."""

from __future__ import annotations

import os

from jdna_cli.errors import RequestError

# Where launchers that make no group of processes say how many they have started.
_UNGROUPED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_GROUPED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
HOW = "accelerate launch -m jdna_cli finetune …"


def size() -> int:
    """Number of processes of this run.

    Raises:
        RequestError: the environment says nonsense.
    """
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process, from 0."""
    return _number("RANK", 0)


def is_first() -> bool:
    """Whether this process decides and records."""
    return rank() == 0


def check(*, may_be_several: bool) -> None:
    """Refuse to be one of several processes that are no group: each would do it all, or a part.

    Raises:
        RequestError: says which variable tells of other processes, and how to start them.
    """
    if size() == 1:
        for name in _UNGROUPED:
            if _number(name, 1) > 1:
                raise RequestError(
                    f"{name}={os.environ[name]}: each of these processes would do the same; start "
                    f"one, or a fine-tuning in several with {HOW}"
                )
        return
    if not may_be_several:
        raise RequestError("only finetune uses several processes: start this one by itself")
    missing = [name for name in _GROUPED if not os.environ.get(name)]
    if missing or rank() >= size():
        what = f"{missing[0]} is not set" if missing else f"RANK={rank()} is none of them"
        raise RequestError(
            f"WORLD_SIZE={size()} says that this is one of {size()} processes, and {what}: start "
            f"all of them with {HOW}, or unset WORLD_SIZE"
        )


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return otherwise
    if not text.isascii() or not text.isdigit():
        raise RequestError(f"{name}={text!r} in the environment is no number of processes")
    return int(text)
