"""What runs wrote is checked when it is used, and what nobody needs goes."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from jdna_cli.files import network_file_system
from jdna_cli.store import reading
from jdna_cli.store.ledger import Ledger
from tests.conftest import impatience


def flip(file, at=-1):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.fixture
def pruned(jdna, tiny):
    jdna("prune", tiny("bert"), "--sparsity", 0.5)
    return jdna.home / "1"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_bit_is_not_fine_tuned(jdna, pruned, name):
    flip(pruned / name)
    for command in (("finetune", "run:1"), ("finetune", pruned)):
        told = jdna(*command, "--task", "living", code=2).err
        assert f"{name} is not what the run wrote" in told
        assert len(told.strip().splitlines()) == 1
    assert len(jdna("runs", "list", "--json").json["runs"]) == 1


def test_all_files_are_read_and_compared(jdna, pruned):
    told = jdna("runs", "verify", "--json").json
    files = reading.query(f"sqlite:///{jdna.home}/jdna.db", "SELECT name, size FROM file").rows
    assert {name for name, _ in files} == {path.name for path in pruned.iterdir()}
    assert all(size == (pruned / name).stat().st_size for name, size in files)
    assert told == {"runs": [{"run": 1, "files": len(files), "ok": True, "problems": []}],
                    "ok": True}  # fmt: skip
    # A flip that changes no time, as a disk may make one.
    weights, state = pruned / "model.safetensors", (pruned / "model.safetensors").stat()
    flip(weights)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    (pruned / "metrics.jsonl").unlink()
    told = jdna("runs", "verify", 1, "--json", code=1)
    assert told.json["runs"][0]["problems"] == [
        "metrics.jsonl is gone",
        "model.safetensors is not what was written",
    ]
    assert "1 runs have files that are not what they wrote" in told.err


def test_doctor_says_what_was_never_verified(jdna, pruned):
    def detail():
        checks = {c["name"]: c["detail"] for c in jdna("doctor", "--json").json["checks"]}
        return checks["files"]

    assert detail() == "1 of 1 finished runs never verified: jdna runs verify"
    jdna("runs", "verify")
    assert detail() == "1 finished runs, all verified"


def test_what_no_run_needs_goes_and_all_else_stays(jdna, pruned):
    home = jdna.home
    kept = {path for path in home.rglob("*") if path.is_file() and path.suffix != ".db"}
    stray = ["7", ".1.part-99", ".1.old-99", ".work-1", ".owners/dead", ".unpacked/.x.part-3"]
    for name in stray:
        path = home / name
        path.parent.mkdir(exist_ok=True)
        if "owners" in name:
            path.write_text("")
        else:
            path.mkdir()
            (path / "model.safetensors").write_bytes(bytes(1000))
        os.utime(path, (1, 1))
    planned = jdna("runs", "gc", "--dry-run", "--json").json
    assert planned["bytes"] == 5000
    assert not planned["removed"]
    assert all((home / name).exists() for name in stray)
    done = jdna("runs", "gc", "--json").json
    assert {p["path"] for p in done["paths"]} == {str(home / name) for name in stray}
    assert not any((home / name).exists() for name in stray)
    assert {path for path in home.rglob("*") if path.is_file()} >= kept
    assert jdna("runs", "gc").out == "nothing is left over\n"


def test_checkpoints_that_a_run_goes_on_from_stay(jdna, tiny, monkeypatch):
    args = ("finetune", tiny("bert"), "--task", "living", "--max-train-samples", 96, "--epochs", 2)
    with impatience(monkeypatch):
        jdna(*args, code=130)
    work = jdna.home / ".work-1"
    assert list(work.iterdir())
    assert jdna("runs", "gc").out == "nothing is left over\n"
    assert list(work.iterdir())
    # The same request came to its end otherwise: nobody goes on from there.
    jdna(*args)
    assert jdna("runs", "gc", "--json").json["bytes"] > 0
    assert not work.exists()


def test_a_removed_run_leaves_nothing(jdna, pruned):
    (jdna.home / ".work-1").mkdir()
    (jdna.home / ".1.part-5").mkdir()
    jdna("runs", "rm", 1)
    left = {path.name for path in jdna.home.iterdir()} - {"jdna.db", "jdna.db-wal", "jdna.db-shm"}
    assert left <= {".database", ".owners"}


KILLED = """
import os, signal, sys, threading, time
from jdna_cli.cli.app import app
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGKILL)).start()
app(sys.argv[2:])
"""


@pytest.mark.long
def test_after_many_kills_nothing_is_left_over_and_nothing_is_lost(jdna, tiny):
    """A pruning that is killed at ever later times; what is left when all is done is its result."""
    model = tiny("bert")
    asked = ["prune", str(model), "--sparsity", "0.5"]
    environment = {**os.environ, "JDNA_HOME": str(jdna.home)}
    whole = jdna(*asked, "--home", jdna.home.with_name("whole"), "--json").json
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "jdna_cli", "tasks", "list"], env=environment,
                   capture_output=True, check=True)  # fmt: skip
    start = time.monotonic() - began
    for i in range(8):
        delay = f"{start * (0.6 + 0.25 * i):.3f}"
        subprocess.run([sys.executable, "-c", KILLED, delay, *asked, "--force"], env=environment,
                       capture_output=True, check=False)  # fmt: skip
    jdna("runs", "gc")
    there = f"sqlite:///{jdna.home}/jdna.db"
    with contextlib.closing(sqlite3.connect(jdna.home / "jdna.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    states = dict(reading.query(there, "SELECT id, status FROM run").rows)
    assert set(states.values()) <= {"finished", "interrupted"}
    folders = {int(path.name) for path in jdna.home.iterdir() if path.name.isdigit()}
    assert folders == {number for number, state in states.items() if state == "finished"}
    jdna("runs", "verify")
    done = jdna(*asked, "--json").json
    own, same = (
        (home / str(run["run"]["id"]) / "model.safetensors").read_bytes()
        for home, run in ((jdna.home, done), (jdna.home.with_name("whole"), whole))
    )
    assert own == same
    left = {path.name for path in jdna.home.iterdir() if path.name.startswith(".")}
    assert left <= {".database", ".owners"}
    shutil.rmtree(jdna.home.with_name("whole"))


def test_a_dead_predecessor_is_cleaned_up_by_who_takes_its_run_up(jdna, tiny, monkeypatch):
    args = ("finetune", tiny("bert"), "--task", "living", "--max-train-samples", 96, "--epochs", 2)
    with impatience(monkeypatch):
        jdna(*args, code=130)
    (jdna.home / ".1.part-99999").mkdir()
    (jdna.home / ".1.part-99999" / "model.safetensors").write_bytes(bytes(1000))
    (jdna.home / "1").mkdir()
    (jdna.home / "1" / "half").write_text("of a result that was never recorded")
    found = jdna(*args, "--resume", "--json").json
    assert found["run"]["id"] == 1
    assert not (jdna.home / "1" / "half").exists()
    assert not (jdna.home / ".1.part-99999").exists()
    Ledger(jdna.home).close()


MOUNTS = "/dev/vda / ext4 rw 0 0\nserver:/export {at} nfs4 rw 0 0\nproc /proc proc rw 0 0\n"


def test_a_network_file_system_is_known(tmp_path):
    mounts = tmp_path / "mounts"
    (tmp_path / "far away").mkdir()
    mounts.write_text(MOUNTS.format(at=str(tmp_path / "far away").replace(" ", "\\040")))
    assert network_file_system(tmp_path / "far away" / "home" / "deep", mounts) == "nfs4"
    assert network_file_system(tmp_path / "near", mounts) is None
    assert network_file_system(tmp_path, tmp_path / "none") is None
