"""`architectures`: does it hold beyond BERT? Models side by side on each task (E11)."""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "On other architectures"
EMPTY = "no task was measured with two models yet"
COMPARED = curves.Comparison(
    "Architectures",
    lambda row: row["_name"],
    tuple(name for name in curves.WITHIN_A_TASK if name != "model"),
    least=2,
)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
