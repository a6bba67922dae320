"""From an experiment to its cells: what each is, and which must be there before it.

A cell that needs another one's model names it as `cell:KEY`; whoever runs it puts `run:ID` there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jdna_cli.amounts import percent
from jdna_cli.errors import RequestError
from jdna_cli.specs import (
    PRUNING_FIELDS,
    EvalSpec,
    FinetuneSpec,
    InterpolateSpec,
    PruneSpec,
    Spec,
    build,
)
from jdna_cli.sweeps.experiment import DENSE, Experiment, Table

# The teacher stays where nothing is pruned: a dense model may be taught too.
_TAKING = PRUNING_FIELDS - {"teacher", "distill_weight", "temperature"} | {"calibration"}
_ORDER = {"prune": 0, "finetune": 1, "eval": 2, "interpolate": 3}


@dataclass(frozen=True)
class Cell:
    """One request, and the cells whose models it takes."""

    kind: str
    values: Table = field(hash=False)
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the cell: of equal requests the same."""
        text = json.dumps([self.kind, self.values], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        v = self.values
        parts = [self.kind, str(v.get("task") or "").strip()]
        if (sparsity := v.get("sparsity")) is not None:
            parts.append(percent(sparsity) if isinstance(sparsity, float) else str(sparsity)[:20])
        parts += [str(v[name]) for name in ("pattern", "regime", "criterion") if v.get(name)]
        parts += [f"{v['quantize']} bits"] if v.get("quantize") else []
        if not taken(v) and self.kind == "finetune":
            parts.append("dense")
        for name in ("data_fraction", "options", "shots", "book", "context_words", "pairs"):
            if v.get(name) is not None:
                parts.append(f"{name.replace('_', ' ')} {v[name]}")
        parts += [f"seed {v['seed']}"] if "seed" in v else []
        return " · ".join(part for part in parts if part)


def taken(values: Mapping[str, Any]) -> bool:
    """Whether a request takes weights, or bits of them, away."""
    return any(values.get(name) is not None for name in ("sparsity", "pattern", "quantize"))


def of(experiment: Experiment) -> list[Cell]:
    """All cells, shared ones once and first.

    Raises:
        RequestError: a cell's settings contradict each other; names the cell.
    """
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> str:
        _check(cell)
        found.setdefault(cell.key, cell)
        return cell.key

    for point in experiment.points:
        for seed in experiment.seeds:
            _of_point(experiment, {**point, "seed": seed}, add)
    return sorted(found.values(), key=lambda c: (_ORDER[c.kind], len(c.needs)))


def _of_point(experiment: Experiment, point: Table, add: Any) -> None:
    """The cells of one combination of the axes and one seed."""
    plain = {k: v for k, v in point.items() if k not in _TAKING or k == "regime"}
    base = None
    if experiment.dense:
        base = _measured(experiment, {k: v for k, v in plain.items() if k != "teacher"}, None, add)
        if plain.get("teacher"):
            _measured(experiment, plain, base, add)
        _afterwards(experiment, plain, base, None, add)
    for amount in experiment.amounts:
        values = {**point, **amount}
        if not taken(values):
            values = {k: v for k, v in values.items() if k not in _TAKING or k == "regime"}
        key = _measured(experiment, values, base, add)
        _afterwards(experiment, values, key, base, add)


def _measured(experiment: Experiment, values: Table, base: str | None, add: Any) -> str:
    """The cell that trains or measures, after the one that prunes for it."""
    values, needs = dict(values), []
    if values.get("teacher") == DENSE:
        if base is None:
            raise RequestError('teacher = "dense" needs the dense cells: leave dense = true')
        values["teacher"] = f"cell:{base}"
        needs.append(base)
    if taken(values) and values.get("schedule", "one-shot") == "one-shot":
        shared = PruneSpec.model_fields
        needs.append(add(Cell("prune", {k: v for k, v in values.items() if k in shared})))
    if experiment.command == "eval":
        own = EvalSpec.model_fields
        if taken(values):
            values = {**values, "model": f"cell:{needs[-1]}"}
        values = {k: v for k, v in values.items() if k in own}
    return str(add(Cell(experiment.command, values, tuple(needs))))


def _afterwards(
    experiment: Experiment, values: Table, key: str, base: str | None, add: Any
) -> None:
    """What is done with a measured cell."""
    for table in experiment.afterwards:
        own = {k: v for k, v in table.items() if k != "command"} | {"task": values["task"]}
        if table["command"] == "eval":
            add(Cell("eval", {**own, "model": f"cell:{key}"}, (key,)))
        elif base is not None and base != key:
            ends = {"model": f"cell:{base}", "other": f"cell:{key}"}
            add(Cell("interpolate", {**own, **ends}, (base, key)))


_SPECS: dict[str, type[Spec]] = {
    "prune": PruneSpec,
    "finetune": FinetuneSpec,
    "eval": EvalSpec,
    "interpolate": InterpolateSpec,
}


def _check(cell: Cell) -> None:
    values = dict(cell.values)
    if values.get("mixed_precision") == "auto":
        values["mixed_precision"] = "no"
    if cell.kind in ("eval", "interpolate"):
        values.setdefault("split", "validation")
    try:
        build(_SPECS[cell.kind], values)
    except RequestError as error:
        raise RequestError(f"cell {cell.title!r}: {error}") from None


def resolved(cell: Cell, runs: Mapping[str, int]) -> Table:
    """A cell's values with `run:ID` where it names other cells."""

    def one(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("cell:"):
            return f"run:{runs[value.removeprefix('cell:')]}"
        return value

    return {name: one(value) for name, value in cell.values.items()}


def dependants(cells: Iterable[Cell]) -> dict[str, set[str]]:
    """For each cell that others need, the keys of those others."""
    dependants: dict[str, set[str]] = {}
    for cell in cells:
        for key in cell.needs:
            dependants.setdefault(key, set()).add(cell.key)
    return dependants
