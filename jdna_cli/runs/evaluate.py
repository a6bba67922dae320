"""From what was asked of a measurement to its spec, its model, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdna_cli import specs
from jdna_cli.results import Need
from jdna_cli.runs import conditions, precision, rules
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import (
    Execution,
    OpenWorkspace,
    RecordedRun,
    Request,
    run,
)
from jdna_cli.specs import EvalSpec
from jdna_cli.store.ledger import NewRun
from jdna_cli.store.tables import Run
from jdna_cli.tasks import datasets
from jdna_cli.tasks.lookup import get
from jdna_cli.tasks.task import Task

# What an evaluation takes over from the fine-tuning of its model.
_OF_ITS_OWN = ("shots", "chat", "limit", "stride", "dtype", "kernels", "label_order")


@dataclass(frozen=True)
class EvalRequest(Request):
    """A measurement of a model that was found."""

    workspace: OpenWorkspace
    spec: EvalSpec
    task: Task
    located: Located
    data: str  # the examples, by content
    rule: int
    fingerprint: str

    def is_answered_by(self, run: Run) -> bool:
        """Whether its time was measured, where that is wanted."""
        assert run.id is not None
        measured = {m.name for m in self.workspace.ledger.outcome(run.id).measurements}
        return not self.spec.time or "latency_ms" in measured

    def check(self) -> None:
        """Check the model, its tokenizer, and its kernels."""
        from jdna_cli.pipelines import checks
        from jdna_cli.scoring import timing

        source = self.located.source
        checks.check_measuring(self.spec, self.task, source)
        timing.check_kernels(self.spec, source, self.located.columns.get("pattern"))

    def prepare(self) -> Execution:
        """The measurement."""
        from jdna_cli.pipelines import evaluate

        spec, task, located = self.spec, self.task, self.located
        trained = located.trained is not None
        columns = {
            **located.columns,
            **conditions.task_columns(task, spec, spec.split, self.workspace.data_dir),
            **conditions.columns(spec, task),
            # A model that was not fine-tuned has no seed of its own: its draws have one.
            "seed": located.columns["seed"] if trained else spec.seed,
            "data_identity": self.data,
            "recipe": _eval_recipe(self.workspace, spec, task, located, self.data, self.rule),
            "rule": self.rule,
        }
        return Execution(
            NewRun(spec, self.fingerprint, columns, located.number),
            lambda context: evaluate.evaluate(spec, task, located.source, context, trained=trained),
        )


def resolve(workspace: OpenWorkspace, values: Mapping[str, Any]) -> EvalRequest:
    """The request by content: of what was asked, its model, and its examples.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    task = get(values["task"])
    located = locate(workspace, values["model"])
    asked = precision.dtype_settled(
        conditions.as_trained(dict(values), task, located), located.source
    )
    spec = specs.build(EvalSpec, asked)
    conditions.check(workspace.data_dir, spec, task, spec.split)
    spec = conditions.without_idle_limit(spec, task, workspace.data_dir)
    splits = [spec.split, *(["train"] if spec.shots else [])]
    data = datasets.identity(task, splits, workspace.data_dir)
    rule = rules.of(task, located.source.folder, chat=spec.chat)
    identities = {"model": located.source.identity, "data": data, **rules.named(rule)}
    fingerprint = spec.fingerprint(identities)
    return EvalRequest(workspace, spec, task, located, data, rule, fingerprint)


def evaluate(workspace: OpenWorkspace, values: Mapping[str, Any]) -> RecordedRun:
    """Measure a model on one split of a task."""
    return run(resolve(workspace, values))


def memory(workspace: OpenWorkspace, values: Mapping[str, Any]) -> list[Need]:
    """What memory a measurement would take, after all its checks; nothing is recorded.

    Raises:
        RequestError: the request is wrong.
    """
    from jdna_cli.pipelines import memory

    request = resolve(workspace, values)
    request.check()
    return memory.of_measuring(request.spec, request.located.source)


def _eval_recipe(
    workspace: OpenWorkspace, spec: EvalSpec, task: Task, located: Located, data: str, rule: int
) -> str:
    """The fine-tuning's own recipe where the evaluation repeats its measurement, else a new one."""
    trained, own = located.trained, frozenset({"seed"})
    if trained is not None and trained.task == task.name:
        plain = EvalSpec.model_fields
        same = all(trained.spec.get(name, plain[name].default) == getattr(spec, name)
                   for name in conditions.TAKEN_OVER)  # fmt: skip
        same &= all(getattr(spec, name) == plain[name].default for name in _OF_ITS_OWN)
        splits = ("train", *task.evaluation_splits)
        seen = spec.split in task.evaluation_splits and trained.data_identity == datasets.identity(
            task, splits, workspace.data_dir
        )
        if same and seen and trained.recipe and (trained.rule or 1) == rule:
            return trained.recipe
        # Draws of another seed than the fine-tuning's make another cell.
        own = own if spec.seed in (0, trained.seed) else frozenset()
    return specs.digest(
        {
            "kind": "eval",
            "model": located.recipe,
            "data": data,
            "spec": spec.determining(own | {"kernels"}),
            **rules.named(rule),
        }
    )
