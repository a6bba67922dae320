"""A run has one owner: who died is noticed, who was given up writes nothing, who waits gets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from jdna_cli.results import Measurement, Outcome
from jdna_cli.specs import PruneSpec
from jdna_cli.store import liveness, locks, reading
from jdna_cli.store.ledger import AlreadyRunningError, Ledger, NewRun
from jdna_cli.store.liveness import LostRunError

PRUNE = PruneSpec(model="m", sparsity=0.5)
RESULT = Outcome((Measurement("model", "bytes", 1.0),))


@pytest.fixture(params=["sqlite", "postgres"])
def server(request):
    """The URL of an empty database, None for the home's own file."""
    return request.getfixturevalue("postgres")() if request.param == "postgres" else None


@pytest.fixture
def opened(tmp_path, server):
    """`opened()`: another process's ledger of the same home."""
    ledgers = []

    def found():
        ledgers.append(Ledger(tmp_path / "home", server))
        return ledgers[-1]

    yield found
    for ledger in ledgers:
        ledger.close()


def change(ledger, sql, **values):
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(sql), values)


def expire(ledger):
    """As if the process had not been heard of for long."""
    change(ledger, "UPDATE owner SET expires = 1 WHERE token = :own", own=ledger.lease.token)


def status(ledger, run):
    return ledger.get(run.id).status


def test_of_one_request_one_process_works(opened):
    one, other = opened(), opened()
    run = one.start(NewRun(PRUNE, "f"), {}, None)
    with pytest.raises(AlreadyRunningError, match=f"run {run.id} of the same request is running"):
        other.start(NewRun(PRUNE, "f"), {}, None)
    other.start(NewRun(PRUNE, "another"), {}, None)
    one.finish(run, RESULT)
    assert other.start(NewRun(PRUNE, "f"), {}, None).id != run.id


def test_of_two_that_take_up_a_run_one_gets_it(opened):
    dead, one, other = opened(), opened(), opened()
    run = dead.start(NewRun(PRUNE, "f"), {}, None)
    expire(dead)
    one.recognise_dead()
    assert status(one, run) == "interrupted"
    assert one.take_up(run).owner == one.lease.token
    with pytest.raises(AlreadyRunningError, match=f"run {run.id} "):
        other.take_up(run)


def test_who_was_given_up_writes_nothing(opened):
    slow, other = opened(), opened()
    run = slow.start(NewRun(PRUNE, "f"), {}, None)
    expire(slow)
    for late in (lambda: slow.finish(run, RESULT), lambda: slow.lease.confirm(run.id)):
        with pytest.raises(LostRunError):
            late()
    taken = other.take_up(_found_dead(other, run))
    with pytest.raises(LostRunError):
        slow.finish(run, RESULT)
    with pytest.raises(LostRunError), slow.running(run, fresh=True):
        raise KeyboardInterrupt
    assert status(other, run) == "running"
    assert other.finish(taken, RESULT).status == "finished"
    rows = reading.query(other.url, "SELECT COUNT(*) FROM metric").rows
    assert rows == [(1,)]


def _found_dead(ledger, run):
    ledger.recognise_dead()
    return ledger.get(run.id)


def test_a_lease_is_renewed_while_the_database_is_busy(opened, monkeypatch):
    monkeypatch.setattr(liveness, "BEAT_SECONDS", 0.01)
    ledger = opened()
    refused, real = [], ledger.lease._renewed

    def locked():
        if len(refused) < 3:
            refused.append(True)
            raise sa.exc.OperationalError("UPDATE", {}, Exception("database is locked"))
        return real()

    monkeypatch.setattr(ledger.lease, "_renewed", locked)
    run = ledger.start(NewRun(PRUNE, "f"), {}, None)
    expiry = "SELECT expires FROM owner"
    before = reading.query(ledger.url, expiry).rows
    deadline = time.monotonic() + 30
    while reading.query(ledger.url, expiry).rows == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(refused) == 3
    assert reading.query(ledger.url, expiry).rows > before
    ledger.finish(run, RESULT)


CHILD = """
import os, sys, time
from pathlib import Path
from jdna_cli.specs import PruneSpec
from jdna_cli.store.ledger import Ledger, NewRun
ledger = Ledger(Path(sys.argv[1]), sys.argv[2] or None)
run = ledger.start(NewRun(PruneSpec(model="m", sparsity=0.5), "f"), {}, None)
print(run.id, flush=True)
time.sleep(600)
"""


def test_a_killed_process_is_known_at_once_and_a_stopped_one_lives(opened, tmp_path, server):
    ledger = opened()
    command = [sys.executable, "-c", CHILD, tmp_path / "home", server or ""]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    number = int(child.stdout.readline())
    child.send_signal(signal.SIGSTOP)
    ledger.recognise_dead()
    assert ledger.get(number).status == "running"
    assert reading.dead_runs(ledger.url, ledger.home) == []
    # Another machine's process, with the name and number of a living one here.
    change(ledger, "UPDATE run SET host = 'x', pid = :pid", pid=os.getpid())
    child.kill()
    child.wait()
    assert reading.dead_runs(ledger.url, ledger.home) == [number]  # nothing was written to know it
    assert ledger.get(number).status == "running"
    ledger.recognise_dead()
    assert ledger.get(number).status == "interrupted"
    assert list((tmp_path / "home" / locks.LOCKS).iterdir()) == []


