"""A board of what workers do: live at a terminal, lines that stay elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from jdna_cli.sweeps.cells import Cell


class LiveBoard:
    """What each worker is at, below a head that a board may have."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, str]] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
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

    def _head(self) -> list[str]:
        """Lines above the workers'."""
        return []

    def _drawn(self) -> Any:
        from rich.text import Text

        lines = [f"  {title}  {far}" for _, (title, far) in sorted(self._rows.items())]
        return Text("\n".join([*self._head(), *lines]))

    def _line(self, text: str) -> None:
        """A line that stays."""
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
