"""PostgreSQL: a role that may read tables, and neither files nor programs of the server.

A statement in a transaction that only reads can still read files and start programs, where its user
may. A superuser's statements, and those of members of `pg_read_server_files` and the like, are run
as a role of their own: `jdna db upgrade`, and whatever makes or opens the database for writing, has
made it.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from sqlalchemy.engine import Connection

READER = "reader"  # the row of `about` that tells the role and its password

MAY_MORE = """
SELECT rolsuper OR pg_has_role(current_user, 'pg_read_server_files', 'MEMBER')
  OR pg_has_role(current_user, 'pg_write_server_files', 'MEMBER')
  OR pg_has_role(current_user, 'pg_execute_server_program', 'MEMBER')
FROM pg_roles WHERE rolname = current_user
"""


def make_reader(connection: Connection) -> None:
    """Make the role, if the user of this connection needs one and may, and there is none."""
    known = sa.text("SELECT 1 FROM about WHERE name = :name")
    if not connection.execute(sa.text(MAY_MORE)).scalar():
        return
    if connection.execute(known, {"name": READER}).scalar():
        return
    role, password = f"jdna_{secrets.token_hex(6)}", secrets.token_hex(24)
    database = connection.execute(sa.text("SELECT current_database()")).scalar()
    quoted = connection.dialect.identifier_preparer.quote(str(database))
    for statement in (
        f"CREATE ROLE {role} LOGIN NOINHERIT PASSWORD '{password}'",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
        f"GRANT CONNECT ON DATABASE {quoted} TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
        f"REVOKE ALL ON about FROM {role}",
    ):
        connection.exec_driver_sql(statement)
    connection.execute(
        sa.text("INSERT INTO about (name, value) VALUES (:name, :value)"),
        {"name": READER, "value": f"{role}:{password}"},
    )
