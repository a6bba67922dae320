"""Arithmetic word problems: the model writes the equation, and what it comes to is compared.

The numbers of a problem are named as in the data sets' own form (`equations.py`). These sets have
no copy of this form on the hub, so they are read from files alone.
"""

from __future__ import annotations

from jdna_cli.tasks.task import Task


def _problems(name: str, description: str, sizes: dict[str, int]) -> Task:
    return Task(
        name=name,
        description=description,
        kind="arithmetic",
        texts=("question",),
        answers="answer",
        equation="equation",
        prompt="{question}\nEquation:",
        metrics=("accuracy",),
        chance=0.0,
        splits=tuple(sizes),
        sizes=sizes,
    )


TASKS = (
    _problems(
        "mawps",
        "arithmetic word problems in plain words",
        {"train": 1085, "validation": 384, "test": 361},
    ),
    _problems(
        "asdiv_a",
        "arithmetic word problems, many ways of asking",
        {"train": 741, "validation": 238, "test": 238},
    ),
    _problems(
        "svamp",
        "arithmetic word problems, varied so that cues mislead",
        {"train": 3138, "validation": 1000},
    ),
)
