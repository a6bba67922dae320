"""From what was asked of a fine-tuning to its spec, its models, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.jobs import distillation, precision, pruning, rules, task_conditions
from jdna_cli.jobs.locating import PRUNED, Located, locate, written_by
from jdna_cli.jobs.running import Desk, Done, answer, perform
from jdna_cli.sparsity import criteria
from jdna_cli.sparsity.regimes import REGIMES
from jdna_cli.specs import FinetuneSpec, ModelSource, PruneSpec
from jdna_cli.store.ledger import NewRun
from jdna_cli.store.tables import Run
from jdna_cli.tasks import get, records


def finetune(desk: Desk, values: Mapping[str, Any]) -> Done:
    """Fine-tune a model; where the request prunes, the pruning is a run of its own before it."""
    asked = dict(values)
    regime = asked.pop("regime", None)
    if regime is not None and regime not in REGIMES:
        raise RequestError(f"--regime: {regime!r} is none of {', '.join(REGIMES)}")
    task = get(asked["task"])
    asked = precision.settled(asked) | task_conditions.put(asked, task, training=True)
    located = locate(desk, asked["model"])
    asked, pruned = _with_pruning(desk, asked, located)
    taken = _taken(asked, located)
    usual = {"nothing": "dense", "weights": "sparse", "bits": "quantized"}[taken]
    spec = pruning.spec_of(FinetuneSpec, {**asked, "regime": regime or usual})
    _check_regime(spec, taken)
    _check_schedule(spec, located)
    base = located if pruned is None else _base_of(desk, pruned)
    teacher = distillation.teacher_of(desk, spec, task)
    task_conditions.check(desk.data_dir, spec, task, task.evaluation_splits[0])
    splits = ("train", *task.evaluation_splits)
    data = records.identity(task, splits, desk.data_dir)
    rule = rules.of(task, base.source.folder)
    identities = {**pruning.identities(desk, spec, base.source), "data": data, **rules.named(rule)}
    if teacher is not None:
        identities["teacher"] = teacher.source.identity
    fingerprint = spec.fingerprint(identities)
    if found := answer(desk, fingerprint, fits=lambda run: _has_dynamics(desk, spec, run)):
        return found
    from jdna_cli.engine import finetuning, preparation

    preparation.check_finetune(spec, task, located.source, desk.data_dir)
    if teacher is not None:
        preparation.check_teacher(spec, task, located.source, teacher.source)
    start, parent = located.source, located.number
    if spec.prunes and spec.schedule == "one-shot":
        if pruned is None:
            parent = pruning.prune(
                replace(desk, force=False), spec.prune_spec().model_dump()
            ).run.id
        assert parent is not None
        start = written_by(desk, parent).source
        if REGIMES[spec.regime].start in ("pretrained", "shuffled"):
            start = ModelSource(
                base.source.name, base.source.folder, base.source.identity, start.mask
            )
    columns = {
        "model": base.columns["model"],
        "model_identity": base.columns["model_identity"],
        "data_identity": data,
        **task_conditions.task_columns(task, spec, task.evaluation_splits[0], desk.data_dir),
        **task_conditions.columns(spec, task),
        "recipe": _finetune_recipe(spec, base, data, rule),
        "rule": rule,
        "regime": spec.regime,
        "data_fraction": spec.data_fraction,
        "seed": spec.seed,
        "teacher": distillation.column(spec, teacher),
    }
    if spec.prunes:
        columns |= pruning.columns(spec, base)
    elif taken != "nothing":
        columns |= {name: base.columns.get(name) for name in PRUNED}
    else:
        columns["sparsity"] = 0.0
    if spec.schedule == "iterative":
        columns["schedule"] = f"iterative, {spec.schedule_rounds} rounds to {spec.schedule_end:.0%}"
    opening = NewRun(spec, fingerprint, columns, parent)
    models = finetuning.Models(start, base.source, teacher.source if teacher else None)
    return perform(
        desk, opening, lambda place: finetuning.lead(spec, task, models, place, desk.resume)
    )


def _with_pruning(
    desk: Desk, asked: dict[str, Any], located: Located
) -> tuple[dict[str, Any], Run | None]:
    """The request with the pruning of the model it names, and that model's prune run, if any.

    Raises:
        RequestError: the model was pruned by a stranger, or is to be pruned twice.
    """
    if located.run is None and (located.source.folder / "mask.safetensors").is_file():
        raise RequestError(
            f"{asked['model']} was pruned by a run that this database does not know: name its "
            "--home, or remove its mask.safetensors to let all weights train"
        )
    prunes = any(asked.get(name) is not None for name in ("sparsity", "pattern", "quantize"))
    if prunes and (located.source.mask is not None or located.columns.get("quantization")):
        raise RequestError(
            f"{asked['model']} is pruned already: leave out --sparsity, --pattern and --quantize, "
            "or prune its own parent"
        )
    if located.run is None or located.run.kind != "prune":
        return asked, None
    # The same request as pruning on the way: one spec, one fingerprint, one cell.
    spec = specs.build(PruneSpec, located.run.spec)
    return asked | spec.model_dump(exclude={"packed"}), located.run


def _taken(asked: Mapping[str, Any], located: Located) -> str:
    """What the model has lost, or is to lose: nothing, weights, or bits of them."""
    if asked.get("quantize") is not None or located.columns.get("quantization"):
        return "bits"
    prunes = any(asked.get(name) is not None for name in ("sparsity", "pattern"))
    return "weights" if prunes or located.source.mask is not None else "nothing"


def _has_dynamics(desk: Desk, spec: FinetuneSpec, run: Run) -> bool:
    assert run.id is not None
    return not spec.dynamics or bool(desk.ledger.outcome(run.id).movements)


def _check_schedule(spec: FinetuneSpec, located: Located) -> None:
    if spec.schedule == "one-shot":
        return
    if spec.regime != "sparse" or not spec.prunes or located.source.mask is not None:
        raise RequestError(
            "--schedule: iterative prunes a model while it trains: name one that is not pruned, "
            "with --sparsity S or --pattern N:M, and leave the regime sparse"
        )
    if criteria.load(spec.criterion).calibrated:
        raise RequestError(
            f"--schedule: {spec.criterion} is calibrated once, on the model as it was before "
            "training; prune in rounds by magnitude, magnitude-inverse or random"
        )


def _check_regime(spec: FinetuneSpec, taken: str) -> None:
    needs = REGIMES[spec.regime].needs
    if needs == taken:
        return
    wanted = {
        "weights": "pruned weights: add --sparsity S or --pattern N:M, or name a pruned run:ID",
        "bits": "rounded weights: add --quantize BITS, or name a quantised run:ID",
    }
    if taken == "nothing":
        raise RequestError(f"--regime: {spec.regime} needs {wanted[needs]}")
    has = "pruned or to be" if taken == "weights" else "quantised or to be"
    free = "sparse-to-dense" if taken == "weights" else "quantized-to-dense"
    if needs == "nothing":
        raise RequestError(
            f"--regime: {spec.regime} prunes nothing, but the model is {has}: "
            f"leave the pruning out, or use {free} to let all weights train"
        )
    raise RequestError(f"--regime: {spec.regime} needs {wanted[needs]}; this model is {has}")


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
    if spec.fingerprint(pruning.identities(desk, spec, base.source)) != run.fingerprint:
        what = run.spec["model"]
        if spec.calibration is not None or ":" in spec.criterion:
            what += ", or what it was pruned by,"
        raise RequestError(
            f"{what} has changed since run:{run.id} was made from it: prune it again"
        )
    return base


def _finetune_recipe(spec: FinetuneSpec, base: Located, data: str, rule: int) -> str:
    """What a fine-tuning is, but for pruning and seed; equal for all that it is compared with."""
    return specs.digest(
        {
            "kind": "finetune",
            "model": base.recipe,
            "data": data,
            "spec": spec.determining(specs.PRUNING_FIELDS | {"seed"}),
            **rules.named(rule),
        }
    )
