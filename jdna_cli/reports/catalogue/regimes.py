"""`regimes`: are the pre-trained values the gem? The transfer regimes side by side (E8).

Adapters (`finetune --lora`) beside full fine-tuning of the same recipe, learning rate included.
"""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "What may train after pruning"
EMPTY = "no task was fine-tuned in two regimes yet: `jdna finetune … --regime dense-frozen` does"
COMPARED = curves.Comparison(
    "Regimes",
    lambda row: " · ".join(str(row[name]) for name in ("regime", "adapter") if row[name]),
    tuple(name for name in curves.WITHIN_A_TASK if name != "regime"),
    least=2,
    belongs=lambda row: bool(row["regime"]),
    without=("lora", "lora_alpha", "lora_targets"),
)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
