"""`context`: retrieved context (E6): drop by its length in words."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = (
    "no questions were asked with contexts of two lengths yet: `jdna eval … --context-words N` does"
)
COMPARED = curves.Comparison(
    "Context",
    lambda row: f"{row['context_words']} words",
    curves.WITHIN_A_TASK,
    least=2,
    belongs=lambda row: row["context_words"] is not None,
)


def rows(source: Source) -> list[Row]:
    """All cells that have the knob, the easier ones first."""
    return [
        row
        for row in cells.labelled(source, ("context_words",))
        if row["context_words"] is not None
    ]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task and way of pruning that was measured at two levels or more."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each level."""
    return curves.figure(rows, COMPARED)
