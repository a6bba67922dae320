"""Reports of a database of 100,000 runs, without a plot, beside a bare read of the same rows."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import simulated
from benchmarks.measuring import beside_limit, seconds, table

MODELS, TASKS, LEVELS, SEEDS = 50, 20, 9, 5  # 95,000 runs, 19,000 cells, 100 comparisons
ONE = ("--model", "model-7")


def report() -> str:
    with tempfile.TemporaryDirectory() as place:
        home = simulated.record(Path(place), simulated.many(MODELS, TASKS, LEVELS, SEEDS))
        connection = sqlite3.connect(home / "jdna.db")
        (runs,) = connection.execute("SELECT COUNT(*) FROM run").fetchone()

        def read() -> None:
            connection.execute(
                "SELECT run.*, metric.value FROM run JOIN metric ON metric.run = run.id "
                "AND metric.name = run.metric AND metric.step IS NULL WHERE run.status = 'finished'"
            ).fetchall()

        def run(*args: str) -> None:
            command = [sys.executable, "-m", "jdna_cli", "report", *args, "--home", place]
            subprocess.run(command, check=False, capture_output=True)

        limit = seconds(read, 3)
        rows = [["a bare read of all columns", f"{limit:.2f}", ""]]
        for name in ("drop", "regimes", "architectures", "runs", "verdict", "advise"):
            whole, part = seconds(lambda: run(name), 3), seconds(lambda: run(name, *ONE), 3)  # noqa: B023
            rows.append([f"`jdna report {name}`", f"{whole:.2f}", f"{part:.2f}"])
            beside_limit(f"report {name} of {runs:,} runs", "a bare read", whole / limit)
        view = seconds(lambda: connection.execute("SELECT * FROM performance_drop").fetchall(), 1)
        rows.append(["the view `performance_drop`, all of it", f"{view:.2f}", ""])
        connection.close()
    columns = ["", "all runs, s", f"one model of {MODELS}, s"]
    return table(f"Reports of {runs:,} runs, start-up included", columns, rows)
