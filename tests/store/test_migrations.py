"""Every schema is reached from every earlier one, whole or not at all."""

import contextlib
import datetime as dt
import hashlib
import shutil
import sqlite3

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlmodel import SQLModel

from jdna_cli.errors import RequestError
from jdna_cli.results import LayerSparsity, Outcome
from jdna_cli.store import database, reading, schema
from jdna_cli.store.ledger import Ledger, NewRun
from jdna_cli.store.views import VIEWS
from tests.store.test_store import PRUNE, ask, logical, url


# SQLite cannot tell what an index of an expression is; PostgreSQL compares it.
@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_tables_are_what_the_migrations_make(ledger):
    with database.open_engine(url(ledger)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


HEAD = schema.head()


@pytest.fixture
def newer_migrations(tmp_path, monkeypatch):
    """A later jdna: the same migrations and one more, whose statements a test gives."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.migrations_folder(), folder)

    def add(*statements):
        lines = "".join(f"    op.execute({statement!r})\n" for statement in statements)
        (folder / "versions" / "9999_later.py").write_text(
            f"from alembic import op\nrevision = '9999'\ndown_revision = '{HEAD}'\n\n\n"
            f"def upgrade():\n{lines}"
        )
        for module in (schema, database):
            monkeypatch.setattr(module, "migrations_folder", lambda: folder)

    return add


STATEMENTS = (
    "CREATE TABLE later (a INTEGER)",
    "INSERT INTO later VALUES (1)",
    "ALTER TABLE run ADD COLUMN colour TEXT",
    "UPDATE run SET colour = 'red'",
)


def test_an_older_database_is_copied_then_upgraded(on_file, newer_migrations):
    on_file.finish(on_file.start(NewRun(PRUNE, "f"), {}, None), Outcome())
    before = logical(on_file.home / "jdna.db")
    newer_migrations(*STATEMENTS)
    with pytest.raises(RequestError, match="run `jdna db upgrade`"):
        reading.require_schema(url(on_file), schema.head())
    Ledger(on_file.home).close()
    assert ask(on_file, "SELECT colour FROM run") == [("red",)]
    (copy,) = on_file.home.glob(f"jdna.db.{HEAD}-*.backup")
    assert logical(copy) == before
    for view in VIEWS:
        ask(on_file, f"SELECT * FROM {view.name}")


REVISIONS = sorted(path.name[:4] for path in schema.migrations_folder().glob("versions/[0-9]*.py"))


def as_of(revision, address):
    """A database as that schema's jdna left it; before 0007 a run and a number could be doubled."""
    engine = database.open_engine(address)
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    known = sa.MetaData()
    known.reflect(engine, only=["run", "metric", "layer"])
    run, metric, layer = (known.tables[name] for name in ("run", "metric", "layer"))
    row = {"kind": "prune", "spec": {"model": "m"}, "model": "m", "versions": {},
           "started_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}  # fmt: skip
    with engine.begin() as connection:
        twice = "running" if revision < "0007" else "interrupted"
        for number, (status, name) in enumerate(
            (("finished", "a"), (twice, "b"), ("running", "b"), ("failed", "c")), 1
        ):
            own = {"id": number, "status": status, "fingerprint": name}
            connection.execute(run.insert().values(**row, **own))
        for value in (0.5, 0.5, 0.25) if revision < "0007" else (0.5, 0.25):
            own = {"run": 1, "split": "s", "name": "loss" if value == 0.5 else "best"}
            connection.execute(metric.insert().values(value=value, **own))
        sizes = {"run": 1, "tensor": "t", "shape": [2, 3], "kept": 1, "total": 6}
        connection.execute(layer.insert().values(**sizes))
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_every_released_schema_is_upgraded_with_its_data(tmp_path, server, revision):
    (tmp_path / "home").mkdir()
    as_of(revision, server or schema.default_url(tmp_path / "home"))
    ledger = Ledger(tmp_path / "home", server)
    rows = ask(ledger, "SELECT id, status, fingerprint FROM run ORDER BY id")
    # Of what nobody is known to work on, nothing runs.
    assert rows == [(1, "finished", "a"), (2, "interrupted", "b"), (3, "interrupted", "b"),
                    (4, "failed", "c")]  # fmt: skip
    outcome = ledger.outcome(1)
    assert {(m.name, m.value) for m in outcome.measurements} == {("loss", 0.5), ("best", 0.25)}
    assert len(outcome.measurements) == 2
    assert outcome.layers == (LayerSparsity("t", (2, 3), 1, 6),)
    for view in VIEWS:
        ask(ledger, f"SELECT * FROM {view.name}")
    assert ledger.take_up(ledger.get(3)).id == 3
    ledger.close()


@pytest.mark.parametrize("failing", range(len(STATEMENTS) + 1))
def test_a_migration_that_fails_anywhere_changes_nothing(on_file, newer_migrations, failing):
    on_file.finish(on_file.start(NewRun(PRUNE, "f"), {}, None), Outcome())
    before = logical(on_file.home / "jdna.db")
    newer_migrations(*STATEMENTS[:failing], "SELECT * FROM nowhere", *STATEMENTS[failing:])
    with pytest.raises(RequestError, match="nowhere"):
        Ledger(on_file.home)
    assert logical(on_file.home / "jdna.db") == before


def test_a_newer_database_is_refused_and_left_alone(on_file, jdna):
    on_file.close()
    file = on_file.home / "jdna.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9998'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    for asked in (("db", "upgrade"), ("report",), ("prune", ".", "--sparsity", 0.5)):
        found = jdna(*asked, "--home", on_file.home, code=2)
        assert f"schema 9998, this jdna knows up to {schema.head()}" in found.err
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
