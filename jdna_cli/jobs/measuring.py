"""From what was asked of a measurement (eval, interpolate) to its spec, models, and record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.jobs import precision, rules, task_conditions
from jdna_cli.jobs.locating import Located, locate
from jdna_cli.jobs.running import Desk, Done, answer, perform
from jdna_cli.specs import EvalSpec, HarnessSpec, InterpolateSpec
from jdna_cli.store.ledger import NewRun
from jdna_cli.store.tables import Run
from jdna_cli.tasks import Task, check_split, get, records

# What an evaluation takes over from the fine-tuning of its model.
_OF_ITS_OWN = ("shots", "chat", "stride", "dtype", "kernels", "label_order")
_TAKEN_OVER = ("max_length", "mixed_precision", *specs.CONDITION_FIELDS)


def evaluate(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Measure a model on one split of a task."""
    task = get(values["task"])
    located = locate(desk, values["model"])
    asked = precision.dtype_settled(_as_trained(dict(values), task, located), located.source)
    spec = specs.build(EvalSpec, asked)
    task_conditions.check(desk.data_dir, spec, task, spec.split)
    splits = [spec.split, *(["train"] if spec.shots else [])]
    data = records.identity(task, splits, desk.data_dir)
    rule = rules.of(task, located.source.folder, chat=spec.chat)
    identities = {"model": located.source.identity, "data": data, **rules.named(rule)}
    fingerprint = spec.fingerprint(identities)

    def fits(run: Run) -> bool:
        assert run.id is not None
        measured = {m.name for m in desk.ledger.outcome(run.id).measurements}
        return not spec.time or "latency_ms" in measured

    if found := answer(desk, fingerprint, fits=fits):
        return found
    from jdna_cli.engine import pipelines, preparation, timing

    preparation.check_measuring(spec, task, located.source)
    timing.check_kernels(spec, located.source, located.columns.get("pattern"))
    trained = located.run is not None and located.run.kind == "finetune"
    opening = NewRun(
        spec,
        fingerprint,
        {
            **located.columns,
            **task_conditions.task_columns(task, spec, spec.split, desk.data_dir),
            **task_conditions.columns(spec, task),
            # A model that was not fine-tuned has no seed of its own: its draws have one.
            "seed": located.columns["seed"] if trained else spec.seed,
            "data_identity": data,
            "recipe": _eval_recipe(desk, spec, task, located, data, rule),
            "rule": rule,
        },
        located.number,
    )
    return perform(
        desk,
        opening,
        lambda place: pipelines.evaluate(spec, task, located.source, place, trained=trained),
    )


def harness(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Measure a model on tasks of the LM evaluation harness."""
    located = locate(desk, values["model"])
    asked = {**values, "shots": values["shots"] or None, "seed": values["seed"] or 0}
    spec = specs.build(HarnessSpec, precision.dtype_settled(asked, located.source))
    from jdna_cli.engine import harness as library

    library.check(spec, located.source)
    tasks = library.find(spec)
    fingerprint = spec.fingerprint({"model": located.source.identity, "data": tasks.identity})
    if found := answer(desk, fingerprint):
        return found
    recipe = {
        "kind": "harness",
        "model": located.recipe,
        "data": tasks.identity,
        "spec": spec.determining(frozenset({"seed"})),
    }
    columns = {
        **located.columns,
        "task": f"lm-eval:{','.join(tasks.names)}",
        "metric": tasks.metric,
        "shots": spec.shots,
        "data_identity": tasks.identity,
        "recipe": specs.digest(recipe),
    }
    opening = NewRun(spec, fingerprint, columns, located.number)
    return perform(
        desk, opening, lambda place: library.evaluate(spec, tasks, located.source, place)
    )


def interpolate(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Measure the line between two models."""
    task = get(values["task"])
    first, second = locate(desk, values["model"]), locate(desk, values["other"])
    spec = specs.build(InterpolateSpec, _as_trained(dict(values), task, first))
    for end in (first, second):
        if end.run is not None and end.run.task not in (None, task.name):
            raise RequestError(
                f"{end.source.name} was fine-tuned on {end.run.task!r}, not on {task.name!r}"
            )
    task_conditions.check(desk.data_dir, spec, task, spec.split)
    data = records.identity(task, [spec.split], desk.data_dir)
    rule = rules.of(task, first.source.folder)
    identities = {
        "model": first.source.identity,
        "other": second.source.identity,
        "data": data,
        **rules.named(rule),
    }
    fingerprint = spec.fingerprint(identities)
    if found := answer(desk, fingerprint):
        return found
    from jdna_cli.engine import pipelines, preparation

    preparation.check_measuring(spec, task, first.source, second.source)
    opening = NewRun(
        spec,
        fingerprint,
        {
            "model": first.columns["model"],
            "model_identity": first.columns["model_identity"],
            "data_identity": data,
            "rule": rule,
            **task_conditions.task_columns(task, spec, spec.split, desk.data_dir),
            **task_conditions.columns(spec, task),
        },
        first.number,
        second.number,
    )
    return perform(
        desk,
        opening,
        lambda place: pipelines.interpolate(spec, task, first.source, second.source, place),
    )


def _as_trained(values: dict[str, Any], task: Task, located: Located) -> dict[str, Any]:
    """Fill in what was not given: the task's first split, and the settings of the fine-tuning."""
    values["split"] = check_split(task, values.get("split") or task.evaluation_splits[0])
    run = located.run
    trained = run.spec if run and run.kind == "finetune" and run.task == task.name else {}
    for name in _TAKEN_OVER:
        if values.get(name) is None:
            values.pop(name, None)
            if trained.get(name) is not None:
                values[name] = trained[name]
    drawn = any(values.get(name) for name in ("options", "shots", "context_words"))
    seed = values.get("seed")
    if seed is None or (not drawn and 0 <= seed <= specs.MOST_SEED):
        # A seed that nothing draws from makes no other result.
        values.pop("seed", None)
        if drawn and trained:
            values["seed"] = trained["seed"]
    return precision.settled(values) | task_conditions.put(values, task, training=False)


def _eval_recipe(
    desk: Desk, spec: EvalSpec, task: Task, located: Located, data: str, rule: int
) -> str:
    """The fine-tuning's own recipe where the evaluation repeats its measurement, else a new one."""
    run, own = located.run, frozenset({"seed"})
    if run is not None and run.kind == "finetune" and run.task == task.name:
        plain = EvalSpec.model_fields
        same = all(run.spec.get(name, plain[name].default) == getattr(spec, name)
                   for name in _TAKEN_OVER)  # fmt: skip
        same &= all(getattr(spec, name) == plain[name].default for name in _OF_ITS_OWN)
        splits = ("train", *task.evaluation_splits)
        seen = spec.split in task.evaluation_splits and run.data_identity == records.identity(
            task, splits, desk.data_dir
        )
        if same and seen and run.recipe and (run.rule or 1) == rule:
            return run.recipe
        # Draws of another seed than the fine-tuning's make another cell.
        own = own if spec.seed in (0, run.seed) else frozenset()
    return specs.digest(
        {
            "kind": "eval",
            "model": located.recipe,
            "data": data,
            "spec": spec.determining(own | {"kernels"}),
            **rules.named(rule),
        }
    )
