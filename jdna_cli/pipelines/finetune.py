"""Fine-tuning under a transfer regime: from a spec and its models to a folder and plain numbers."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from jdna_cli.compute import devices, distributed, processes
from jdna_cli.errors import RequestError
from jdna_cli.files import require_space, whole
from jdna_cli.models import loading, model_files
from jdna_cli.models.parameters import match_names, parameters_by_name
from jdna_cli.pipelines import model_card
from jdna_cli.pipelines.run_files import write_predictions, write_records
from jdna_cli.pruning import plan
from jdna_cli.results import LayerSparsity, Measurement, Movement, Outcome
from jdna_cli.run_context import RunContext
from jdna_cli.scoring.classification import Head
from jdna_cli.scoring.scorer import EvalContext, EvalResult, Scorer
from jdna_cli.scoring.setup import Prepared, counted, examples, prepare, scorer_for
from jdna_cli.sparsity import masks, packing, quantization, selection, shards
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.quantization import Rounding
from jdna_cli.sparsity.regimes import REGIMES, Constraint, OnGrid, start_
from jdna_cli.specs import FinetuneSpec, ModelSource
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.metrics import LOWER_IS_BETTER
from jdna_cli.tasks.subsets import training_subset
from jdna_cli.tasks.task import Task
from jdna_cli.training import adapters, checkpoints, dynamics
from jdna_cli.training.adapters import Adapters
from jdna_cli.training.distillation import Teacher
from jdna_cli.training.gradual_pruning import GradualPruning
from jdna_cli.training.loop import EpochEnd, Extras, Training
from jdna_cli.training.tracking import Tracking
from jdna_cli.training.tracking import place as tracking_place


@dataclass(frozen=True)
class Models:
    """The models of a fine-tuning: what it starts from, the pre-trained one, a teacher."""

    start: ModelSource
    pretrained: ModelSource
    teacher: ModelSource | None = None


def finetune(
    spec: FinetuneSpec, task: Task, given: Models, context: RunContext, resume: bool
) -> Outcome:
    """Fine-tune a model under the spec's regime, measure it after each epoch, keep the last.

    Args:
        spec: the request.
        task: the task it names.
        given: the pre-trained or pruned model, with a mask where the regime needs one.
        context: data and target folder; checkpoints go to its work folder.
        resume: go on from the newest whole checkpoint there, if there is one.
    """
    scorer = scorer_for(spec, task, given.start, context.tokens)
    data = _read(spec, task, scorer, context)
    files = model_files.weight_files(given.start.folder)
    if processes.is_first():
        require_space(context.folder, model_files.size(files) * (8 if spec.checkpoint_every else 2))

    context.phase("loading the model")
    accelerator = devices.accelerator(spec.mixed_precision)
    teacher = _teacher(spec, task, given.teacher, data.used, context, accelerator)
    set_seed(spec.seed)
    with distributed.one_process_at_a_time():
        model = scorer.load(given.start, new_head=True, seed=spec.seed)
        start = _start(spec, model, given.start, accelerator.device)
    notes: list[str] = []
    checkpoint = None
    if resume:
        checkpoint, notes = checkpoints.newest(context.work, context.fingerprint)
    tracking = _tracking(spec, context, checkpoint.step if checkpoint else 0, notes)
    extras = _extras(spec, model, given, start, teacher, tracking)
    added = _adapters(spec, model, given.start, start, scorer)
    if processes.size() > 1:
        torch.manual_seed(spec.seed + processes.rank())  # of dropout
    training = Training(model, data.encoded, scorer, spec, start.constraint, accelerator, extras)
    if checkpoint:
        training.resume(checkpoint)
        notes.append(f"resumed at step {checkpoint.step} of {training.total}")
    latest: dict[str, EvalResult] = {}
    journal = training.run(context, _measure_after_epochs(training, scorer, data, spec, latest))
    trained = accelerator.unwrap_model(training.model)
    if added is not None:
        notes.append(f"{added.trainable:,} numbers were trained")
        kept_beside = context.work / "adapter"
        shutil.rmtree(kept_beside, ignore_errors=True)
        if spec.lora_keep and processes.is_first():
            context.work.mkdir(parents=True, exist_ok=True)
            added.save(kept_beside, given.start.name)
        added.merge()
    weights = shards.gathered(trained.state_dict(keep_vars=True), keep=processes.is_first())
    if not processes.is_first():
        return Outcome()
    context.phase("writing")
    kept = training.kept if spec.schedule == "iterative" else start.masks
    speed = len(data.used) * spec.epochs / journal.seconds if journal.seconds else None
    outcome = Outcome(
        measurements=(*journal.measured, *_results(journal.measured, task, speed)),
        layers=tuple(_counted(name, weights[name], mask) for name, mask in kept.items()),
        movements=tuple(journal.movements),
        bits=next(iter(start.grids.values())).grid.bits if start.grids else 32,
        bits_per_weight=_compact_bits(spec, kept, start),
        device=devices.name(accelerator.device),
        dtype="float32",
        protocol=latest[task.evaluation_splits[0]].protocol or None,
        examples=data.counts,
        remark=_remark(spec, training.parts),
        notes=tuple(notes),
    )
    if tracking is not None:
        tracking.finish(outcome.measurements)
    with whole(context.folder, context.confirm) as target:
        saved = weights if context.keeps_model else None
        model_files.save(trained, scorer.tokens.tokenizer, target, saved)
        if kept:
            masks.save(kept, target / "mask.safetensors")
        if added is not None and spec.lora_keep:
            shutil.copytree(kept_beside, target / "adapter")
        if start.grids:
            shutil.copyfile(given.start.folder / "grid.safetensors", target / "grid.safetensors")
        for split, part in data.held_out.items():
            write_predictions(target, split, part.records, latest[split])
        write_records(target, spec, outcome)
        if context.keeps_model:
            model_card.write(target, spec, outcome, given.pretrained, task)
    return outcome


@dataclass(frozen=True)
class _Data:
    """Examples to train on, and to measure on after each epoch."""

    read: Records  # all of the training split
    used: Records
    encoded: Any
    held_out: dict[str, Prepared]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many examples there are of each split, and how many of them are used."""
        held_out = {split: counted(part.records) for split, part in self.held_out.items()}
        return {"train": counted(self.read, self.used), **held_out}


