"""From what was asked of a line between two models to its spec, its models, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.runs import conditions, rules
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import (
    Execution,
    OpenWorkspace,
    RecordedRun,
    Request,
    run,
)
from jdna_cli.specs import InterpolateSpec
from jdna_cli.store.ledger import NewRun
from jdna_cli.tasks import datasets
from jdna_cli.tasks.lookup import get
from jdna_cli.tasks.task import Task


@dataclass(frozen=True)
class InterpolateRequest(Request):
    """The line between two models that were found."""

    workspace: OpenWorkspace
    spec: InterpolateSpec
    task: Task
    first: Located
    second: Located
    data: str  # the examples, by content
    rule: int
    fingerprint: str

    def check(self) -> None:
        """Check both models, and that there is a line between them."""
        from jdna_cli.pipelines import checks

        checks.check_measuring(self.spec, self.task, self.first.source, self.second.source)

    def prepare(self) -> Execution:
        """The measurements along the line."""
        from jdna_cli.pipelines import interpolate

        spec, task = self.spec, self.task
        first, second = self.first.source, self.second.source
        columns = {
            "model": self.first.columns["model"],
            "model_identity": self.first.columns["model_identity"],
            "data_identity": self.data,
            "rule": self.rule,
            **conditions.task_columns(task, spec, spec.split, self.workspace.data_dir),
            **conditions.columns(spec, task),
        }
        return Execution(
            NewRun(spec, self.fingerprint, columns, self.first.number, self.second.number),
            lambda context: interpolate.interpolate(spec, task, first, second, context),
        )


def resolve(workspace: OpenWorkspace, values: Mapping[str, Any]) -> InterpolateRequest:
    """The request by content: of what was asked, its two models, and its examples.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    task = get(values["task"])
    first, second = locate(workspace, values["model"]), locate(workspace, values["other"])
    spec = specs.build(InterpolateSpec, conditions.as_trained(dict(values), task, first))
    for end in (first, second):
        if end.run is not None and end.run.task not in (None, task.name):
            raise RequestError(
                f"{end.source.name} was fine-tuned on {end.run.task!r}, not on {task.name!r}"
            )
    conditions.check(workspace.data_dir, spec, task, spec.split)
    data = datasets.identity(task, [spec.split], workspace.data_dir)
    rule = rules.of(task, first.source.folder)
    identities = {
        "model": first.source.identity,
        "other": second.source.identity,
        "data": data,
        **rules.named(rule),
    }
    fingerprint = spec.fingerprint(identities)
    return InterpolateRequest(workspace, spec, task, first, second, data, rule, fingerprint)


def interpolate(workspace: OpenWorkspace, values: Mapping[str, Any]) -> RecordedRun:
    """Measure the line between two models."""
    return run(resolve(workspace, values))
