"""`regimes`: are the pre-trained values the gem? The transfer regimes side by side (E8)."""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "What may train after pruning"
EMPTY = "no task was fine-tuned in two regimes yet: `jdna finetune … --regime dense-frozen` does"
COMPARED = curves.Comparison(
    "Regimes",
    lambda row: str(row["regime"]),
    tuple(name for name in curves.WITHIN_A_TASK if name != "regime"),
    least=2,
    belongs=lambda row: bool(row["regime"]),
)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
