"""`regimes`: are the pre-trained values the gem? The transfer regimes side by side (E8)."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no task was fine-tuned in two regimes yet: `jdna finetune … --regime dense-frozen` does"
COMPARED = curves.Comparison(
    "Regimes",
    lambda row: str(row["regime"]),
    tuple(name for name in curves.WITHIN_A_TASK if name != "regime"),
    least=2,
)


def rows(source: Source) -> list[Row]:
    """All cells of fine-tunings."""
    return [row for row in cells.labelled(source) if row["regime"]]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model, task and way of pruning that two regimes share."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each regime."""
    return curves.figure(rows, COMPARED)
