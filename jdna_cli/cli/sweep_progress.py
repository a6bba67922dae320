"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jdna_cli.cli.live_board import LiveBoard

if TYPE_CHECKING:
    from jdna_cli.sweeps.cells import Cell
    from jdna_cli.sweeps.planning import Plan
    from jdna_cli.sweeps.queue import State


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class SweepProgress(LiveBoard):
    """Shows a sweep: live at a terminal, a line per cell elsewhere."""

    def __init__(self, title: str, plan: Plan) -> None:
        super().__init__()
        self._title = title
        self._total, self._known = len(plan.waiting), len(plan.runs)
        self._ended, self._failed = 0, 0
        self._began = time.monotonic()

    def _head(self) -> list[str]:
        return [f"{self._title} · {self._counts()}"]

    def _counts(self) -> str:
        parts = [f"{self._ended} of {self._total} cells"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{self._known} from the database"] if self._known else []
        if self._ended:
            spent = time.monotonic() - self._began
            left = spent / self._ended * (self._total - self._ended)
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def ended(self, cell: Cell, worker: int, event: dict[str, Any], state: State) -> None:
        """A cell has ended, or is to be tried again."""
        self._rows.pop(worker, None)
        if event.get("again"):
            self._line(f"again · {cell.title} · {event['error']}")
            return
        self._ended = self._total - len(state.waiting) - len(state.running)
        self._failed = len(state.failed)
        if event["event"] == "done":
            score = f" · {event['score'][0]} {event['score'][1]:.3f}" if event["score"] else ""
            remark = f" · {event['remark']}" if event["remark"] else ""
            took = "from the database" if event["cached"] else f"{event['seconds']:.0f} s"
            self._line(f"cell {self._ended}/{self._total} · {cell.title}{score} · {took}{remark}")
        else:
            self._line(f"FAILED · {cell.title} · {event['error']}")
