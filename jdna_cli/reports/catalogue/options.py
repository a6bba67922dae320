"""`options`: options of a multiple-choice question (E5): drop by their number, many first."""

from __future__ import annotations

from jdna_cli.reports import curves

EMPTY = "no questions were asked with two numbers of options yet: `jdna eval … --options K` does"
COMPARED = curves.knob("Options of a question", "options", lambda row: f"{row['options']} options")
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
