"""A sweep's cells in workers that stay alive, against the same cells as separate processes.

MiniLM on a generated task: training and measuring take some seconds, as in a small experiment.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import beside_limit, beside_peer, table
from jdna_cli.cli.demonstration import model_folder
from jdna_cli.pipelines import finetune as engine
from jdna_cli.runs import finetune
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.store.ledger import Ledger
from jdna_cli.training.loop import Training

FILE = """
title = "Overhead"
seeds = [1, 2, 3, 4]
[fixed]
model = "{model}"
task = "living"
epochs = 1
lr = 1e-4
batch_size = 32
max_train_samples = 480
max_length = 32
mixed_precision = "auto"
checkpoint_every = 0
exclude = ["*pooler*"]
[[levels]]
sparsity = [0.3, 0.5]
"""
CELLS = 14


def _jdna(*args: object) -> list[str]:
    return [sys.executable, "-m", "jdna_cli", *map(str, args)]


def swept(file: Path, home: Path, workers: int) -> float:
    began = time.perf_counter()
    subprocess.run(
        _jdna("sweep", file, "--home", home, "--workers", workers), check=True, capture_output=True
    )
    return time.perf_counter() - began


def separate(file: Path, home: Path) -> float:
    """The cells one after the other, each a process with all the threads of the machine."""
    asked = subprocess.run(
        _jdna("sweep", file, "--home", home, "--commands"), check=True, capture_output=True,
        text=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(asked) == CELLS, asked
    began = time.perf_counter()
    for line in asked:
        subprocess.run(_jdna(*shlex.split(line)[1:]), check=True, capture_output=True)
    return time.perf_counter() - began


def share(model: Path, home: Path) -> tuple[float, float]:
    """Seconds of a warm cell, and those that are neither training nor measuring."""
    spent = 0.0
    real = Training.run

    def timed(self: Training, *args: Any) -> Any:
        nonlocal spent
        began = time.perf_counter()
        found = real(self, *args)
        spent += time.perf_counter() - began
        return found

    ledger = Ledger(home)
    workspace = OpenWorkspace(
        ledger, keeps_model=False
    )  # as a sweep asks where no other cell needs it
    asked: dict[str, Any] = {
        "model": str(model), "task": "living", "epochs": 1, "lr": 1e-4, "batch_size": 32,
        "max_train_samples": 480, "max_length": 32, "mixed_precision": "auto",
        "checkpoint_every": 0, "exclude": ("*pooler*",), "sparsity": 0.5,
    }  # fmt: skip
    finetune.finetune(workspace, {**asked, "seed": 1})
    engine.Training.run = timed  # type: ignore[method-assign]
    began = time.perf_counter()
    for seed in (2, 3, 4):
        finetune.finetune(workspace, {**asked, "seed": seed})
    total = time.perf_counter() - began
    engine.Training.run = real  # type: ignore[method-assign]
    ledger.close()
    return total / 3, (total - spent) / 3


def report() -> str:
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        top.joinpath("home").mkdir()
        model = model_folder(top / "home")
        file = top / "overhead.toml"
        file.write_text(FILE.format(model=model))
        times = {
            "separate processes, one after the other": separate(file, top / "separate"),
            "sweep, 1 worker": swept(file, top / "one", 1),
            f"sweep, {os.cpu_count()} workers": swept(file, top / "two", os.cpu_count() or 1),
        }
        again = swept(file, top / "two", 2)
        cell, besides = share(model, top / "share")
    base, one, two = times.values()
    beside_peer("cells of a sweep, 1 worker", "a process each", base / one)
    beside_peer(f"cells of a sweep, {os.cpu_count()} workers", "a process each", base / two)
    beside_limit("a warm cell", "training and measuring", cell / (cell - besides), 1 / 0.92)
    rows = [
        [name, f"{seconds:.1f}", f"{seconds / CELLS:.2f}", f"{base / seconds:.2f}"]
        for name, seconds in times.items()
    ]
    rows.append(["the same sweep again", f"{again:.1f}", "", ""])
    first = table(
        f"A sweep of {CELLS} cells (2 prunings, 12 fine-tunings of MiniLM)",
        ["way", "s", "s per cell", "times as fast"], rows,
    )  # fmt: skip
    second = (
        f"A warm cell takes {cell:.2f} s, of which {besides:.2f} s ({besides / cell:.0%}) are "
        "neither training nor measuring.\n"
    )
    return f"{first}\n{second}"
