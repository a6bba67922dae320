"""From what was asked of a fine-tuning to its spec, its models, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.results import Need
from jdna_cli.runs import conditions, precision, prune, rules
from jdna_cli.runs.model_lookup import PRUNED, Located, locate, written_by
from jdna_cli.runs.recording import Execution, OpenWorkspace, RecordedRun, Request, run
from jdna_cli.runs.teacher import teacher_column, teacher_of
from jdna_cli.sparsity import criteria
from jdna_cli.sparsity.regimes import OF_BOTH, REGIMES
from jdna_cli.specs import FinetuneSpec, ModelSource, PruneSpec
from jdna_cli.store.identity import has_weights
from jdna_cli.store.ledger import NewRun
from jdna_cli.store.tables import Run
from jdna_cli.tasks import datasets
from jdna_cli.tasks.lookup import get
from jdna_cli.tasks.task import Task


@dataclass(frozen=True)
class FinetuneRequest(Request):
    """A fine-tuning of a model that was found.

    Attributes:
        located: the model that was named.
        base: the pre-trained one; that of `located`, where that is a pruned run's.
        pruned: the run that pruned `located`, if the request names what it did.
        taken: what the model has lost, or is to lose: nothing, weights, or bits of them.
        data: the examples, by content.
    """

    workspace: OpenWorkspace
    spec: FinetuneSpec
    task: Task
    located: Located
    base: Located
    pruned: Run | None
    teacher: Located | None
    taken: str
    data: str
    rule: int
    fingerprint: str

    def is_answered_by(self, run: Run) -> bool:
        """Whether its dynamics were recorded, and its model is there, where they are wanted."""
        assert run.id is not None
        ledger = self.workspace.ledger
        if self.workspace.needs_model and not has_weights(ledger.folder(run)):
            return False
        if self.spec.lora_keep and not (ledger.folder(run) / "adapter").is_dir():
            return False
        return not self.spec.dynamics or bool(ledger.outcome(run.id).movements)

    def check(self) -> None:
        """Check the model, the data, the pruning, and the teacher."""
        from jdna_cli.pipelines import checks

        spec, task, source = self.spec, self.task, self.located.source
        checks.check_finetune(spec, task, source, self.workspace.data_dir)
        if self.teacher is not None:
            checks.check_teacher(spec, task, source, self.teacher.source)

    def prepare(self) -> Execution:
        """The training; what it prunes first is a run of its own, made or found."""
        from jdna_cli.pipelines import finetune

        spec, task, teacher = self.spec, self.task, self.teacher
        start, parent = self._start()
        given = finetune.Models(start, self.base.source, teacher.source if teacher else None)
        resume = self.workspace.resume
        return Execution(
            NewRun(spec, self.fingerprint, self._columns(), parent),
            lambda context: finetune.lead(spec, task, given, context, resume),
        )

    def _start(self) -> tuple[ModelSource, int | None]:
        """What is trained, and the run that wrote it, if one did."""
        spec, base = self.spec, self.base.source
        if not spec.prunes or spec.schedule != "one-shot":
            return self.located.source, self.located.number
        number = self.located.number
        if self.pruned is None:
            workspace = replace(self.workspace, force=False)
            number = prune.prune(workspace, spec.prune_spec().model_dump()).run.id
        assert number is not None
        start = written_by(self.workspace, number).source
        if REGIMES[spec.regime].start in ("pretrained", "shuffled"):
            start = ModelSource(base.name, base.folder, base.identity, start.mask)
        return start, number

    def _columns(self) -> dict[str, Any]:
        spec, task, base = self.spec, self.task, self.base
        measured = task.evaluation_splits[0]
        columns = {
            "model": base.columns["model"],
            "model_identity": base.columns["model_identity"],
            "data_identity": self.data,
            **conditions.task_columns(task, spec, measured, self.workspace.data_dir),
            **conditions.columns(spec, task),
            "recipe": _finetune_recipe(spec, base, self.data, self.rule),
            "rule": self.rule,
            "regime": spec.regime,
            "data_fraction": spec.data_fraction,
            "seed": spec.seed,
            "teacher": teacher_column(spec, self.teacher),
            "adapter": _adapter_column(spec),
        }
        if spec.prunes:
            columns |= prune.columns(spec, base)
        elif self.taken != "nothing":
            columns |= {name: base.columns.get(name) for name in PRUNED}
        else:
            columns["sparsity"] = 0.0
        columns["schedule"] = None  # whatever was trained before, it is pruned before this
        if spec.schedule == "iterative":
            rounds, end = spec.schedule_rounds, spec.schedule_end
            columns["schedule"] = f"iterative, {rounds} rounds to {end:.0%}"
        return columns


def resolve(workspace: OpenWorkspace, values: Mapping[str, Any]) -> FinetuneRequest:
    """The request by content: of what was asked, its models, its examples, its criterion.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    asked = dict(values)
    regime = asked.pop("regime", None)
    if regime is not None and regime not in REGIMES:
        raise RequestError(f"--regime: {regime!r} is none of {', '.join(REGIMES)}")
    task = get(asked["task"])
    asked = precision.settled(asked) | conditions.put(asked, task, training=True)
    located = locate(workspace, asked["model"])
    asked, pruned = _with_pruning(workspace, asked, located)
    # Before its criterion is loaded: one that has changed since is not run.
    base = located if pruned is None else _base_of(workspace, pruned)
    taken = _taken(asked, located)
    usual = {"nothing": "dense", "weights": "sparse"}.get(taken, "quantized")
    spec = prune.spec_of(FinetuneSpec, {**asked, "regime": regime or usual})
    if spec.lora is not None and spec.lora_alpha is None:
        spec = spec.model_copy(update={"lora_alpha": 2.0 * spec.lora})
    _check_regime(spec, taken)
    _check_schedule(spec, located)
    teacher = teacher_of(workspace, spec, task)
    conditions.check(workspace.data_dir, spec, task, task.evaluation_splits[0])
    data = datasets.identity(task, ("train", *task.evaluation_splits), workspace.data_dir)
    rule = rules.of(task, base.source.folder)
    identities = prune.identities(workspace, spec, base.source)
    identities |= {"data": data, **rules.named(rule)}
    if teacher is not None:
        identities["teacher"] = teacher.source.identity
    fingerprint = spec.fingerprint(identities)
    return FinetuneRequest(
        workspace, spec, task, located, base, pruned, teacher, taken, data, rule, fingerprint
    )


