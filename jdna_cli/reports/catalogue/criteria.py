"""`criteria`: importance beyond magnitude: what chose the weights, side by side (E12)."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no task was pruned by two criteria yet: `jdna finetune … --criterion random` does"
_OWN = ("criterion", "scope", "calibration")


def _criterion(row: Row) -> str:
    words = [row["criterion"], row["scope"] if row["scope"] != "global" else None]
    words += [f"on {row['calibration']}" if row["calibration"] else None]
    return " ".join(str(word) for word in words if word)


COMPARED = curves.Comparison(
    "Criteria",
    _criterion,
    tuple(name for name in curves.WITHIN_A_TASK if name not in _OWN),
    least=2,
    belongs=lambda row: row["criterion"] is not None,
)


def rows(source: Source) -> list[Row]:
    """All cells that a criterion chose the weights of."""
    return [row for row in cells.labelled(source) if row["criterion"]]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task, regime and pattern that two criteria share."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each criterion."""
    return curves.figure(rows, COMPARED)
