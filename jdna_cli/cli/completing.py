"""What a shell may complete: tasks, runs, reports, experiments, criteria. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from jdna_cli.amounts import weights

Found = list[tuple[str, str]]  # value, and what it is
MOST = 50  # runs, the latest


def _beginning(incomplete: str, values: Iterable[tuple[str, str]]) -> Found:
    return [(value, told) for value, told in values if value.startswith(incomplete)]


def tasks(incomplete: str) -> Found:
    """Names of tasks."""
    from jdna_cli.tasks.built_in import all_tasks

    return _beginning(incomplete, ((t.name, t.description) for t in all_tasks().values()))


def reports(incomplete: str) -> Found:
    """Names of reports."""
    from jdna_cli import reports as catalogue

    return _beginning(incomplete, ((name, "") for name in [*catalogue.names(), "list"]))


def experiments(incomplete: str) -> Found:
    """Names of experiments."""
    from jdna_cli.sweeps import experiment

    found = ((name, experiment.find(name).title) for name in experiment.names())
    return _beginning(incomplete, found)


def criteria(incomplete: str) -> Found:
    """Names of criteria."""
    from jdna_cli import registry
    from jdna_cli.sparsity import criteria as known

    return _beginning(incomplete, ((name, "") for name in registry.members(known)))


def allocations(incomplete: str) -> Found:
    """Ways of saying how much each tensor loses."""
    from jdna_cli.sparsity import allocation

    return _beginning(incomplete, ((name, "") for name in allocation.NAMES))


def regimes(incomplete: str) -> Found:
    """Names of transfer regimes."""
    from typing import get_args

    from jdna_cli.specs import Regime

    return _beginning(incomplete, ((name, "") for name in get_args(Regime)))


def models(context: typer.Context, incomplete: str) -> Found:
    """Finished runs that have a model, as run:ID."""
    runs = _runs(context, "status = 'finished' AND kind IN ('prune', 'finetune')")
    return _beginning(incomplete, ((f"run:{number}", told) for number, told in runs))


def numbers(context: typer.Context, incomplete: str) -> Found:
    """Numbers of runs."""
    return _beginning(incomplete, ((str(number), told) for number, told in _runs(context, "1 = 1")))


def _runs(context: typer.Context, condition: str) -> list[tuple[int, str]]:
    """The latest runs with what they did; none where there is no database that can be read."""
    from jdna_cli.errors import JdnaError
    from jdna_cli.reports.query import short
    from jdna_cli.store import reading, schema

    given: dict[str, Any] = context.params
    home = Path(given.get("home") or "jdna-runs")
    url = given.get("db")
    if not url and not (home / "jdna.db").is_file():
        return []
    sql = (
        "SELECT id, kind, model, task, pattern, sparsity FROM run "  # noqa: S608
        f"WHERE {condition} ORDER BY id DESC LIMIT {MOST}"
    )
    try:
        rows = reading.query(url or schema.default_url(home), sql, ()).records()
    except JdnaError:
        return []
    told = []
    for row in rows:
        amount = weights(row["pattern"], row["sparsity"])
        parts = (row["kind"], short(row["model"]), row["task"], amount)
        told.append((row["id"], " ".join(str(part) for part in parts if part)))
    return told
