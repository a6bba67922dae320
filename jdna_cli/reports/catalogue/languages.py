"""`languages`: multilingual translation (E2): drop by direction and by number of directions."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.figures import Figure
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section

EMPTY = "no translation was measured yet: `jdna finetune MODEL --task multi30k --pairs en-de` does"


def _directions(row: Row) -> str:
    pairs = str(row["pairs"])
    count = pairs.count(",") + 1
    zero = " zero-shot" if row["shots"] == 0 and count == 1 else ""
    return f"{row['task']} · {pairs if count <= 2 else f'{count} directions'}{zero}"


COMPARED = curves.Comparison(
    "Languages",
    _directions,
    ("model", "split", "regime", "criterion", "scope", "prunable", "bits", "calibration",
     "schedule", "teacher"),
)  # fmt: skip


def rows(source: Source) -> list[Row]:
    """All cells of translations, those of few directions first."""
    found = [row for row in cells.labelled(source) if row["pairs"] is not None]
    return sorted(found, key=lambda row: (row["mixture"] or 0, row["pairs"]))


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table for each model and way of pruning."""
    return curves.sections(rows, COMPARED)


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against sparsity, a line for each mixture of directions."""
    return curves.figure(rows, COMPARED)
