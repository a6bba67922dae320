"""Reading a database without being able to change it: for reports, lists, and users' own SQL.

SQLite is read through the standard library alone, which starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli.errors import JdnaError, RequestError, redact

QUERY_SECONDS = 60.0
BATCH = 2_000  # rows fetched at a time
LONGEST = 64 << 20  # bytes of one value that SQLite may make

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


@dataclass(frozen=True)
class Bounds:
    """How much a query may return."""

    rows: int = 1_000_000
    bytes: int = 256 << 20  # of text, about


@dataclass(frozen=True)
class Rows:
    """What a query returned."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """Each row as a dictionary."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(url: str, sql: str, parameters: Sequence[Any] = (), bounds: Bounds | None = None) -> Rows:
    """Run one statement that can only read.

    Args:
        url: the database. A SQLite file must be there.
        sql: the statement, with `?` for each parameter.
        parameters: their values.
        bounds: for statements of users: how much they may return.

    Raises:
        RequestError: there is no database, the statement is wrong or would do more than read, or
            it returns more than it may.
        JdnaError: it takes too long.
    """
    if url.startswith("sqlite:///"):
        return _query_sqlite(Path(url.removeprefix("sqlite:///")), sql, parameters, bounds)
    return _query_server(url, sql, parameters, bounds)


def _fetched(cursor: Any, bounds: Bounds | None, deadline: float) -> list[tuple[Any, ...]]:
    """All rows of a cursor, batch by batch, within the bounds and the time."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    while batch := cursor.fetchmany(BATCH):
        rows += batch
        if time.monotonic() > deadline:
            raise JdnaError(f"SQL: stopped after {QUERY_SECONDS:.0f} s")
        if bounds is None:
            continue
        size += sum(len(v) for row in batch for v in row if isinstance(v, str | bytes))
        if len(rows) > bounds.rows:
            raise RequestError(f"SQL: more than {bounds.rows:,} rows: add a LIMIT")
        if size > bounds.bytes:
            raise RequestError(f"SQL: more than {bounds.bytes >> 20} MB: ask for less")
    return rows


def dead_runs(url: str, home: Path) -> list[int]:
    """Runs that are recorded as running, and whose process has died; nothing is written.

    Args:
        url: the database.
        home: the folder that processes' locks are in.
    """
    from jdna_cli.store.locks import POSTGRESQL_CLOCK, SQLITE_CLOCK, is_dead

    clock = SQLITE_CLOCK if url.startswith("sqlite") else POSTGRESQL_CLOCK
    sql = (
        f"SELECT run.id, owner.token, owner.expires - {clock}, owner.boot FROM run "  # noqa: S608
        "LEFT JOIN owner ON owner.token = run.owner WHERE run.status = 'running'"
    )
    rows = query(url, sql).rows
    return [number for number, *owner in rows if is_dead(home, *owner)]


def require_schema(url: str, expected: str) -> None:
    """Refuse to report on a schema other than `expected`.

    Raises:
        RequestError: the database is no jdna database, older, or newer.
    """
    try:
        found = query(url, "SELECT version_num FROM alembic_version").rows
    except RequestError as error:
        if "alembic_version" not in str(error):
            raise
        raise RequestError(f"{_file(url)} is no jdna database") from None
    if not found or found[0][0] < expected:
        raise RequestError("the database has an older schema: run `jdna db upgrade`")
    if found[0][0] > expected:
        raise RequestError(
            f"the database has schema {found[0][0]}, this jdna knows up to {expected}: update jdna"
        )


def _file(url: str) -> str:
    return url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else "the database"


def _query_sqlite(file: Path, sql: str, parameters: Sequence[Any], bounds: Bounds | None) -> Rows:
    deadline = time.monotonic() + QUERY_SECONDS

    def late() -> int:
        return int(time.monotonic() > deadline)

    def authorise(action: int, *_: object) -> int:
        return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY

    with _open_sqlite(file) as connection:
        # A table-valued function declares its columns once, which reading alone may not do.
        with contextlib.suppress(sqlite3.DatabaseError):  # what is damaged is said below
            connection.execute("SELECT 1 FROM json_each('{}'), json_tree('{}')").fetchone()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        connection.set_authorizer(authorise)
        connection.set_progress_handler(late, 100_000)
        try:
            try:
                cursor = connection.execute(sql, tuple(parameters))
                rows = _fetched(cursor, bounds, deadline)
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
                # Slower, so only where text is no UTF-8.
                connection.text_factory = lambda text: text.decode(errors="replace")
                cursor = connection.execute(sql, tuple(parameters))
                rows = _fetched(cursor, bounds, deadline)
        except OverflowError:
            raise RequestError("a number is larger than a database can hold") from None
        except sqlite3.Warning as error:
            raise RequestError(f"SQL: {error}") from None
        except sqlite3.Error as error:
            if "interrupted" in str(error):
                raise JdnaError(f"SQL: stopped after {QUERY_SECONDS:.0f} s") from None
            if "not authorized" in str(error) or "prohibited" in str(error):
                raise RequestError("SQL: only statements that read are allowed") from None
            raise RequestError(f"SQL: {error}") from None
        if cursor.description is None:
            raise RequestError("SQL: give one SELECT statement")
        return Rows(tuple(column[0] for column in cursor.description), rows)


@contextlib.contextmanager
def _open_sqlite(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise RequestError(f"there is no database at {file}: nothing has been run there yet")
    with contextlib.ExitStack() as stack:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        stack.callback(connection.close)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            # A database with a log needs a file beside it, which cannot be made here. What the log
            # has is not in the database yet: both are read where it can.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jdna-")))
            for part in (file, file.with_name(f"{file.name}-wal")):
                if part.is_file():
                    shutil.copyfile(part, folder / part.name)
            connection = sqlite3.connect(folder / file.name)
            stack.callback(connection.close)
            try:
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError as error:
                raise RequestError(f"{file} is no jdna database: {error}") from None
        except sqlite3.DatabaseError as error:
            raise RequestError(f"{file} is no jdna database: {error}") from None
        yield connection


def _query_server(url: str, sql: str, parameters: Sequence[Any], bounds: Bounds | None) -> Rows:
    import sqlalchemy as sa

    from jdna_cli.store import server

    engine = server.reader(url)
    deadline = time.monotonic() + QUERY_SECONDS
    text = sql
    if parameters:  # a statement of ours; one of a user is taken as it is
        text = sql.replace("%", "%%").replace("?", "%s")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            limit = f"SET LOCAL statement_timeout = {int(QUERY_SECONDS * 1000)}"
            connection.exec_driver_sql(limit)
            raw: Any = connection.connection.driver_connection
            # Rows stay at the server until they are asked for; one statement, which is prepared.
            with raw.cursor() as cursor:
                cursor.execute(text, tuple(parameters) or None, prepare=True)
                if cursor.description is None:
                    raise RequestError("SQL: give one SELECT statement")
                rows = _fetched(cursor, bounds, deadline)
                return Rows(tuple(column.name for column in cursor.description), rows)
    except sa.exc.DBAPIError as error:
        raise RequestError(f"SQL: {redact(str(error.orig)).splitlines()[0]}") from None
    except RequestError:
        raise
    except Exception as error:
        if not hasattr(error, "sqlstate"):
            raise
        if "statement timeout" in str(error):
            raise JdnaError(f"SQL: stopped after {QUERY_SECONDS:.0f} s") from None
        raise RequestError(f"SQL: {redact(str(error)).splitlines()[0]}") from None
    finally:
        engine.dispose()
