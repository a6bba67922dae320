"""Reports: each is a query of the database, then statistics, then a table and a figure. No tensors.

One file per report in `catalogue/`, named after it, with `HEADING`, `EMPTY`, `rows`,
`sections` and `figure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from jdna_cli import registry
from jdna_cli.reports import catalogue
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure
from jdna_cli.reports.rendering.tables import Section

# Words that people use for the same reports.
_ALSO = {"compression": "quantization", "quantisation": "quantization", "cost": "tradeoff",
         "data-adequacy": "adequacy", "open-closed-book": "book", "multilingual": "languages",
         "transfer-regimes": "regimes", "loss-landscape": "barrier"}  # fmt: skip


class Report(Protocol):
    """The face of a report's module. Its first docstring line says what it shows."""

    HEADING: str  # its section of a page, in plain words
    EMPTY: str  # what to say where there is nothing to report

    def rows(self, source: Source) -> list[Row]:
        """What the database has, one flat record each, in full precision.

        Names that start with an underscore are for the report itself.
        """

    def sections(self, rows: Sequence[Row]) -> list[Section]:
        """The tables that a person reads."""

    def figure(self, rows: Sequence[Row]) -> Figure:
        """The report's figure; without panels where there is nothing to draw."""


def names() -> tuple[str, ...]:
    """Names of all reports."""
    return registry.members(catalogue)


def load(name: str) -> Report:
    """The report called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    known = _ALSO.get(name, name)
    return cast(Report, registry.load(catalogue, registry.check("report", known, names())))
