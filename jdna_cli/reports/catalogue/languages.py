"""`languages`: multilingual translation (E2): drop by direction and by number of directions."""

from __future__ import annotations

from jdna_cli.reports import curves
from jdna_cli.reports.query import Row, Source

HEADING = "From language to language"
EMPTY = "no translation was measured yet: `jdna finetune MODEL --task multi30k --pairs en-de` does"


def _directions(row: Row) -> str:
    pairs = str(row["pairs"])
    count = pairs.count(",") + 1
    zero = " zero-shot" if row["shots"] == 0 and count == 1 else ""
    return f"{row['task']} · {pairs if count <= 2 else f'{count} directions'}{zero}"


COMPARED = curves.Comparison(
    "Languages",
    _directions,
    ("model", "split", "regime", "criterion", "scope", "allocation", "prunable", "bits",
     "calibration", "schedule", "teacher"),
    belongs=lambda row: row["pairs"] is not None,
)  # fmt: skip


def rows(source: Source) -> list[Row]:
    """All cells of translations, those of few directions first."""
    return sorted(COMPARED.rows(source), key=lambda row: (row["mixture"] or 0, row["pairs"]))


sections, figure = COMPARED.sections, COMPARED.figure
