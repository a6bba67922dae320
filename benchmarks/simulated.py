"""Databases made for the purpose: runs with scores that nobody measured."""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jdna_cli.store.ledger import Ledger

WHEN = "2026-01-01 00:00:00.000000"
BASE = {
    "kind": "finetune", "status": "finished", "model": "simulated", "metric": "accuracy",
    "human": 1.0, "chance": 0.5, "regime": "sparse", "criterion": "magnitude",
    "pattern": "unstructured", "scope": "global", "bits": 32, "data_fraction": 1.0, "seed": 1,
    "started_at": WHEN, "finished_at": WHEN, "versions": "{}", "device": "none",
}  # fmt: skip


def dense(**cell: Any) -> dict[str, Any]:
    """A dense run's columns."""
    return {**cell, "regime": "dense", "criterion": None, "pattern": None, "scope": None,
            "sparsity": 0.0}  # fmt: skip


def record(home: Path, cells: Iterable[Mapping[str, Any]]) -> Path:
    """Record each cell as a finished run with its `score` on the validation split.

    `settings` of a cell are what else its request said.
    """
    Ledger(home).close()
    rows, metrics = [], []
    connection = sqlite3.connect(home / "jdna.db")
    (first,) = connection.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM run").fetchone()
    for number, cell in zip(itertools.count(first), cells, strict=False):
        row = {**BASE, **cell}
        score, loss = row.pop("score"), row.pop("loss", 1.0)
        row["recipe"] = row.get("recipe") or f"{row['model']}/{row['task']}/{row['data_fraction']}"
        asked = ("model", "task", "sparsity", "regime", "data_fraction", "options", "seed")
        row["spec"] = json.dumps({name: row.get(name) for name in asked} | row.pop("settings", {}))
        row |= {"id": number, "fingerprint": f"f{number}", "artifact": str(number)}
        rows.append(row)
        metrics += [
            (number, "validation", row["metric"], score),
            (number, "validation", "loss", loss),
        ]
    names = sorted({name for row in rows for name in row})
    marks = ", ".join("?" * len(names))
    with connection:
        connection.executemany(
            f"INSERT INTO run ({', '.join(names)}) VALUES ({marks})",  # noqa: S608
            [[row.get(name) for name in names] for row in rows],
        )
        connection.executemany(
            "INSERT INTO metric (run, split, name, value) VALUES (?, ?, ?, ?)", metrics
        )
    connection.close()
    return home


def many(models: int, tasks: int, levels: int, seeds: int) -> Iterable[dict[str, Any]]:
    """A database of models × tasks × (1 + 2 · levels) × seeds runs."""
    for m, t, seed in itertools.product(range(models), range(tasks), range(seeds)):
        own = {"model": f"model-{m}", "task": f"task-{t}", "seed": seed}
        top = 0.95 - 0.02 * t
        yield dense(**own, score=top + 0.001 * seed)
        for regime, i in itertools.product(("sparse", "dense-frozen"), range(1, levels + 1)):
            lost = 0.01 * i * (1 + t) / tasks
            yield {**own, "regime": regime, "sparsity": i / (levels + 1),
                   "score": top - lost + 0.001 * ((seed * 7 + i) % 5)}  # fmt: skip
