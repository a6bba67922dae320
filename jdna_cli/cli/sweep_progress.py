"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

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


class SweepProgress:
    """Shows a sweep: live at a terminal, a line per cell elsewhere."""

    def __init__(self, title: str, plan: Plan) -> None:
        self._title = title
        self._total, self._known = len(plan.waiting), len(plan.runs)
        self._ended, self._failed = 0, 0
        self._began = time.monotonic()
        self._rows: dict[int, tuple[str, str]] = {}
        self._live: Any = None

    def __enter__(self) -> SweepProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True,
                              get_renderable=self._drawn)  # fmt: skip
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def _drawn(self) -> Any:
        from rich.text import Text

        lines = [f"{self._title} · {self._counts()}"]
        lines += [f"  {title}  {far}" for _, (title, far) in sorted(self._rows.items())]
        return Text("\n".join(lines))

    def _counts(self) -> str:
        parts = [f"{self._ended} of {self._total} cells"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{self._known} from the database"] if self._known else []
        if self._ended:
            spent = time.monotonic() - self._began
            left = spent / self._ended * (self._total - self._ended)
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def _line(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def started(self, cell: Cell, worker: int) -> None:
        """A worker has a cell."""
        self._rows[worker] = (cell.title, "")

    def progress(self, worker: int, event: dict[str, Any]) -> None:
        """A worker tells how far it is."""
        title, _ = self._rows.get(worker, ("", ""))
        far = f"{event['what']} {event['done']}/{event['total']} {event['note']}"
        self._rows[worker] = (title, far)

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
