"""What a training has measured so far; part of every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jdna_cli.results import Measurement, Movement


@dataclass
class Journal:
    """What training has measured so far; part of every checkpoint."""

    measured: list[Measurement] = field(default_factory=list)
    movements: list[Movement] = field(default_factory=list)
    seconds: float = 0.0
    window: list[float] = field(default_factory=list)  # losses since the last point of the curve

    def as_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        rows = [(m.split, m.name, m.value, m.step) for m in self.measured]
        moved = [vars(m) for m in self.movements]
        return {
            "measured": rows,
            "movements": moved,
            "seconds": self.seconds,
            "window": self.window,
        }

    @staticmethod
    def from_json(state: dict[str, Any]) -> Journal:
        """What `as_json` wrote."""
        rows = [Measurement(*row) for row in state["measured"]]
        moved = [Movement(**row) for row in state["movements"]]
        return Journal(rows, moved, state["seconds"], state["window"])
