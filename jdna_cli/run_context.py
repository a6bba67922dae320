"""What a run is told by its caller besides the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jdna_cli.observer import Progress, ignore


def _never() -> int:
    return 0


@dataclass(frozen=True)
class RunContext:
    """Where a run reads its task's data and leaves its files, whom it tells, and when it stops."""

    folder: Path  # what it leaves
    data_dir: Path | None
    work: Path  # where checkpoints go
    progress: Progress = ignore
    stop: Callable[[], int] = _never  # number of the signal that asked to stop, else 0
    tokens: Path | None = None  # where tokenized data sets are remembered
    keeps_model: bool = True  # whether a fine-tuned model is written

    def phase(self, what: str) -> None:
        """Say what is done now, where nothing can be counted."""
        self.progress(what, 0, 0, "")
