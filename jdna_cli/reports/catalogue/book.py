"""`book`: external information (E3): questions with the text at hand, and without."""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "Without the text at hand"
EMPTY = "no questions were asked open-book and closed-book yet: `jdna eval … --book closed` does"
COMPARED = curves.condition("External information", "book", lambda row: f"{row['book']} book")
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
