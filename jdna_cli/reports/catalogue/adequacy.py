"""`adequacy`: data adequacy (E1): drop by share of the training set, all of it first."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = (
    "no task was fine-tuned on two shares of its data yet: "
    "`jdna finetune … --data-fraction 0.5` does"
)
COMPARED = curves.Comparison(
    "Data adequacy",
    lambda row: f"{row['data_fraction']:.0%} of the data",
    curves.WITHIN_A_TASK,
    least=2,
    belongs=lambda row: row["data_fraction"] is not None,
)


def rows(source: Source) -> list[Row]:
    """All cells that have the knob, the easier ones first."""
    return [
        row
        for row in cells.labelled(source, ("data_fraction",))
        if row["data_fraction"] is not None
    ]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task and way of pruning that was measured at two levels or more."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each level."""
    return curves.figure(rows, COMPARED)
