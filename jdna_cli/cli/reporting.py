"""`jdna report`: what the runs say, as a table, data, or a figure. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jdna_cli.cli import options as o


def report(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Which report: drop, compression, cost, or dynamics.",
            show_default=False,
        ),
    ] = "drop",
    output: Annotated[o.Format, typer.Option("--format", help="How to write it.")] = o.Format.TABLE,
    plot: o.Plot = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    as_json: o.Json = False,
) -> None:
    """What the recorded runs say. By default: performance drop by task difficulty and sparsity."""
    from jdna_cli.cli.inspection import url_of
    from jdna_cli.reports import plots

    if plot is not None:
        plots.check_path(plot)
    text = write(name, url_of(home, db), o.Format.JSON if as_json else output, plot, as_json)
    print(text, end="")


def write(name: str, url: str, output: o.Format, plot: Path | None, wrapped: bool = False) -> str:
    """A report as text; its figure goes to `plot`.

    Raises:
        RequestError: no such report, no database, or nothing in it that the report is about.
    """
    from jdna_cli import reports
    from jdna_cli.errors import RequestError
    from jdna_cli.reports import tables
    from jdna_cli.store import reading, schema

    chosen = reports.load(name)
    reading.require_schema(url, schema.head())
    rows = chosen.rows(lambda sql: reading.query(url, sql))
    if plot is not None:
        chosen.figure(rows, plot)
    if wrapped:
        found = {"report": name, "rows": rows, "plot": str(plot) if plot else None}
        return json.dumps(found, allow_nan=False, default=str) + "\n"
    if output is o.Format.JSON:
        return json.dumps(rows, allow_nan=False, default=str) + "\n"
    if output is o.Format.CSV:
        columns = list(rows[0]) if rows else ["task"]
        return tables.records_as_csv(columns, [[row[c] for c in columns] for row in rows])
    sections = chosen.sections(rows)
    if not sections:
        raise RequestError(chosen.EMPTY)
    text = tables.sections_as_text(sections, output.value)
    return text + (f"plot: {plot}\n" if plot and output is o.Format.TABLE else "")
