"""`shots`: in-context examples (E7): drop by their number, many first."""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "With fewer examples shown"
EMPTY = "no task was measured with two numbers of shots yet: `jdna eval … --shots K` does"
COMPARED = curves.condition("Shots", "shots", lambda row: f"{row['shots']} shots")
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
