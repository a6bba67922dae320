"""Opening a database: connection, schema, migrations. All of them safe among many processes."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from jdna_cli.errors import RequestError, redact
from jdna_cli.store import server_roles
from jdna_cli.store.schema import head, migrations_folder
from jdna_cli.store.views import VIEWS

BUSY_SECONDS = 30.0
LOCK = 0x6A646E61  # the number of our advisory lock: "jdna"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for any other database."""
    parsed = parse_url(url)
    if not parsed.drivername.startswith("sqlite"):
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise RequestError("--db: runs must outlive the process, give sqlite:///FILE")
    return Path(parsed.database)


def parse_url(url: str) -> sa.URL:
    """Parse a database URL.

    Raises:
        RequestError: it is none.
    """
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError:
        raise RequestError(
            f"--db: {redact(url)!r} is no database URL, as sqlite:///runs.db is"
        ) from None


def open_engine(url: str) -> Engine:
    """An engine on which every transaction is safe among processes."""
    parse_url(url)
    try:
        engine = sa.create_engine(url, hide_parameters=True)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise RequestError(f"--db: no driver for {redact(url)} ({error})") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    # Without its own BEGIN, which pysqlite issues too late for reads that writes build on.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA foreign_keys = ON")
    deadline = time.monotonic() + BUSY_SECONDS
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for the busy timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    cursor.close()


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads, then writes, fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare(url: str) -> Engine:
    """Open the database for writing, at the newest schema.

    A new one is created, also by several processes at once; an older one is copied, then upgraded.

    Raises:
        RequestError: it was written by a newer jdna, or cannot be written.
    """
    file = sqlite_file(url)
    if file is not None:
        _require_writable(file)
    engine = open_engine(url)
    try:
        found = revision(engine)
        if found == head():
            return engine
        check_not_newer(found)
        if file is not None and found is not None:
            _back_up(file, found)
        upgrade(engine)
    except sa.exc.OperationalError as error:
        raise RequestError(f"database {redact(url)} cannot be opened: {_cause(error)}") from None
    except sa.exc.DatabaseError as error:
        raise RequestError(f"{redact(url)} is no jdna database: {_cause(error)}") from None
    return engine


def revision(engine: Engine) -> str | None:
    """The schema of the database; None if it has none yet."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def check_not_newer(found: str | None) -> None:
    """Refuse a schema that this jdna does not know.

    Raises:
        RequestError: names both.
    """
    if found is not None and found > head():
        raise RequestError(
            f"the database has schema {found}, this jdna knows up to {head()}: update jdna"
        )


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest, in one transaction: all of it or nothing."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # One at a time: SQLite's BEGIN IMMEDIATE does that by itself.
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        config.attributes["connection"] = connection
        # Views hold no data; a table that a view reads cannot be changed under it.
        for view in reversed(VIEWS):
            connection.execute(sa.text(f"DROP VIEW IF EXISTS {view.name}"))
        command.upgrade(config, "head")
        for view in VIEWS:
            connection.execute(sa.text(f"CREATE VIEW {view.name} AS {view.query}"))
        if engine.dialect.name == "postgresql":
            server_roles.make_reader(connection)


def _require_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{file.parent} cannot be made: {error.strerror or error}") from None
    for path in (file.parent, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise RequestError(f"{path} is read-only: name another place with --home or --db")


def back_up(url: str, target: Path) -> Path:
    """Copy a database as it is at one moment, while others may write to it.

    Args:
        url: of a SQLite file.
        target: the copy; there must be none yet.

    Raises:
        RequestError: it is a server's, is not there, or the copy cannot be written.
    """
    file = sqlite_file(url)
    if file is None:
        raise RequestError(
            f"{redact(url)} is a server's, which its own tools copy while others write: "
            f"pg_dump --format=custom --file={target} URL"
        )
    if not file.is_file():
        raise RequestError(f"there is no database at {file}: nothing has been run yet")
    if target.exists():
        raise RequestError(f"{target} is there already: name another file")
    if not target.absolute().parent.is_dir():
        raise RequestError(f"there is no folder {target.absolute().parent}")
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        _copy(file, part)
        part.replace(target)
    except sqlite3.DatabaseError as error:
        raise RequestError(f"{file} cannot be copied: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _back_up(file: Path, found: str) -> None:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    _copy(file, file.with_name(f"{file.name}.{found}-{stamp}.backup"))


def _copy(file: Path, target: Path) -> None:
    with sqlite3.connect(file) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
        # One file: what is copied is not in use.
        copy.execute("PRAGMA journal_mode = DELETE")
    source.close()
    copy.close()


def _cause(error: Exception) -> str:
    return redact(str(getattr(error, "orig", None) or error).splitlines()[0])
