"""`adequacy`: data adequacy (E1): drop by share of the training set, all of it first."""

from __future__ import annotations

from jdna_cli.difficulty import CONDITIONS
from jdna_cli.reports import curves

HEADING = "With less training data"
EMPTY = (
    "no task was fine-tuned on two shares of its data yet: "
    "`jdna finetune … --data-fraction 0.5` does"
)
COMPARED = curves.condition(
    "Data adequacy",
    "data_fraction",
    lambda row: CONDITIONS["data_fraction"].label(row["data_fraction"]),
)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