def _read(spec: FinetuneSpec, task: Task, scorer: Scorer, context: RunContext) -> _Data:
    context.phase("reading the data")
    read = examples(task, "train", scorer.conditions, context.data_dir)
    chosen = training_subset(
        _strata(read, task),
        task.kind != "regression",
        spec.data_fraction,
        spec.max_train_samples,
        spec.seed,
    )
    used = read.chosen(chosen)
    context.phase("tokenizing")
    encoded = scorer.encode(used)
    held_out = {s: prepare(scorer, s, context.data_dir) for s in task.evaluation_splits}
    return _Data(read, used, encoded, held_out)


def _measure_after_epochs(
    training: Training,
    scorer: Scorer,
    data: _Data,
    spec: FinetuneSpec,
    latest: dict[str, EvalResult],
) -> EpochEnd:
    """What a training calls after each epoch; each split's newest result goes into `latest`."""

    def epoch_end(epoch: int, step: int) -> list[Measurement]:
        measured: list[Measurement] = []
        if not distributed.measures():
            return measured
        for split, part in data.held_out.items():
            accelerator = training.accelerator
            measuring = EvalContext(spec.eval_batch_size, accelerator, step=step)
            alone = accelerator.unwrap_model(training.model)
            latest[split] = scorer.measure(alone, part.encoded, measuring)
            numbers = {"loss": latest[split].loss, **latest[split].scores}
            measured += [Measurement(split, name, value, step) for name, value in numbers.items()]
        return measured

    return epoch_end


