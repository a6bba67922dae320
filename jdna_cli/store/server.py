"""PostgreSQL, opened for statements that only read."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from jdna_cli.errors import RequestError, redact
from jdna_cli.store.database import open_engine, parse_url
from jdna_cli.store.server_roles import MAY_MORE, READER


def reader(url: str) -> Engine:
    """An engine whose statements cannot reach files and programs of the server.

    Raises:
        RequestError: the user may do that, and no role that may not could be made.
    """
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            if not connection.execute(sa.text(MAY_MORE)).scalar():
                return engine
            there = sa.inspect(connection).has_table("about")
            query = sa.text("SELECT value FROM about WHERE name = :name")
            found = connection.execute(query, {"name": READER}).scalar() if there else None
    except sa.exc.OperationalError as error:
        cause = redact(str(error.orig)).splitlines()[0]
        raise RequestError(f"database {redact(url)} cannot be opened: {cause}") from None
    engine.dispose()
    if found is None:
        raise RequestError(
            f"--db: the user of {redact(url)} may read files of the server: run `jdna db upgrade`, "
            "which makes a role that may not, or give the address of such a role"
        )
    role, _, password = str(found).partition(":")
    return open_engine(
        parse_url(url).set(username=role, password=password).render_as_string(hide_password=False)
    )
