"""`drop`: performance lost by task difficulty and sparsity. The paper's main question.

For each model, regime and criterion: tasks from easy to hard as rows, sparsities as columns, and
in each cell the mean drop (1 − score / dense score) with its interval, over seeds, or over the
examples of a single one. What was not run is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, curves
from jdna_cli.reports.query import Row
from jdna_cli.reports.rendering.tables import Section

HEADING = "How much each task loses"
EMPTY = "no finished fine-tuning or evaluation is recorded yet"
COMPARED = curves.Comparison(
    "Performance drop",
    lambda row: str(row["label"]),
    ("model", "regime", "criterion", "scope", "allocation", "prunable", "bits", "calibration",
     "schedule", "teacher"),
    difficulty=True,
)  # fmt: skip


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model, regime, criterion and kind of pattern."""
    found = COMPARED.sections(rows)
    dense = [row for row in rows if cells.plain(row)]
    return found or ([_dense_only(dense)] if dense else [])


def _dense_only(dense: list[Row]) -> Section:
    table = [
        [
            r["label"],
            r["metric"],
            cells.percent(r["difficulty"]),
            cells.score(r["metric"], r["score"]),
            str(r["n"]),
        ]
        for r in dense
    ]
    note = "Nothing was pruned yet: `jdna finetune MODEL --task T --sparsity 0.5` makes a drop."
    columns = ("task", "metric", "difficulty", "dense", "seeds")
    return Section("Dense runs only", columns, table, (note,))


rows, figure = COMPARED.rows, COMPARED.figure
