"""Whatever a statement says, it reads tables, a bounded lot of them, and nothing else."""

import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.specs import PruneSpec
from jdna_cli.store import reading
from jdna_cli.store.ledger import Ledger, NewRun
from jdna_cli.store.reading import Bounds

PRUNE = PruneSpec(model="m", sparsity=0.5)


@pytest.fixture(scope="module")
def served(tmp_path_factory, postgres):
    """The URL of a PostgreSQL database with one run, whose user is a superuser."""
    url = postgres()
    ledger = Ledger(tmp_path_factory.mktemp("served") / "home", url)
    ledger.start(NewRun(PRUNE, "f", {"model": "m"}), {}, None)
    yield url
    ledger.close()


ESCAPES = [
    "COMMIT; UPDATE run SET model = 'x'",
    "SELECT 1; SELECT 2",
    "UPDATE run SET model = 'x'",
    "COPY run TO PROGRAM 'touch {canary}'",
    "COPY run TO '{canary}'",
    "SELECT pg_read_file('{secret}')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('{secret}')",
    "SELECT value FROM about",
    "SELECT set_config('role', 'postgres', false), "
    "query_to_xml('SELECT pg_read_file(''{secret}'')', true, true, '')",
    "SELECT set_config('transaction_read_only', 'off', false), query_to_xml('DELETE FROM metric',"
    " true, true, '')",
    "SELECT set_config('session_authorization', 'postgres', false), "
    "query_to_xml('SELECT pg_read_file(''{secret}'')', true, true, '')",
    "DO $$ BEGIN PERFORM 1; END $$",
    "RESET ROLE",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_a_superusers_query_reaches_no_file_and_changes_nothing(served, tmp_path, sql):
    secret, canary = tmp_path / "secret", tmp_path / "canary"
    secret.write_text("do not read me")
    secret.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        if os.access(folder, os.W_OK) and folder != folder.parent and "pytest" in str(folder):
            folder.chmod(0o755)
    with pytest.raises(RequestError) as told:
        reading.query(served, sql.format(secret=secret, canary=canary))
    assert "do not read me" not in str(told.value)
    assert not canary.exists()
    assert reading.query(served, "SELECT model FROM run").rows == [("m",)]


def test_a_query_sees_tables_and_views(served):
    assert reading.query(served, "SELECT COUNT(*) FROM performance").rows == [(0,)]
    found = reading.query(served, "SELECT id FROM run WHERE model LIKE '%m' AND model = ?", ["m"])
    assert found.rows == [(1,)]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    there = request.getfixturevalue("postgres")() if request.param == "postgres" else None
    ledger = Ledger(tmp_path / "home", there)
    ledger.close()
    return ledger.url


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "


def test_rows_bytes_and_time_are_bounded(url, monkeypatch):
    with pytest.raises(RequestError, match="more than 100 rows"):
        reading.query(url, NUMBERS.format(100_000) + "SELECT i FROM n", bounds=Bounds(rows=100))
    many = NUMBERS.format(30_000) + "SELECT 'abcdefghijklmnopqrstuvwxyz' FROM n"
    with pytest.raises(RequestError, match="more than 0 MB"):
        reading.query(url, many, bounds=Bounds(bytes=100_000))
    monkeypatch.setattr(reading, "QUERY_SECONDS", 0.3)
    with pytest.raises(JdnaError, match="stopped after 0 s"):
        reading.query(url, NUMBERS.format(10**12) + "SELECT COUNT(*) FROM n")


def test_one_value_cannot_fill_the_memory(tmp_path):
    ledger = Ledger(tmp_path / "home")
    ledger.close()
    with pytest.raises(RequestError, match="too big"):
        reading.query(ledger.url, "SELECT zeroblob(1000000000)")


def test_what_json_has_not_is_null_or_text(jdna, tiny):
    jdna("prune", tiny("bert"), "--sparsity", 0.5)
    for form in ("--json", "--format"):
        rest = (form,) if form == "--json" else (form, "json")
        told = jdna("db", "query", "SELECT 1e999 AS a, -1e999 AS b, x'00ff' AS c", *rest).out
        rows = json.loads(told)
        assert (rows["rows"][0] if form == "--json" else [*rows[0].values()]) == [
            None,
            None,
            "00ff",
        ]


def test_a_copy_that_cannot_be_written_has_its_newest_run(tmp_path):
    ledger = Ledger(tmp_path / "home")
    # Its newest run is in the log beside the database alone, as long as it is open.
    ledger.start(NewRun(PRUNE, "f", {"model": "newest"}), {}, None)
    copied = Path(tempfile.mkdtemp(prefix="jdna-copied-"))
    for name in ("jdna.db", "jdna.db-wal"):
        shutil.copy(tmp_path / "home" / name, copied / name)
        (copied / name).chmod(0o444)
    ledger.close()
    copied.chmod(0o555)
    asked = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_as_nobody, args=(copied, asked[1]))
    try:
        child.start()
        told = asked[0].recv()
        child.join()
    finally:
        copied.chmod(0o755)
        shutil.rmtree(copied)
    assert told == [("newest",)]


def _as_nobody(folder, line):
    if os.getuid() == 0:  # whom no mode of a file stops
        os.setgid(65534)
        os.setuid(65534)
    line.send(reading.query(f"sqlite:///{folder}/jdna.db", "SELECT model FROM run").rows)
