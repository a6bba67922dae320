"""`criteria`: importance beyond magnitude: what chose the weights, side by side (E12)."""

from __future__ import annotations

from jdna_cli.reports import curves
from jdna_cli.reports.query import Row

HEADING = "What chooses the weights"
EMPTY = "no task was pruned by two criteria yet: `jdna finetune … --criterion random` does"
_OWN = ("criterion", "scope", "allocation", "calibration")


def _criterion(row: Row) -> str:
    words = [row["criterion"], row["scope"] if row["scope"] != "global" else None]
    words += [row["allocation"]]
    words += [f"on {row['calibration']}" if row["calibration"] else None]
    return " ".join(str(word) for word in words if word)


COMPARED = curves.Comparison(
    "Criteria",
    _criterion,
    tuple(name for name in curves.WITHIN_A_TASK if name not in _OWN),
    least=2,
    belongs=lambda row: row["criterion"] is not None,
)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
