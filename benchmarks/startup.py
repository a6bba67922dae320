"""How soon a command answers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import seconds, table
from jdna_cli.cli.demonstration import model_folder
from jdna_cli.store.ledger import Ledger


def report() -> str:
    with tempfile.TemporaryDirectory() as home:
        Ledger(Path(home)).close()

        def run(*args: str) -> None:
            command = [sys.executable, "-m", "jdna_cli", *args]
            subprocess.run(command, check=False, capture_output=True)

        def prune(flag: str) -> None:
            run("prune", str(model_folder(Path(home))), "--sparsity", "0.5", "--home", home, flag)

        limit = seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
        found = {
            "Python itself": limit,
            "`import torch`": seconds(
                lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True), 3
            ),
            "`jdna --help`": seconds(lambda: run("--help")),
            "`jdna report`": seconds(lambda: run("report", "--home", home)),
            "`jdna runs list`": seconds(lambda: run("runs", "list", "--home", home)),
            "`jdna prune MiniLM --dry-run`": seconds(lambda: prune("--dry-run"), 3),
            "`jdna prune MiniLM`": seconds(lambda: prune("--force"), 3),
        }
    return table("Starting", ["", "s"], [[name, f"{time:.2f}"] for name, time in found.items()])
