"""`architectures`: does it hold beyond BERT? Models side by side on each task (E11)."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no task was measured with two models yet"
COMPARED = curves.Comparison(
    "Architectures",
    lambda row: cells.short(row["model"]),
    tuple(name for name in curves.WITHIN_A_TASK if name != "model"),
    least=2,
)


def rows(source: Source) -> list[Row]:
    """All cells."""
    return cells.labelled(source)


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each task and way of pruning that two models share."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each model."""
    return curves.figure(rows, COMPARED)
