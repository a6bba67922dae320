"""Tasks: what is asked of a model, and how its answers are scored.

One file per family in `families/`; a task is one `Task` in its family's `TASKS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jdna_cli import registry
from jdna_cli.difficulty import HumanScore
from jdna_cli.errors import RequestError
from jdna_cli.tasks import families

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HubSource:
    """A data set of the model hub: repository, configuration, and the revision it is pinned to."""

    path: str
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class GeneratedSource:
    """A data set made on the spot. `version` changes whenever a row does."""

    rows: Callable[[str], list[Row]]
    version: str


@dataclass(frozen=True)
class Task:
    """One task. Scores are fractions; the first of `metrics` is the main one."""

    name: str
    description: str
    kind: Literal["classification", "regression"]
    texts: tuple[str, ...]
    metrics: tuple[str, ...]
    chance: float
    human: HumanScore | None
    source: HubSource | GeneratedSource
    labels: tuple[str, ...] = ()
    label: str = "label"
    evaluation_splits: tuple[str, ...] = ("validation",)
    splits: tuple[str, ...] = ("train", "validation", "test")

    @property
    def metric(self) -> str:
        """Name of the main metric, by which runs are compared."""
        return self.metrics[0]

    @property
    def outputs(self) -> int:
        """Number of outputs of the task's head: one per label, or one number."""
        return len(self.labels) or 1


@functools.cache
def all_tasks() -> dict[str, Task]:
    """Every known task by name."""
    found: dict[str, Task] = {}
    for name in registry.members(families):
        for task in registry.load(families, name).TASKS:
            if task.name in found:
                raise RuntimeError(f"two tasks are called {task.name!r}")
            found[task.name] = task
    return found


def get(name: str) -> Task:
    """The task called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    return all_tasks()[registry.check("task", name, all_tasks())]


def check_split(task: Task, split: str) -> str:
    """Return `split` if the task has it.

    Raises:
        RequestError: it has not; the message names those it has.
    """
    if split in task.splits:
        return split
    raise RequestError(
        f"task {task.name!r} has no split {split!r}: it has {', '.join(task.splits)}"
    )
