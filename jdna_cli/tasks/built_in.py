"""The tasks that come with jdna: one file per family in `families/`, each with its `TASKS`."""

from __future__ import annotations

import functools

from jdna_cli import registry
from jdna_cli.tasks import families
from jdna_cli.tasks.task import Task


@functools.cache
def all_tasks() -> dict[str, Task]:
    """Every built-in task by name."""
    found: dict[str, Task] = {}
    for name in registry.members(families):
        for task in registry.load(families, name).TASKS:
            if task.name in found:
                raise RuntimeError(f"two tasks are called {task.name!r}")
            found[task.name] = task
    return found