@dataclass(frozen=True)
class _Work:
    """What the first process tells the others to do."""

    spec: FinetuneSpec
    task: Task
    given: Models
    context: RunContext
    resume: bool


def lead(
    spec: FinetuneSpec, task: Task, given: Models, context: RunContext, resume: bool
) -> Outcome:
    """`finetune`, in as many processes as this was started in."""
    distributed.send(_Work(spec, task, given, context.silent(), resume))
    return finetune(spec, task, given, context, resume)


def follow() -> None:
    """Take part in what the first process does, if it does anything."""
    # The first process is told to stop, and stops the others.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    told = distributed.receive()
    if told is None:
        return
    finetune(told.spec, told.task, told.given, told.context, told.resume)


@dataclass(frozen=True)
class _Start:
    """A model that is ready to train, and what must stay as it is."""

    parameters: dict[str, Tensor]
    constraint: Constraint
    masks: dict[str, Mask]
    grids: dict[str, Rounding]


def _start(
    spec: FinetuneSpec, model: torch.nn.Module, source: ModelSource, device: torch.device
) -> _Start:
    """Put weights where the regime starts them, on the device, and hold what it holds."""
    regime = REGIMES[spec.regime]
    on_grid = regime.holds == "grid"
    masked = regime.needs_mask or (on_grid and source.mask is not None)
    found = _masks_for(model, source) if masked and spec.schedule == "one-shot" else {}
    if device.type == "cpu" and spec.lora is None:
        loading.take_memory_(model)
    parameters = parameters_by_name(model)
    start_({name: parameters[name] for name in found}, found, regime, spec.seed)
    if distributed.is_sharded():
        distributed.shard(model, device)
        parameters = parameters_by_name(model)
    else:
        model.to(device)
    if not on_grid:
        return _Start(parameters, Constraint(parameters, found, regime), found, {})
    stored = quantization.load(source.folder / "grid.safetensors")
    names = match_names(model, stored)
    grids = {there: stored[name].to(device) for name, there in names.items()}
    return _Start(parameters, OnGrid(parameters, grids, found), found, grids)


def _adapters(
    spec: FinetuneSpec, model: torch.nn.Module, source: ModelSource, start: _Start, scorer: Scorer
) -> Adapters | None:
    """The adapters that train in place of the weights, if that was asked."""
    if spec.lora is None:
        return None
    chosen = adapters.targets(spec, source.folder)
    names = list(match_names(model, chosen).values())
    holds = REGIMES[spec.regime].holds
    free = {n: m.inverted() if holds == "large" else m for n, m in start.masks.items()}
    prefix = f"{cast(Any, model).base_model_prefix}."
    head = [n for n in start.parameters if not n.startswith(prefix)]
    return Adapters(
        model, spec, names, free if holds in ("small", "large") else {},
        head if isinstance(scorer, Head) else [],
    )  # fmt: skip


def _teacher(
    spec: FinetuneSpec,
    task: Task,
    source: ModelSource | None,
    records: Records,
    context: RunContext,
    accelerator: Accelerator,
) -> Teacher | None:
    if source is None:
        return None
    scorer = scorer_for(spec, task, source, context.tokens)
    model = scorer.load(source, new_head=False)
    encoded = scorer.encode(records)
    told = context.progress
    return Teacher(model, scorer, encoded, spec, accelerator, told)


def _extras(
    spec: FinetuneSpec,
    model: torch.nn.Module,
    given: Models,
    start: _Start,
    teacher: Teacher | None,
    tracking: Tracking | None,
) -> Extras:
    rounds, observe = None, None
    if spec.schedule == "iterative":
        chosen = plan.plan_of(spec.prune_spec(), given.start).chosen
        names = match_names(model, chosen)
        rounds = GradualPruning(spec, {there: chosen[name] for name, there in names.items()})
    if spec.dynamics:
        from_zero = bool(start.masks) and REGIMES[spec.regime].start == "zero"
        seen = dynamics.observer(model, given.pretrained, start.masks, from_zero=from_zero)

        def observe(step: int) -> list[Movement]:
            return seen.observe(start.parameters, step)

    return Extras(teacher, rounds, observe, tracking)


