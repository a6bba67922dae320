"""Runs migrations on the connection that `jdna_cli.store.database.upgrade` opened."""

from alembic import context
from sqlmodel import SQLModel

from jdna_cli.store import tables

assert tables.Run.metadata is SQLModel.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    # SQLite's default of False would commit each statement by itself.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
