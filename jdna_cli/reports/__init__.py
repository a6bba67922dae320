"""Reports: each is a query of the views, then statistics, then a table and a figure. No tensors.

One file per report in `catalogue/`, named after it, with `rows`, `sections` and `figure`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from jdna_cli import registry
from jdna_cli.reports import catalogue
from jdna_cli.reports.tables import Section
from jdna_cli.store.reading import Rows

Row = dict[str, Any]
Query = Callable[[str], Rows]


class Report(Protocol):
    """The face of a report's module."""

    EMPTY: str  # what to say where there is nothing to report

    def rows(self, query: Query) -> list[Row]:
        """What the database has, one flat record per measured cell, in full precision."""

    def sections(self, rows: Sequence[Row]) -> list[Section]:
        """The tables that a person reads."""

    def figure(self, rows: Sequence[Row], path: Path) -> None:
        """Draw the report's figure into `path`.

        Raises:
            RequestError: there is nothing to draw yet.
        """


def names() -> tuple[str, ...]:
    """Names of all reports."""
    return registry.members(catalogue)


def load(name: str) -> Report:
    """The report called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    return cast(Report, registry.load(catalogue, registry.check("report", name, names())))
