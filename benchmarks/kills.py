"""Commands that are killed at random times, on SQLite and PostgreSQL: what was lost.

JDNA_BENCH_KILLS says how many on each. At the end every request is carried out, and its weights are
compared with those of a home in which nothing was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import server
from benchmarks.measuring import table
from jdna_cli.models import tiny_models
from jdna_cli.store import reading

KILLS = int(os.environ.get("JDNA_BENCH_KILLS", "100"))
LONGEST = 9.0  # seconds after which the last are killed

_TRIAL = """
title = "kills"
seeds = [1, 2]
[fixed]
model = "{model}"
task = "living"
epochs = 2
lr = 1e-3
max_train_samples = 96
max_length = 32
checkpoint_every = 3
[[levels]]
sparsity = [0.3, 0.6]
"""


def _jdna(place: list[str], *args: str) -> list[str]:
    return [sys.executable, "-m", "jdna_cli", *args, *place]


def _requests(model: str) -> list[list[str]]:
    """What is asked again and again; each has one result."""
    recipe = ["--task", "living", "--epochs", "2", "--lr", "1e-3", "--max-train-samples", "96",
              "--max-length", "32", "--checkpoint-every", "3", "--resume"]  # fmt: skip
    return [
        *(["prune", model, "--sparsity", s] for s in ("0.2", "0.4")),
        *(["finetune", model, *recipe, "--seed", seed] for seed in ("5", "6")),
        ["finetune", model, *recipe, "--sparsity", "0.5"],
    ]


def _weights(home: Path, url: str) -> dict[str, str]:
    """Hashes of the models of finished runs, by fingerprint."""
    sql = "SELECT id, fingerprint FROM run WHERE status = 'finished' AND kind <> 'eval'"
    found: dict[str, str] = {}
    for number, fingerprint in reading.query(url, sql).rows:
        file = home / str(number) / "model.safetensors"
        if file.is_file():
            own = hashlib.sha256(file.read_bytes()).hexdigest()
            assert found.setdefault(fingerprint, own) == own, f"run {number} is another result"
    return found


def _killed(url: str | None, top: Path, model: str, trial: Path, seed: int) -> list[str]:
    home, draw = top / "home", random.Random(seed)
    place = ["--home", str(home), *(["--db", url] if url else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    commands = [*_requests(model), ["sweep", str(trial), "--workers", "1"], ["runs", "gc"],
                ["db", "upgrade"]]  # fmt: skip
    dead = 0
    while dead < KILLS:
        command = draw.choice(commands)
        force = ["--force"] if command[0] == "prune" and draw.random() < 0.5 else []
        process = subprocess.Popen(_jdna(place, *command, *force), start_new_session=True, **quiet)  # type: ignore[call-overload]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.3, LONGEST if command[0] != "runs" else 1.5))
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        dead += 1
    for command in commands:
        subprocess.run(_jdna(place, *command), check=True, **quiet)  # type: ignore[call-overload]
    subprocess.run(_jdna(place, "runs", "verify"), check=True, **quiet)  # type: ignore[call-overload]
    there = url or f"sqlite:///{home}/jdna.db"
    if url is None:
        with contextlib.closing(sqlite3.connect(home / "jdna.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    whole = top / "whole"
    own = ["--home", str(whole)]
    for command in commands[:-2]:
        subprocess.run(_jdna(own, *command), check=True, **quiet)  # type: ignore[call-overload]
    expected = _weights(whole, f"sqlite:///{whole}/jdna.db")
    found = _weights(home, there)
    other = sum(found.get(name) != weights for name, weights in expected.items())
    states = dict(reading.query(there, "SELECT status, COUNT(*) FROM run GROUP BY status").rows)
    doubled = (
        "SELECT COUNT(*) FROM (SELECT fingerprint FROM run WHERE status = 'finished' AND "
        "kind = 'finetune' GROUP BY fingerprint HAVING COUNT(*) > 1) AS twice"
    )
    subprocess.run(_jdna(place, "runs", "gc"), check=True, **quiet)  # type: ignore[call-overload]
    numbers = {str(i) for (i,) in reading.query(
        there, "SELECT id FROM run WHERE status = 'finished'").rows}  # fmt: skip
    stray = [p.name for p in home.iterdir() if p.is_dir() and p.name not in numbers]
    left = sorted(set(stray) - {".owners", ".tokens", ".slurm", "models"})
    return [
        "PostgreSQL" if url else "SQLite", str(dead), str(states.get("finished", 0)),
        str(states.get("running", 0)), str(reading.query(there, doubled).rows[0][0]),
        f"{other} of {len(expected)}", ", ".join(left) or "nothing",
    ]  # fmt: skip


def report() -> str:
    """One row per kind of database."""
    began = time.monotonic()
    rows = []
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = top / "tiny"
        tiny_models.make("tiny-encoder-32", model)
        trial = top / "trial.toml"
        trial.write_text(_TRIAL.format(model=model))
        urls: list[str | None] = [None]
        if server.programs() is not None:
            urls.append(stack.enter_context(server.started(safe=True))())
        for i, url in enumerate(urls):
            (top / str(i)).mkdir()
            rows.append(_killed(url, top / str(i), str(model), trial, seed=i))
            shutil.rmtree(top / str(i))
    columns = ("database", "kills", "finished runs", "left running", "fine-tuned twice",
               "other weights", "left over after gc")  # fmt: skip
    text = table("Killed at random times", columns, rows)
    return f"{text}\n\nAfter each row's kills every request was carried out to its end, all files "\
           f"verified, and compared with a home in which nothing was killed; "\
           f"{time.monotonic() - began:.0f} s in all.\n"  # fmt: skip