def finetune(workspace: OpenWorkspace, values: Mapping[str, Any]) -> RecordedRun:
    """Fine-tune a model; where the request prunes, the pruning is a run of its own before it."""
    return run(resolve(workspace, values))


def memory(workspace: OpenWorkspace, values: Mapping[str, Any]) -> list[Need]:
    """What memory a fine-tuning would take, after all its checks; nothing is pruned or recorded.

    Raises:
        RequestError: the request is wrong.
    """
    from jdna_cli.pipelines import memory

    request = resolve(workspace, values)
    request.check()
    return memory.of_finetuning(request.spec, request.located.source)


def _with_pruning(
    workspace: OpenWorkspace, asked: dict[str, Any], located: Located
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
    """What the model has lost, or is to lose: nothing, weights, bits of them, or both."""
    rounds = asked.get("quantize") is not None or located.columns.get("quantization")
    prunes = any(asked.get(name) is not None for name in ("sparsity", "pattern"))
    if prunes or located.source.mask is not None:
        return "both" if rounds else "weights"
    return "bits" if rounds else "nothing"


def _check_schedule(spec: FinetuneSpec, located: Located) -> None:
    if spec.schedule == "one-shot":
        return
    if spec.regime != "sparse" or not spec.prunes or located.source.mask is not None:
        raise RequestError(
            "--schedule: iterative prunes a model while it trains: name one that is not pruned, "
            "with --sparsity S or --pattern N:M, and leave the regime sparse"
        )
    if spec.allocation is not None:
        raise RequestError(
            f"--allocation: {spec.allocation} is of one pruning, before training: leave "
            "--schedule iterative out, or let scores compete (--scope global, layer or row)"
        )
    if criteria.load(spec.criterion).calibrated:
        raise RequestError(
            f"--schedule: {spec.criterion} is calibrated once, on the model as it was before "
            "training; prune in rounds by magnitude, magnitude-inverse or random"
        )


def _check_regime(spec: FinetuneSpec, taken: str) -> None:
    needs = REGIMES[spec.regime].needs
    if needs == taken or (taken == "both" and spec.regime in OF_BOTH):
        return
    if taken == "both":
        raise RequestError(
            f"--regime: {spec.regime} is not for weights that are pruned and rounded: "
            f"{', '.join(OF_BOTH)}"
        )
    wanted = {
        "weights": "pruned weights: add --sparsity S or --pattern N:M, or name a pruned run:ID",
        "bits": "rounded weights: add --quantize BITS, or name a quantized run:ID",
    }
    if taken == "nothing":
        raise RequestError(f"--regime: {spec.regime} needs {wanted[needs]}")
    has = "pruned or to be" if taken == "weights" else "quantized or to be"
    free = "sparse-to-dense" if taken == "weights" else "quantized-to-dense"
    if needs == "nothing":
        raise RequestError(
            f"--regime: {spec.regime} prunes nothing, but the model is {has}: "
            f"leave the pruning out, or use {free} to let all weights train"
        )
    raise RequestError(f"--regime: {spec.regime} needs {wanted[needs]}; this model is {has}")


def _base_of(workspace: OpenWorkspace, run: Run) -> Located:
    """The model that a prune run started from, with the same content as then.

    Raises:
        RequestError: it is gone, or has changed since.
    """
    try:
        base = locate(workspace, run.spec["model"])
    except RequestError as error:
        raise RequestError(f"run:{run.id} was made from a model that is gone: {error}") from None
    spec = specs.build(PruneSpec, run.spec)
    if spec.fingerprint(prune.identities(workspace, spec, base.source)) != run.fingerprint:
        what = run.spec["model"]
        if spec.calibration is not None or ":" in spec.criterion:
            what += ", or what it was pruned by,"
        raise RequestError(
            f"{what} has changed since run:{run.id} was made from it: prune it again"
        )
    return base


def _adapter_column(spec: FinetuneSpec) -> str | None:
    if spec.lora is None:
        return None
    where = f" on {', '.join(spec.lora_targets)}" if spec.lora_targets else ""
    return f"lora, rank {spec.lora}, alpha {spec.lora_alpha:g}{where}"


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
