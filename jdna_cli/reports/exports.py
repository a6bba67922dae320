"""The selected runs as trackers take them: request, results, and training curves.

A run is named by its number and its task.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jdna_cli.reports.query import Source, nothing
from jdna_cli.results import Measurement

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.spec, run.started_at, run.finished_at
FROM run WHERE run.status = 'finished'"""
_METRICS = "SELECT split, name, value, step FROM metric WHERE run = ? ORDER BY step, id"


@dataclass(frozen=True)
class Exported:
    """One run on its way out."""

    name: str
    settings: dict[str, Any]
    measured: tuple[Measurement, ...]  # points of curves, steps rising, and results


def runs(source: Source) -> list[Exported]:
    """All selected runs that have finished.

    Raises:
        RequestError: there is none.
    """
    found = []
    for row in source.records(_RUNS, "ORDER BY run.id"):
        spec = json.loads(row["spec"]) if isinstance(row["spec"], str) else row["spec"]
        settings = {"kind": row["kind"], **{k: v for k, v in spec.items() if v not in (None, [])}}
        measured = tuple(Measurement(*r) for r in source.query(_METRICS, (row["id"],)).rows)
        found.append(Exported(f"run-{row['id']}-{row['task'] or row['kind']}", settings, measured))
    if not found:
        raise nothing(source, "no finished run to export yet")
    return found
