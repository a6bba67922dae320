"""`shots`: in-context examples (E7): drop by their number, many first."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no task was measured with two numbers of shots yet: `jdna eval … --shots K` does"
COMPARED = curves.Comparison(
    "Shots",
    lambda row: f"{row['shots']} shots",
    curves.WITHIN_A_TASK,
    least=2,
    belongs=lambda row: row["shots"] is not None,
)


def rows(source: Source) -> list[Row]:
    """All cells that have the knob, the easier ones first."""
    return [row for row in cells.labelled(source, ("shots",)) if row["shots"] is not None]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task and way of pruning that was measured at two levels or more."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each level."""
    return curves.figure(rows, COMPARED)
