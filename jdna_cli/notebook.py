"""What the Python API returns: typed fields, HTML for notebooks, pandas where it is there."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from jdna_cli.results import Outcome


@dataclass(frozen=True)
class RunResult:
    """One recorded run, and what it measured.

    Attributes:
        id: its number; `run:ID` names the model that it wrote.
        kind: prune, finetune, eval, or interpolate.
        cached: whether the database had it already.
        model: what was pruned, trained or measured, by name.
        task: on what, if on any.
        metrics: results by name, scores as fractions; those of further splits as split/name.
        sparsity: share of the prunable weights that is zero, counted; None where none was.
        folder: its files.
        spec: the request as it was carried out.
        outcome: every number: of each tensor, of each step, of each point of a line.
    """

    id: int
    kind: str
    cached: bool
    model: str | None
    task: str | None
    metrics: dict[str, float]
    sparsity: float | None
    folder: Path
    spec: dict[str, Any]
    outcome: Outcome = field(repr=False)

    @property
    def command(self) -> str:
        """The line of the shell that asks for the same."""
        from jdna_cli import command_line

        return command_line.of_recorded(self.kind, self.spec)

    def to_pandas(self) -> pandas.Series[Any]:
        """Its columns and metrics as one row."""
        import pandas

        own = {"id": self.id, "kind": self.kind, "model": self.model, "task": self.task,
               "sparsity": self.sparsity}  # fmt: skip
        return pandas.Series({**own, **self.metrics}, name=f"run:{self.id}")

    def _repr_html_(self) -> str:
        rows = [("kind", self.kind), ("model", self.model or ""), ("task", self.task or "")]
        if self.sparsity is not None:
            rows.append(("zeros", f"{self.sparsity:.2%}"))
        rows += [(name, f"{value:.4g}") for name, value in self.metrics.items()]
        return _table((f"run {self.id}", "cached" if self.cached else ""), rows)


@dataclass(frozen=True)
class Table:
    """Rows of a report, or of a query: a list of dictionaries with the same keys."""

    rows: list[dict[str, Any]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names, in their order."""
        return tuple(self.rows[0]) if self.rows else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a frame."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(self.columns))

    def _repr_html_(self) -> str:
        return _table(self.columns, [[row[name] for name in self.columns] for row in self.rows])


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    def line(kind: str, cells: Sequence[object]) -> str:
        told = (f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell)
                for cell in cells)  # fmt: skip
        return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in told) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
