"""From what was asked on the command line to a spec, its models, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import specs
from jdna_cli.cli import knobs
from jdna_cli.cli.running import Desk, Done, answer, perform
from jdna_cli.errors import RequestError
from jdna_cli.results import Planned
from jdna_cli.sparsity.regimes import REGIMES
from jdna_cli.specs import (
    EvalSpec,
    FinetuneSpec,
    HarnessSpec,
    InterpolateSpec,
    ModelSource,
    PruneSpec,
)
from jdna_cli.store.ledger import Opening
from jdna_cli.store.tables import Run
from jdna_cli.tasks import Task, check_split, get, records


@dataclass(frozen=True)
class Located:
    """A model that a request named: the files, the run that wrote them, and the columns it had."""

    source: ModelSource
    run: Run | None
    columns: Mapping[str, Any]

    @property
    def recipe(self) -> str:
        """What the model is, but for pruning and seed: part of the recipe of what follows."""
        return (self.run.recipe if self.run else None) or self.source.identity

    @property
    def number(self) -> int | None:
        """The run that wrote it, if one did."""
        return self.run.id if self.run else None


# Columns that follow a model from run to run.
_INHERITED = (
    "model",
    "model_identity",
    "regime",
    "criterion",
    "pattern",
    "scope",
    "prunable",
    "sparsity",
    "data_fraction",
    "seed",
)

# What an evaluation takes over from the fine-tuning of its model.
_TAKEN_OVER = ("max_length", "mixed_precision", *specs.KNOB_FIELDS)


def locate(desk: Desk, reference: str) -> Located:
    """Find the model that `reference` names; whether it can be read is checked before it is.

    Raises:
        RequestError: there is none.
    """
    if reference.startswith("run:"):
        number = reference.removeprefix("run:")
        if not number.isdigit():
            raise RequestError(f"{reference!r}: a run is named run:ID, as in run:2")
        return _written_by(desk, int(number))
    folder = Path(reference).expanduser()
    if (writer := desk.ledger.writer_of(folder)) is not None:
        return _written_by(desk, writer)
    if not any(folder.glob("*.safetensors")):
        from jdna_cli.engine import models

        folder = models.fetch(reference, desk.ledger.home / ".converted", desk.allow_pickle)
    identity = desk.ledger.identity(folder)
    name = desk.ledger.name_of(identity, reference.removeprefix("./").rstrip("/"))
    columns = {"model": name, "model_identity": identity, "regime": "dense", "sparsity": 0.0}
    return Located(ModelSource(name, folder, identity), None, {**columns, "seed": 0})


def _written_by(desk: Desk, number: int) -> Located:
    source, run = desk.ledger.model_of(number)
    columns = {name: getattr(run, name) for name in _INHERITED}
    # A pruned model that was not fine-tuned is evaluated as one whose zeros were kept.
    return Located(source, run, {**columns, "regime": run.regime or "sparse"})


# ------------------------------------------------------------------------------------------ prune


def prune(desk: Desk, values: Mapping[str, Any], out: Path | None = None) -> Done:
    """Prune a model, or find that it was done."""
    spec = specs.build(PruneSpec, values)
    located = locate(desk, spec.model)
    fingerprint = spec.fingerprint({"model": located.source.identity})
    if found := answer(desk, fingerprint, out):
        return found
    from jdna_cli.engine import pruning

    pruning.check_prune(spec, located.source)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"--out: {out} is not empty, name a new folder")
    opening = Opening(
        spec,
        fingerprint,
        {
            **{name: located.columns[name] for name in ("model", "model_identity")},
            "recipe": located.recipe,
            "seed": located.columns["seed"],
            **_pruning_columns(spec),
        },
        located.number,
    )
    return perform(desk, opening, lambda place: pruning.prune(spec, located.source, place), out)


def plan(desk: Desk, values: Mapping[str, Any]) -> list[Planned]:
    """What a pruning would touch, from names and shapes alone; nothing is recorded."""
    from jdna_cli.engine import pruning

    spec = specs.build(PruneSpec, values)
    return pruning.plan_prune(spec, locate(desk, spec.model).source)


def _pruning_columns(spec: PruneSpec | FinetuneSpec) -> dict[str, Any]:
    """The columns that say what was pruned."""
    if spec.pattern:
        n, m = specs.parse_pattern(spec.pattern)
        asked: dict[str, Any] = {"pattern": spec.pattern, "sparsity": 1 - n / m}
    else:
        asked = {"pattern": "unstructured", "sparsity": spec.sparsity, "scope": spec.scope}
    chosen = [f"+{p}" for p in spec.include] + [f"-{p}" for p in spec.exclude]
    return {**asked, "criterion": spec.criterion, "prunable": " ".join(chosen) or None}


# --------------------------------------------------------------------------------------- finetune


def finetune(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Fine-tune a model; where the request prunes, the pruning is a run of its own before it."""
    asked = dict(values)
    regime = asked.pop("regime", None)
    if regime is not None and regime not in REGIMES:
        raise RequestError(f"--regime: {regime!r} is none of {', '.join(REGIMES)}")
    task = get(asked["task"])
    asked |= knobs.put(asked, task, training=True)
    located = locate(desk, asked["model"])
    if located.run is None and (located.source.folder / "mask.safetensors").is_file():
        raise RequestError(
            f"{asked['model']} was pruned by a run that this database does not know: name its "
            "--home, or remove its mask.safetensors to let all weights train"
        )
    prunes = asked.get("sparsity") is not None or asked.get("pattern") is not None
    if prunes and located.source.mask is not None:
        raise RequestError(
            f"{asked['model']} is pruned already: leave out --sparsity and --pattern, "
            "or prune its own parent"
        )
    pruning = located.run if located.run is not None and located.run.kind == "prune" else None
    if pruning is not None:
        # The same request as pruning on the way: one spec, one fingerprint, one cell.
        asked |= specs.build(PruneSpec, pruning.spec).model_dump()
        prunes = True
    pruned = prunes or located.source.mask is not None
    spec = specs.build(
        FinetuneSpec, {**asked, "regime": regime or ("sparse" if pruned else "dense")}
    )
    _check_regime(spec, pruned)
    base = located if pruning is None else _base_of(desk, pruning)
    knobs.check(desk.data_dir, spec, task, task.evaluation_splits[0])
    splits = ("train", *task.evaluation_splits)
    data = records.identity(task, splits, desk.data_dir)
    fingerprint = spec.fingerprint({"model": base.source.identity, "data": data})
    if found := answer(desk, fingerprint):
        return found
    from jdna_cli.engine import pipelines, preparation

    preparation.check_finetune(spec, task, located.source, desk.data_dir)
    start, parent = located.source, located.number
    if prunes:
        if pruning is None:
            parent = prune(Desk(desk.ledger), spec.prune_spec().model_dump()).run.id
        assert parent is not None
        start = desk.ledger.model_of(parent)[0]
        if REGIMES[spec.regime].start != "zero":
            start = ModelSource(
                base.source.name, base.source.folder, base.source.identity, start.mask
            )
    columns = {
        "model": base.columns["model"],
        "model_identity": base.columns["model_identity"],
        "data_identity": data,
        **_task_columns(task),
        **knobs.columns(spec, task),
        "recipe": _finetune_recipe(spec, base, data),
        "regime": spec.regime,
        "data_fraction": spec.data_fraction,
        "seed": spec.seed,
    }
    if prunes:
        columns |= _pruning_columns(spec)
    elif pruned:
        inherited = ("criterion", "pattern", "scope", "prunable", "sparsity")
        columns |= {name: base.columns.get(name) for name in inherited}
    else:
        columns["sparsity"] = 0.0
    opening = Opening(spec, fingerprint, columns, parent)
    return perform(
        desk, opening, lambda place: pipelines.finetune(spec, task, start, place, desk.resume)
    )


