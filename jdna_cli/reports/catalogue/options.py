"""`options`: options of a multiple-choice question (E5): drop by their number, many first."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no questions were asked with two numbers of options yet: `jdna eval … --options K` does"
COMPARED = curves.Comparison(
    "Options of a question",
    lambda row: f"{row['options']} options",
    curves.WITHIN_A_TASK,
    least=2,
    belongs=lambda row: row["options"] is not None,
)


def rows(source: Source) -> list[Row]:
    """All cells that have the knob, the easier ones first."""
    return [row for row in cells.labelled(source, ("options",)) if row["options"] is not None]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task and way of pruning that was measured at two levels or more."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each level."""
    return curves.figure(rows, COMPARED)
