"""A report as text, data, a figure, or a page: where it was asked to go."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jdna_cli.cli.options import common
from jdna_cli.console import phases
from jdna_cli.errors import RequestError

if TYPE_CHECKING:
    from jdna_cli.reports.query import Source


@dataclass(frozen=True)
class Targets:
    """Where a report goes besides standard output."""

    form: common.Format = "table"
    plot: Path | None = None
    html: Path | None = None
    wrapped: bool = False  # one JSON object about it all
    title: str | None = None  # of the page


def write(name: str, source: Source, targets: Targets) -> str:
    """A report as text; its figure and page go to their files.

    Raises:
        RequestError: no such report, or nothing in the database that it is about.
    """
    with phases() as now:
        return _written(name, source, targets, now)


def _written(name: str, source: Source, targets: Targets, now: Callable[[str], None]) -> str:
    from jdna_cli import reports
    from jdna_cli.reports import cells
    from jdna_cli.reports.query import nothing
    from jdna_cli.reports.rendering import plots, tables

    chosen = reports.load(name)
    now("reading the runs")
    rows = chosen.rows(source)
    if not rows and source.filters.given:
        raise nothing(source, chosen.EMPTY)
    if targets.plot is not None:
        now(f"drawing {targets.plot}")
        plots.draw(chosen.figure(rows), targets.plot)
    if targets.html is not None:
        from jdna_cli.reports import page

        now(f"drawing {targets.html}")
        page.write(targets.html, name, source, targets.title or page.TITLE)
    files = {"plot": targets.plot, "html": targets.html}
    if targets.form in ("json", "csv"):
        public = [cells.public(row) for row in rows]
        if targets.wrapped:
            told = {kind: str(path) if path else None for kind, path in files.items()}
            found = {"report": name, "rows": public, **told}
            return json.dumps(found, allow_nan=False, default=str) + "\n"
        if targets.form == "json":
            return json.dumps(public, allow_nan=False, default=str) + "\n"
        columns = list(public[0]) if public else ["task"]
        return tables.records_as_csv(columns, [[row[c] for c in columns] for row in public])
    sections = chosen.sections(rows)
    if not sections:
        raise nothing(source, chosen.EMPTY) if not rows else RequestError(chosen.EMPTY)
    text = tables.sections_as_text(sections, targets.form)
    if targets.form == "table":
        text += "".join(f"{kind}: {path}\n" for kind, path in files.items() if path)
    return text