def _check_regime(spec: FinetuneSpec, pruned: bool) -> None:
    needs = REGIMES[spec.regime].needs_mask
    if needs and not pruned:
        raise RequestError(
            f"--regime: {spec.regime} needs pruned weights: add --sparsity S or --pattern N:M, "
            "or name a pruned run:ID"
        )
    if not needs and pruned:
        raise RequestError(
            f"--regime: {spec.regime} prunes nothing, but the model is pruned or to be: "
            "leave the pruning out, or use sparse-to-dense to let all weights train"
        )


def _base_of(desk: Desk, run: Run) -> Located:
    """The model that a prune run started from, with the same content as then.

    Raises:
        RequestError: it is gone, or has changed since.
    """
    try:
        base = locate(desk, run.spec["model"])
    except RequestError as error:
        raise RequestError(f"run:{run.id} was made from a model that is gone: {error}") from None
    spec = specs.build(PruneSpec, run.spec)
    if spec.fingerprint({"model": base.source.identity}) != run.fingerprint:
        raise RequestError(
            f"{run.spec['model']} has changed since run:{run.id} was made from it: prune it again"
        )
    return base


def _finetune_recipe(spec: FinetuneSpec, base: Located, data: str) -> str:
    """What a fine-tuning is, but for pruning and seed; equal for all that it is compared with."""
    return specs.digest(
        {
            "kind": "finetune",
            "model": base.recipe,
            "data": data,
            "spec": spec.determining(specs.PRUNING_FIELDS | {"seed"}),
        }
    )


