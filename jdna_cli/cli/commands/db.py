"""`jdna db`: where the database is, upgrade it, or ask it in SQL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from jdna_cli.cli import examples
from jdna_cli.cli.opening import url_of
from jdna_cli.cli.options import common
from jdna_cli.console import print_json
from jdna_cli.errors import redact

db = typer.Typer(
    help="Where the database is; back it up, upgrade it, or ask it in SQL.", no_args_is_help=True
)


def plain(row: tuple[Any, ...]) -> list[Any]:
    """Values as JSON has them: no number is infinite there, and bytes are text."""
    values: list[Any] = []
    for value in row:
        if isinstance(value, float) and not math.isfinite(value):
            values.append(None)
        else:
            values.append(value.hex() if isinstance(value, bytes) else value)
    return values


@db.command("path", epilog=examples.of("db path"))
def path_of_db(
    home: common.Home = common.DEFAULT_HOME, db: common.Db = None, as_json: common.Json = False
) -> None:
    """Where the database is."""
    url = url_of(home, db)
    shown = redact(url) if db else str(home / "jdna.db")
    if as_json:
        print_json({"path": shown, "url": redact(url)})
    else:
        print(shown)


@db.command("upgrade", epilog=examples.of("db upgrade"))
def upgrade_db(
    home: common.Home = common.DEFAULT_HOME, db: common.Db = None, as_json: common.Json = False
) -> None:
    """Bring the database to the newest schema; the old one is copied beside it first."""
    from jdna_cli.store import database

    engine = database.prepare(url_of(home, db))
    schema = database.revision(engine)
    engine.dispose()
    if as_json:
        print_json({"schema": schema})
    else:
        print(f"schema {schema}")


@db.command("backup", epilog=examples.of("db backup"))
def back_up_db(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; not there yet.")],
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Copy the database as it is at one moment, while others may write to it."""
    from jdna_cli.store import database

    size = database.back_up(url_of(home, db), file).stat().st_size
    if as_json:
        print_json({"backup": str(file), "bytes": size})
    else:
        print(f"{file}: {size:,} bytes")


@db.command("query", epilog=examples.of("db query"))
def query_db(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement that reads.")],
    output: Annotated[common.Format, typer.Option("--format", help="How to write it.")] = "table",
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Ask the database in SQL. Nothing can be changed, whatever the statement says."""
    from jdna_cli.reports.rendering import tables
    from jdna_cli.store import reading

    found = reading.query(url_of(home, db), sql, bounds=reading.Bounds())
    if as_json:
        print_json({"columns": found.columns, "rows": [plain(row) for row in found.rows]})
    else:
        cells = [["" if v is None else str(v) for v in row] for row in found.rows]
        if output == "json":
            print_json([dict(zip(found.columns, plain(row), strict=True)) for row in found.rows])
        else:
            print(tables.render(found.columns, cells, output), end="")