def _tracking(
    spec: FinetuneSpec, context: RunContext, first: int, notes: list[str]
) -> Tracking | None:
    """The trackers that were asked for; `notes` gets what becomes of them."""
    if not spec.log_with or not processes.is_first():
        return None
    run, folder = f"run-{context.folder.name}-{spec.task}", context.folder.parent / "exports"
    settings = spec.model_dump(mode="json")
    found = Tracking(spec.log_with, run, folder, settings, first, notes.append)
    notes += [f"{name}: {run} in {tracking_place(name, folder)}" for name in found.names]
    return found


def _remark(spec: FinetuneSpec, parts: int) -> str | None:
    if parts == 1:
        return None
    size, times = -(-spec.batch_size // parts), spec.gradient_accumulation * parts
    return f"out of memory: batches of {size}, {times} times accumulated"


def _compact_bits(
    spec: FinetuneSpec, masks_by_name: dict[str, Mask], start: _Start
) -> float | None:
    """Bits per prunable weight where zeros, or grids, are still there at the end."""
    if grids := start.grids:
        counts = {name: start.parameters[name].numel() for name in grids}
        bits = sum(
            packing.rounded_bits(x, masks_by_name.get(name), counts[name])
            for name, x in grids.items()
        )
        return bits / sum(counts.values())
    if (
        REGIMES[spec.regime].start == "zero"
        and REGIMES[spec.regime].holds == "small"
        and masks_by_name
    ):
        bits = sum(packing.sparse_bits(mask, 32) for mask in masks_by_name.values())
        return bits / sum(mask.total for mask in masks_by_name.values())
    return None


def _strata(records: Records, task: Task) -> tuple[float, ...]:
    """What a subset of the training examples keeps the shares of."""
    if task.kind in ("classification", "regression", "translation"):
        return records.labels
    return (0.0,) * len(records)


def _results(
    curve: list[Measurement], task: Task, examples_per_second: float | None
) -> list[Measurement]:
    """What a fine-tuning reports: the last epoch of each split, and the best of the main metric."""
    results = []
    for split in task.evaluation_splits:
        own = [m for m in curve if m.split == split]
        last = max(m.step or 0 for m in own)
        results += [Measurement(split, m.name, m.value) for m in own if m.step == last]
        main = [m for m in own if m.name == task.metric]
        lower = task.metric in LOWER_IS_BETTER
        best = min(main, key=lambda m: m.value) if lower else max(main, key=lambda m: m.value)
        results.append(Measurement(split, f"best_{task.metric}", best.value))
        results.append(Measurement(split, "best_epoch", main.index(best) + 1))
    results.append(Measurement("train", "loss", [m for m in curve if m.split == "train"][-1].value))
    if examples_per_second is not None:
        results.append(Measurement("train", "examples_per_second", examples_per_second))
    return results


def _masks_for(model: Any, source: ModelSource) -> dict[str, Mask]:
    """The source's masks under the names of this model's parameters.

    Raises:
        JdnaError: the mask does not belong to this model.
    """
    assert source.mask is not None
    stored = masks.load(source.mask)
    names = match_names(model, stored)
    parameters = parameters_by_name(model)
    for name, there in names.items():
        if tuple(parameters[there].shape) != stored[name].shape:
            shape = stored[name].shape
            raise RequestError(f"the mask of {name!r} has shape {shape}, the weight another")
    return {there: stored[name] for name, there in names.items()}


def _counted(name: str, weight: Tensor, mask: Mask) -> LayerSparsity:
    """What the weight is after training, counted."""
    return LayerSparsity(name, mask.shape, selection.count_nonzero(weight.detach()), mask.total)
