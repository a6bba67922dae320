"""The conditions of a task: what is filled in where they were not set, checked, and recorded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdna_cli import specs
from jdna_cli.runs import precision
from jdna_cli.runs.model_lookup import Located
from jdna_cli.specs import EvalSpec, FinetuneSpec, Measured
from jdna_cli.tasks import conditions, datasets
from jdna_cli.tasks.task import Task, check_split

# Tokens per example where nobody says: in fine-tuning, and in measuring. A model that writes reads
# whole prompts; one that has fewer positions reads as many as it has.
_LENGTHS = {
    "classification": (128, 128),
    "regression": (128, 128),
    "multiple-choice": (128, 2048),
    "arithmetic": (128, 2048),
    "question-answering": (512, 2048),
    "translation": (128, 2048),
    "language-modelling": (512, 2048),
}
_PROMPTED = ("multiple-choice", "arithmetic", "question-answering", "translation")


def put(values: Mapping[str, Any], task: Task, *, training: bool) -> dict[str, Any]:
    """The task by its name, and what it is put under where that was not said."""
    filled_in: dict[str, Any] = {"task": task.name}
    filled_in["pairs"] = ",".join(conditions.pairs_of(task, values.get("pairs"))) or None
    if task.kind == "question-answering" and values.get("book") is None:
        filled_in["book"] = "open" if task.context else "closed"
    if values.get("max_length") is None:
        filled_in["max_length"] = _LENGTHS[task.kind][0 if training else 1]
    return filled_in


def check(data_dir: Path | None, spec: Measured, task: Task, split: str) -> None:
    """Refuse conditions that the task cannot be put under.

    Raises:
        RequestError: names the flag.
    """
    conditions.check(task, conditions.of(task, spec), split, data_dir)


def without_idle_limit(spec: EvalSpec, task: Task, data_dir: Path | None) -> EvalSpec:
    """The request without a limit that leaves no example out: it makes no other result."""
    if spec.limit is None or task.kind == "language-modelling":
        return spec
    whole = spec.model_copy(update={"limit": None})
    put = conditions.of(task, whole)
    count = len(conditions.apply(task, datasets.load(task, spec.split, data_dir), put))
    if spec.limit < count:
        return spec
    drawn = any(getattr(spec, name) for name in _DRAWN)
    return whole if drawn else whole.model_copy(update={"seed": 0})


def columns(spec: Measured, task: Task) -> dict[str, Any]:
    """The conditions as columns of a run."""
    prompted = task.kind in _PROMPTED and not isinstance(spec, FinetuneSpec)
    return {
        **{name: getattr(spec, name) for name in specs.CONDITION_FIELDS},
        "shots": getattr(spec, "shots", 0) if prompted else None,
        "mixture": len(spec.pairs.split(",")) if spec.pairs else None,
        "sample": getattr(spec, "limit", None),
    }


def task_columns(task: Task, spec: Measured, split: str, data_dir: Path | None) -> dict[str, Any]:
    """The task as columns of a run."""
    human = task.human.value if task.human else None
    chance = _chance(task, spec, split, data_dir)
    return {"task": task.name, "metric": task.metric, "human": human, "chance": chance}


def _chance(task: Task, spec: Measured, split: str, data_dir: Path | None) -> float | None:
    """What is scored without reading a text, from the examples that are measured.

    Of classes by always saying the most frequent one, of options by guessing.
    """
    if task.metric not in ("accuracy", "accuracy_norm"):
        return task.chance
    if task.kind == "classification":
        labels = datasets.load(task, split, data_dir).labels
        return max(Counter(labels).values()) / len(labels)
    if task.kind == "multiple-choice":
        put = conditions.of(task, spec)
        found = conditions.apply(task, datasets.load(task, split, data_dir), put)
        return math.fsum(1 / len(one.options) for one in found.examples) / len(found)
    return task.chance


_DRAWN = ("options", "shots", "context_words")
TAKEN_OVER = ("max_length", "mixed_precision", *specs.CONDITION_FIELDS)


def as_trained(values: dict[str, Any], task: Task, located: Located) -> dict[str, Any]:
    """Fill in what was not given: the task's first split, and the settings of the fine-tuning."""
    values["split"] = check_split(task, values.get("split") or task.evaluation_splits[0])
    run = located.trained
    trained = run.spec if run and run.task == task.name else {}
    for name in TAKEN_OVER:
        if values.get(name) is None:
            values.pop(name, None)
            if trained.get(name) is not None:
                values[name] = trained[name]
    drawn = any(values.get(name) for name in (*_DRAWN, "limit"))
    seed = values.get("seed")
    if seed is None or (not drawn and 0 <= seed <= specs.MOST_SEED):
        # A seed that nothing draws from makes no other result.
        values.pop("seed", None)
        if drawn and trained:
            values["seed"] = trained["seed"]
    return precision.settled(values) | put(values, task, training=False)
