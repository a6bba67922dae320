"""`context`: retrieved context (E6): drop by its length in words."""

from __future__ import annotations

from jdna_cli.reports import curves

HEADING = "With more words around the answer"
EMPTY = (
    "no questions were asked with contexts of two lengths yet: `jdna eval … --context-words N` does"
)
COMPARED = curves.condition("Context", "context_words", lambda row: f"{row['context_words']} words")
rows, sections, figure = COMPARED.rows, COMPARED.sections, COMPARED.figure