def _task_columns(task: Task) -> dict[str, Any]:
    human = task.human.value if task.human else None
    return {"task": task.name, "metric": task.metric, "human": human}


# ---------------------------------------------------------------------------- eval and interpolate


def evaluate(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Measure a model on one split of a task."""
    task = get(values["task"])
    located = locate(desk, values["model"])
    spec = specs.build(EvalSpec, _as_trained(dict(values), task, located))
    knobs.check(desk.data_dir, spec, task, spec.split)
    splits = [spec.split, *(["train"] if spec.shots else [])]
    data = records.identity(task, splits, desk.data_dir)
    fingerprint = spec.fingerprint({"model": located.source.identity, "data": data})
    if found := answer(desk, fingerprint):
        return found
    from jdna_cli.engine import pipelines, preparation

    preparation.check_measuring(spec, task, located.source)
    trained = located.run is not None and located.run.kind == "finetune"
    opening = Opening(
        spec,
        fingerprint,
        {
            **located.columns,
            **_task_columns(task),
            **knobs.columns(spec, task),
            # A model that was not fine-tuned has no seed of its own: its draws have one.
            "seed": located.columns["seed"] if trained else spec.seed,
            "data_identity": data,
            "recipe": _eval_recipe(desk, spec, task, located, data),
        },
        located.number,
    )
    return perform(
        desk, opening, lambda place: pipelines.evaluate(spec, task, located.source, place)
    )


def harness(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Measure a model on tasks of the LM evaluation harness."""
    asked = {**values, "shots": values["shots"] or None, "seed": values["seed"] or 0}
    spec = specs.build(HarnessSpec, asked)
    located = locate(desk, spec.model)
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
    opening = Opening(spec, fingerprint, columns, located.number)
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
    knobs.check(desk.data_dir, spec, task, spec.split)
    data = records.identity(task, [spec.split], desk.data_dir)
    identities = {"model": first.source.identity, "other": second.source.identity, "data": data}
    fingerprint = spec.fingerprint(identities)
    if found := answer(desk, fingerprint):
        return found
    from jdna_cli.engine import pipelines, preparation

    preparation.check_measuring(spec, task, first.source, second.source)
    opening = Opening(
        spec,
        fingerprint,
        {
            "model": first.columns["model"],
            "model_identity": first.columns["model_identity"],
            "data_identity": data,
            **_task_columns(task),
            **knobs.columns(spec, task),
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
    if values.get("seed") is None:
        values.pop("seed", None)
        drawn = any(values.get(name) for name in ("options", "shots", "context_words"))
        if drawn and trained:
            values["seed"] = trained["seed"]
    return values | knobs.put(values, task, training=False)


def _eval_recipe(desk: Desk, spec: EvalSpec, task: Task, located: Located, data: str) -> str:
    """The fine-tuning's own recipe where the evaluation repeats its measurement, else a new one."""
    run, own = located.run, frozenset({"seed"})
    if run is not None and run.kind == "finetune" and run.task == task.name:
        plain = EvalSpec.model_fields
        same = all(run.spec.get(name, plain[name].default) == getattr(spec, name)
                   for name in _TAKEN_OVER if name != "shots")  # fmt: skip
        same &= all(getattr(spec, name) == plain[name].default
                    for name in ("shots", "chat", "stride", "dtype"))  # fmt: skip
        splits = ("train", *task.evaluation_splits)
        seen = spec.split in task.evaluation_splits and run.data_identity == records.identity(
            task, splits, desk.data_dir
        )
        if same and seen and run.recipe:
            return run.recipe
        # Draws of another seed than the fine-tuning's make another cell.
        own = own if spec.seed in (0, run.seed) else frozenset()
    return specs.digest(
        {"kind": "eval", "model": located.recipe, "data": data, "spec": spec.determining(own)}
    )
