"""Calibration data by name: a task, or a file of text. What they are by content needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jdna_cli.tasks import datasets
from jdna_cli.tasks.lookup import get
from jdna_cli.tasks.task import Task


def is_file(name: str) -> bool:
    """Whether a calibration's name is that of a text file, not of a task."""
    return not name.endswith(".toml") and Path(name).is_file()


def split_of(task: Task) -> str:
    """The split that samples are drawn from."""
    return "train" if "train" in task.splits else task.splits[0]


def identity(name: str, data_dir: Path | None) -> str:
    """What the calibration data are, by content.

    Raises:
        RequestError: there is neither such a file nor such a task, or it has no such split.
    """
    if is_file(name):
        return f"text:{hashlib.sha256(Path(name).read_bytes()).hexdigest()}"
    task = get(name)
    return f"{task.name}:{datasets.identity(task, [split_of(task)], data_dir)}"
