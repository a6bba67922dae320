"""`options`: options of a multiple-choice question (E5): drop by their number, many first."""

from __future__ import annotations

from jdna_cli.reports import curves
from jdna_cli.reports.query import Row

HEADING = "With more options to choose from"
EMPTY = "no questions were asked with two numbers of options yet: `jdna eval … --options K` does"


def _line(row: Row) -> str:
    return f"{row['options']} options" if row["options"] else "all options"


COMPARED = curves.condition("Options of a question", "options", _line, whole=True)
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