def test_a_process_of_another_kernel_is_believed_until_its_lease_ends(opened):
    there, here = opened(), opened()
    run = there.start(NewRun(PRUNE, "f"), {}, None)
    change(here, "UPDATE owner SET boot = 'another'")
    there.lease._lock.release()  # as a lock over a network may seem
    here.recognise_dead()
    assert status(here, run) == "running"
    expire(there)
    here.recognise_dead()
    assert status(here, run) == "interrupted"


def test_a_stale_run_is_listed_as_interrupted_before_anybody_writes(jdna):
    ledger = Ledger(jdna.home)
    ledger.start(NewRun(PRUNE, "f", {"model": "m"}), {}, None)
    rows = jdna("runs", "list", "--json").json["runs"]
    assert [row["status"] for row in rows] == ["running"]
    expire(ledger)
    rows = jdna("runs", "list", "--status", "interrupted", "--json").json["runs"]
    assert [row["status"] for row in rows] == ["interrupted"]
    recorded = reading.query(ledger.url, "SELECT status FROM run").rows
    assert recorded == [("running",)]
    ledger.close()


WORKER = """
import os, random, sys
from pathlib import Path
from jdna_cli.results import Measurement, Outcome
from jdna_cli.runs import recording
from jdna_cli.runs.recording import Execution, OpenWorkspace, Request
from jdna_cli.specs import PruneSpec
from jdna_cli.store.ledger import Ledger, NewRun

recording.WAIT_SECONDS = 0.01
number, home, url, log = sys.argv[1:]
workspace = OpenWorkspace(Ledger(Path(home), url or None))


class Cell(Request):
    def __init__(self, name):
        self.workspace, self.fingerprint = workspace, name

    def prepare(self):
        def pipeline(context):
            with open(log, "a") as file:
                file.write(f"{self.fingerprint}\\n")
            context.folder.mkdir()
            return Outcome((Measurement("model", "bytes", 1.0),))

        return Execution(NewRun(PruneSpec(model="m", sparsity=0.5), self.fingerprint), pipeline)


names = [str(i) for i in range(30)]
random.Random(int(number)).shuffle(names)
assert sum(not recording.run(Cell(name)).cached for name in names) <= 30
workspace.ledger.close()
"""


@pytest.mark.slow
def test_each_cell_is_run_exactly_once_whoever_asks(tmp_path, server):
    """3 workers that all want the same 30 cells, each in its own order."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(i), tmp_path / "home", server or "", log], stderr=-1)
        for i in range(3)
    ]
    told = [worker.communicate(timeout=240)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3, b"".join(told).decode()[-3000:]
    assert sorted(log.read_text().split()) == sorted(str(i) for i in range(30))
    there = server or f"sqlite:///{tmp_path}/home/jdna.db"
    rows = reading.query(there, "SELECT status, COUNT(*) FROM run GROUP BY status").rows
    assert rows == [("finished", 30)]


def test_a_doubled_metric_cannot_be(opened):
    ledger = opened()
    run = ledger.start(NewRun(PRUNE, "f"), {}, None)
    twice = Outcome((Measurement("s", "loss", 1.0), Measurement("s", "loss", 2.0)))
    with pytest.raises(sa.exc.IntegrityError):
        ledger.finish(run, twice)
    assert status(ledger, run) == "running"


def test_two_shells_that_ask_the_same_get_one_run(jdna, tiny):
    """One works; the other waits, says for whom, and has its result."""
    command = [sys.executable, "-m", "jdna_cli", "finetune", str(tiny("bert")), "--task", "living",
               "--epochs", "1", "--max-train-samples", "64", "--json"]  # fmt: skip
    environment = {**os.environ, "JDNA_HOME": str(jdna.home)}
    shells = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [shell.communicate(timeout=240) for shell in shells]
    assert [shell.returncode for shell in shells] == [0, 0], told
    runs = [json.loads(out)["run"] for out, _ in told]
    assert runs[0]["id"] == runs[1]["id"]
    assert sorted(run["cached"] for run in runs) == [False, True]
    assert len(jdna("runs", "list", "--json").json["runs"]) == 1


def test_a_home_belongs_to_one_database(jdna, tiny, tmp_path):
    jdna("prune", tiny("bert"), "--sparsity", 0.5)
    written = (jdna.home / "1" / "model.safetensors").read_bytes()
    other = f"sqlite:///{tmp_path}/other.db"
    told = jdna("prune", tiny("bert"), "--sparsity", 0.4, "--db", other, code=2).err
    assert "has the runs of another database" in told
    assert (jdna.home / "1" / "model.safetensors").read_bytes() == written
    # A copy of both goes on.
    copied = shutil.copytree(jdna.home, tmp_path / "copied")
    assert jdna("prune", tiny("bert"), "--sparsity", 0.5, "--home", copied, "--json").json["run"][
        "cached"
    ]


def test_who_waits_is_let_go_when_the_owner_dies(opened, monkeypatch):
    """A claim whose owner died is free again."""
    owner, other = opened(), opened()
    owner.start(NewRun(PRUNE, "f"), {}, None)
    freed = threading.Timer(0.2, expire, [owner])
    freed.start()
    deadline = time.monotonic() + 30
    while other.running_twin("f") is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    freed.join()
    assert other.start(NewRun(PRUNE, "f"), {}, None).owner == other.lease.token
