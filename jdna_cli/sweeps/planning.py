"""Before a sweep starts: what the database has, and what time and room the rest will take."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.files import existing
from jdna_cli.runs.model_lookup import locate
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.specs import PRUNING_FIELDS
from jdna_cli.sweeps import run_cell
from jdna_cli.sweeps.cells import Cell, dependants, taken
from jdna_cli.tasks import datasets, lookup
from jdna_cli.tasks.task import check_split


@dataclass
class Plan:
    """The cells of a sweep and what is known of them beforehand."""

    cells: list[Cell]
    runs: dict[str, int] = field(default_factory=dict)  # by key of the cell: what the database has
    seconds: float = 0.0  # of the cells whose like has been run, one after the other
    unknown: int = 0  # cells of which nothing like has been run
    disk: int = 0  # bytes of models at the worst moment, as far as known
    unmeasured: tuple[str, ...] = ()  # models whose size is not known yet

    @property
    def waiting(self) -> list[Cell]:
        """Cells that must be run."""
        return [cell for cell in self.cells if cell.key not in self.runs]


def make(workspace: OpenWorkspace, cells: list[Cell], keep: str, workers: int) -> Plan:
    """Look every cell up; estimate time and room for those that are missing.

    Raises:
        RequestError: a cell's request is wrong, or its model or data are not to be had.
    """
    plan = Plan(cells)
    looking = replace(workspace, lookup_only=True)
    users = dependants(cells)
    # Those that need others come last, so that it is known what they need.
    for cell in cells:
        if found := run_cell.look_up(looking, cell, plan.runs, with_model=False):
            plan.runs[cell.key] = found
    # From the last to the first: a model must be there only if a missing cell takes it.
    for cell in reversed(cells):
        if cell.key not in plan.runs or not _model_is_taken(cell, users, plan):
            continue
        if run_cell.look_up(looking, cell, plan.runs, with_model=True) is None:
            del plan.runs[cell.key]
    _check(looking, plan)
    _estimate(workspace, plan, keep, users, workers)
    workspace.observer.phase("")
    return plan


def examples_measured(workspace: OpenWorkspace, cells: list[Cell]) -> dict[str, int]:
    """How many examples each task is measured on at least; of running text nothing is said.

    Raises:
        RequestError: a task, its split, or its data are not there.
    """
    counts: dict[str, int] = {}
    for cell in cells:
        if cell.kind not in ("finetune", "eval"):
            continue
        task = lookup.get(str(cell.values["task"]))
        if task.kind == "language-modelling":
            continue
        split = check_split(task, cell.values.get("split") or task.evaluation_splits[0])
        count = len(datasets.load(task, split, workspace.data_dir))
        count = min(count, cell.values.get("limit") or count)
        counts[task.name] = min(count, counts.get(task.name, count))
    return counts


# What changes nothing of whether a request can be met.
_FREE = frozenset({"seed", "sparsity"})


def _check(workspace: OpenWorkspace, plan: Plan) -> None:
    """Find what is wrong with the cells that are missing; of those alike, one.

    Raises:
        RequestError: says of which cell, and what.
    """
    by_key = {cell.key: cell for cell in plan.cells}
    checked: set[str] = set()
    for cell in plan.waiting:
        values = dict(cell.values)
        model = str(values["model"])
        pruned = by_key.get(model.removeprefix("cell:"))
        if cell.kind == "eval" and pruned is not None and pruned.kind == "prune":
            # What can be measured of the model can be measured of it pruned.
            values |= {"model": pruned.values["model"], "kernels": "dense"}
        # What another cell makes, or a run made, is checked when it is there.
        if any(str(value).startswith(("cell:", "run:")) for value in values.values()):
            continue
        free = _FREE | PRUNING_FIELDS - {"regime"} if cell.kind == "finetune" else _FREE
        told = {name: values[name] for name in sorted(values.keys() - free)}
        alike = json.dumps([cell.kind, told], default=str)
        if alike not in checked:
            checked.add(alike)
            workspace.observer.phase(f"checking {cell.title}")
            try:
                run_cell.request(workspace, cell.kind, values).check()
            except RequestError as error:
                raise RequestError(f"{cell.title}: {error}") from error


def _model_is_taken(cell: Cell, users: dict[str, set[str]], plan: Plan) -> bool:
    return any(user not in plan.runs for user in users.get(cell.key, ()))


def _estimate(
    workspace: OpenWorkspace, plan: Plan, keep: str, users: dict[str, set[str]], workers: int
) -> None:
    past = workspace.ledger.seconds()
    sizes: dict[str, int | None] = {}
    kept, largest = 0, 0
    for cell in plan.waiting:
        model = str(cell.values["model"])
        size = None
        if not model.startswith("cell:"):
            if model not in sizes:
                sizes[model] = _size(workspace, model)
            size = sizes[model]
        task = cell.values.get("task")
        names = (model, model.removeprefix("./").rstrip("/"))
        like = [past.get((cell.kind, name, task)) for name in names]
        known = next((x for x in like if x is not None), None)
        if known is None:
            plan.unknown += 1
        else:
            plan.seconds += known
        if cell.kind in ("prune", "finetune") and size is not None:
            largest = max(largest, size)
            stays = keep == "all" or (keep == "last" and not users.get(cell.key))
            # A pruned model, or one that others take, is there until they are done.
            kept += size if stays or (users.get(cell.key) and not taken(cell.values)) else 0
            kept += size if cell.kind == "prune" and keep != "all" else 0
    # Each worker holds a model that it writes, and its checkpoints.
    plan.disk = kept + workers * largest * 3
    plan.unmeasured = tuple(name for name, size in sizes.items() if size is None)


def _size(workspace: OpenWorkspace, model: str) -> int | None:
    """Bytes of a model's weights; None where it is not here yet."""
    try:
        folder = locate(workspace, model).source.folder
    except RequestError:
        return None
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def require_room(plan: Plan, home: Path) -> None:
    """Refuse a sweep whose models will not fit.

    Raises:
        RequestError: says how much is free, and how much may be needed.
    """
    import shutil

    above = existing(home)
    free = shutil.disk_usage(above).free
    if free < plan.disk:
        raise RequestError(
            f"{above} has {free / 1e9:.1f} GB free, the sweep's models may need "
            f"{plan.disk / 1e9:.1f} GB: free some, or choose --keep none"
        )


def as_json(plan: Plan) -> dict[str, Any]:
    """What `--dry-run --json` says."""
    waiting: dict[str, int] = {}
    for cell in plan.waiting:
        waiting[cell.kind] = waiting.get(cell.kind, 0) + 1
    return {
        "cells": len(plan.cells),
        "recorded": len(plan.runs),
        "waiting": waiting,
        "seconds": plan.seconds if plan.unknown < len(plan.waiting) or not plan.waiting else None,
        "cells_of_unknown_time": plan.unknown,
        "disk_bytes": plan.disk,
        "models_of_unknown_size": list(plan.unmeasured),
    }
