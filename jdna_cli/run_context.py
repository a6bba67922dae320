"""What a run is told by its caller besides the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jdna_cli.observer import Progress, ignore


def _never() -> int:
    return 0


def _always() -> None:
    return


@dataclass(frozen=True)
class RunContext:
    """Where a run reads its task's data and leaves its files, whom it tells, and when it stops."""

    folder: Path  # what it leaves
    data_dir: Path | None
    work: Path  # where checkpoints go
    progress: Progress = ignore
    confirm: Callable[[], None] = _always  # raises where the run is another process's by now
    stop: Callable[[], int] = _never  # number of the signal that asked to stop, else 0
    fingerprint: str = ""  # of the result: whose checkpoints are its own
    tokens: Path | None = None  # where tokenized data sets are remembered
    keeps_model: bool = True  # whether a fine-tuned model is written

    def silent(self) -> RunContext:
        """The same for another process: it tells nobody, and is told by nobody to stop."""
        return replace(self, progress=ignore, confirm=_always, stop=_never)

    def phase(self, what: str) -> None:
        """Say what is done now, where nothing can be counted."""
        self.progress(what, 0, 0, "")
