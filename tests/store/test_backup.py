"""A copy of the database is of one moment, whoever writes meanwhile."""

import sqlite3
import threading

from benchmarks import simulated
from jdna_cli.store.ledger import Ledger


def count(file):
    connection = sqlite3.connect(file)
    found = connection.execute(
        "SELECT (SELECT COUNT(*) FROM run), (SELECT COUNT(*) FROM metric), "
        "(SELECT COUNT(*) FROM metric WHERE run NOT IN (SELECT id FROM run))"
    ).fetchone()
    (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return found, whole


def test_a_copy_is_whole_while_others_write(jdna, tmp_path):
    home, stop = jdna.home, threading.Event()
    simulated.record(home, simulated.many(1, 1, 2, 2))

    def write():
        for i in range(200):
            if stop.is_set():
                return
            simulated.record(home, [simulated.dense(model=f"m{i}", task="t", score=0.5)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(5):
            copy = tmp_path / f"{i}.db"
            told = jdna("db", "backup", copy, "--json").json
            (runs, metrics, orphans), whole = count(copy)
            assert whole == "ok"
            assert metrics == 2 * runs  # none half recorded
            assert orphans == 0
            assert told["bytes"] == copy.stat().st_size
            assert not list(tmp_path.glob(f"{i}.db-*"))
    finally:
        stop.set()
        writer.join()
    Ledger(tmp_path / "again", f"sqlite:///{tmp_path / '4.db'}").close()  # a database like any


def test_what_cannot_be_copied_is_refused_in_one_line(jdna, tmp_path):
    copy = tmp_path / "copy.db"
    assert "nothing has been run yet" in jdna("db", "backup", copy, code=2).err
    simulated.record(jdna.home, simulated.many(1, 1, 1, 1))
    jdna("db", "backup", copy)
    before = copy.read_bytes()
    assert "is there already" in jdna("db", "backup", copy, code=2).err
    assert copy.read_bytes() == before
    assert "there is no folder" in jdna("db", "backup", tmp_path / "no" / "x.db", code=2).err
    server = ("--db", "postgresql+psycopg://me:secret@host/runs")
    refused = jdna("db", "backup", tmp_path / "y.db", *server, code=2).err
    assert "pg_dump" in refused
    assert "secret" not in refused
