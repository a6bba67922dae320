"""`drop`: performance lost by task difficulty and sparsity. The paper's main question.

For each model, regime and criterion: tasks from easy to hard as rows, sparsities as columns, and
in each cell the mean drop (1 − score / dense score) with its interval, over seeds, or over the
examples of a single one. What was not run is empty.
"""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "How much each task loses"
EMPTY = "no finished fine-tuning or evaluation is recorded yet"
COMPARED = curves.Comparison(
    "Performance drop",
    lambda row: str(row["label"]),
    ("model", "regime", "criterion", "scope", "allocation", "prunable", "bits", "calibration",
     "schedule", "teacher"),
    difficulty=True,
)  # fmt: skip


rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
