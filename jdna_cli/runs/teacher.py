"""The teacher of a fine-tuning: found, and recorded."""

from __future__ import annotations

from jdna_cli.errors import RequestError
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.specs import FinetuneSpec
from jdna_cli.tasks.task import Task


def teacher_of(workspace: OpenWorkspace, spec: FinetuneSpec, task: Task) -> Located | None:
    """The model whose outputs are to be learnt, if there is one.

    Raises:
        RequestError: there is none of that name, or it was fine-tuned on another task.
    """
    if spec.teacher is None:
        return None
    teacher = locate(workspace, spec.teacher)
    if teacher.run is not None and teacher.run.task not in (None, task.name):
        raise RequestError(
            f"--teacher: {spec.teacher} was fine-tuned on {teacher.run.task!r}, "
            f"not on {task.name!r}"
        )
    return teacher


def teacher_column(spec: FinetuneSpec, teacher: Located | None) -> str | None:
    """The teacher as it is recorded: its model and what was taken from it, weight, temperature."""
    if teacher is None:
        return None
    name = str(teacher.columns["model"])
    regime, sparsity = teacher.columns.get("regime"), teacher.columns.get("sparsity")
    kind = regime if not sparsity else f"{regime} {sparsity:.0%}"
    return f"{name} ({kind}), weight {spec.distill_weight:g}, temperature {spec.temperature:g}"
