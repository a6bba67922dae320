"""A task by its name, or by the TOML file that describes it."""

from __future__ import annotations

from pathlib import Path

from jdna_cli import registry
from jdna_cli.tasks.built_in import all_tasks
from jdna_cli.tasks.task import Task


def get(name: str) -> Task:
    """The task called `name`, or the one that a TOML file of this name describes.

    Raises:
        RequestError: there is none of that name, or the file is wrong.
    """
    if name.endswith(".toml"):
        from jdna_cli.tasks import user_tasks

        return user_tasks.read(Path(name))
    return all_tasks()[registry.check("task", name, all_tasks())]
