"""What jdna does to a model on a task: fine-tune, evaluate, interpolate (`pruning` prunes).

Each takes a spec and the models it names, leaves one whole folder, and returns plain numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from jdna_cli.engine import checkpoints, devices, models
from jdna_cli.engine.devices import Placing
from jdna_cli.engine.files import require_space, whole
from jdna_cli.engine.place import Place, write_predictions, write_records
from jdna_cli.engine.preparation import examples, prepare, scorer_for
from jdna_cli.engine.scorers.scorer import Evaluation, Measuring
from jdna_cli.engine.training import Training
from jdna_cli.errors import RequestError
from jdna_cli.results import LayerSparsity, Measurement, Outcome, Point
from jdna_cli.sparsity import connectivity, masks
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.regimes import REGIMES, Constraint, start_
from jdna_cli.specs import (
    EvalSpec,
    FinetuneSpec,
    InterpolateSpec,
    ModelSource,
)
from jdna_cli.tasks import Task
from jdna_cli.tasks.metrics import LOWER_IS_BETTER
from jdna_cli.tasks.records import Records
from jdna_cli.tasks.sampling import training_subset


def finetune(
    spec: FinetuneSpec, task: Task, source: ModelSource, place: Place, resume: bool
) -> Outcome:
    """Fine-tune `source` under the spec's regime, measure it after each epoch, keep the last.

    Args:
        spec: the request.
        task: the task it names.
        source: the pre-trained or pruned model, with a mask where the regime needs one.
        place: data and target folder; checkpoints go to its surroundings' work folder.
        resume: go on from the newest whole checkpoint there, if there is one.
    """
    regime = REGIMES[spec.regime]
    scorer = scorer_for(spec, task, source, place.tokens)
    full = examples(task, "train", scorer.conditions, place.data_dir)
    chosen = training_subset(
        _strata(full, task),
        task.kind != "regression",
        spec.data_fraction,
        spec.max_train_samples,
        spec.seed,
    )
    encoded = scorer.encode(full.chosen(chosen))
    held_out = {s: prepare(scorer, s, place.data_dir) for s in task.evaluation_splits}
    files = models.weight_files(source.folder)
    require_space(place.folder, models.size(files) * (8 if spec.checkpoint_every else 2))

    accelerator = devices.accelerator(spec.mixed_precision)
    set_seed(spec.seed)
    model = scorer.load(source, new_head=True, seed=spec.seed)
    found = _masks_for(model, source) if regime.needs_mask else {}
    parameters = models.parameters_by_name(model)
    start_({name: parameters[name] for name in found}, found, regime, spec.seed)
    model.to(accelerator.device)
    constraint = Constraint(parameters, found, regime)
    training = Training(model, encoded, scorer, spec, constraint, accelerator)
    notes: list[str] = []
    if resume:
        checkpoint, notes = checkpoints.newest(place.surroundings.work)
        if checkpoint:
            training.resume(checkpoint)
            notes.append(f"resumed at step {checkpoint.step} of {training.total}")

    latest: dict[str, Evaluation] = {}

    def epoch_end(epoch: int, step: int) -> list[Measurement]:
        measured = []
        for split, part in held_out.items():
            measuring = Measuring(spec.eval_batch_size, accelerator, step=step)
            latest[split] = scorer.measure(training.model, part.encoded, measuring)
            numbers = {"loss": latest[split].loss, **latest[split].scores}
            measured += [Measurement(split, name, value, step) for name, value in numbers.items()]
        return measured

    journal = training.run(place.surroundings, epoch_end)
    with whole(place.folder) as target:
        models.save(accelerator.unwrap_model(training.model), scorer.tokens.tokenizer, target)
        if found:
            masks.save(found, target / "mask.safetensors")
        for split, part in held_out.items():
            write_predictions(target, split, part.records, latest[split])
        trained = len(encoded) * spec.epochs / journal.seconds if journal.seconds else None
        outcome = Outcome(
            measurements=(*journal.measured, *_results(journal.measured, task, trained)),
            layers=tuple(_counted(name, parameters[name], mask) for name, mask in found.items()),
            bits=32,
            device=devices.name(accelerator.device),
            dtype="float32",
            protocol=latest[task.evaluation_splits[0]].protocol or None,
            notes=tuple(notes),
        )
        write_records(target, spec, outcome)
    return outcome


def _strata(records: Records, task: Task) -> tuple[float, ...]:
    """What a subset of the training examples keeps the shares of."""
    if task.kind in ("classification", "regression", "translation"):
        return records.labels
    return (0.0,) * len(records)


def _results(
    curve: list[Measurement], task: Task, examples_per_second: float | None
) -> list[Measurement]:
    """What a fine-tuning reports: the last epoch of each split, and the best of the main metric."""
    found = []
    for split in task.evaluation_splits:
        own = [m for m in curve if m.split == split]
        last = max(m.step or 0 for m in own)
        found += [Measurement(split, m.name, m.value) for m in own if m.step == last]
        main = [m for m in own if m.name == task.metric]
        lower = task.metric in LOWER_IS_BETTER
        best = min(main, key=lambda m: m.value) if lower else max(main, key=lambda m: m.value)
        found.append(Measurement(split, f"best_{task.metric}", best.value))
        found.append(Measurement(split, "best_epoch", main.index(best) + 1))
    found.append(Measurement("train", "loss", [m for m in curve if m.split == "train"][-1].value))
    if examples_per_second is not None:
        found.append(Measurement("train", "examples_per_second", examples_per_second))
    return found


def _masks_for(model: Any, source: ModelSource) -> dict[str, Mask]:
    """The source's masks under the names of this model's parameters.

    Raises:
        JdnaError: the mask does not belong to this model.
    """
    assert source.mask is not None
    stored = masks.load(source.mask)
    names = models.match(model, stored)
    parameters = models.parameters_by_name(model)
    for name, mask in stored.items():
        if tuple(parameters[names[name]].shape) != mask.shape:
            raise RequestError(f"the mask of {name!r} has shape {mask.shape}, the weight another")
    return {names[name]: mask for name, mask in stored.items()}


def evaluate(spec: EvalSpec, task: Task, source: ModelSource, place: Place) -> Outcome:
    """Measure `source` on one split and keep its answer to each example."""
    scorer = scorer_for(spec, task, source, place.tokens)
    part = prepare(scorer, spec.split, place.data_dir)
    accelerator = devices.accelerator(spec.mixed_precision)
    offload = place.surroundings.work / "offload"
    placing = Placing(spec.dtype, spec.device_map, offload)
    loaded = scorer.load(source, new_head=False, placing=placing)
    if spec.device_map is None:
        model = accelerator.prepare_model(loaded, evaluation_mode=True)
    else:
        # It is where it is to be already: accelerate moves its parts, or its inputs, as needed.
        model = loaded
    measuring = Measuring(spec.batch_size, accelerator, place.surroundings.progress)
    found = scorer.measure(model, part.encoded, measuring)
    numbers = {"loss": found.loss, **found.scores}
    weight = next(loaded.parameters())
    outcome = Outcome(
        measurements=tuple(Measurement(spec.split, n, v) for n, v in numbers.items()),
        bits=8 * weight.element_size(),
        device=devices.name(accelerator.device),
        dtype=str(weight.dtype).removeprefix("torch."),
        protocol=found.protocol or None,
    )
    with whole(place.folder) as target:
        write_predictions(target, spec.split, part.records, found)
        write_records(target, spec, outcome)
    return outcome


def interpolate(
    spec: InterpolateSpec, task: Task, first: ModelSource, second: ModelSource, place: Place
) -> Outcome:
    """Measure models on the straight line from `first` to `second`, heads included."""
    scorer = scorer_for(spec, task, first, place.tokens)
    at_the_end = scorer_for(spec, task, second, place.tokens)
    part = prepare(scorer, spec.split, place.data_dir)
    accelerator = devices.accelerator(spec.mixed_precision)
    device = accelerator.device
    model = scorer.load(first, new_head=False)
    other = at_the_end.load(second, new_head=False)
    if scorer.numbering != at_the_end.numbering:
        raise RequestError(f"{first.name} and {second.name} number the labels differently")
    # On the way every tensor of the model moves, so the ends are kept apart from it.
    a = {name: tensor.clone().to(device) for name, tensor in _tensors(model).items()}
    b = {name: tensor.to(device) for name, tensor in _tensors(other).items()}
    if difference := connectivity.first_difference(a, b):
        raise RequestError(f"no line between {first.name} and {second.name}: {difference}")
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    moving = _tensors(accelerator.unwrap_model(prepared))
    found = []
    for i in range(spec.points):
        alpha = i / (spec.points - 1)
        with torch.no_grad():
            connectivity.move_(moving, a, b, alpha)
        here = scorer.measure(prepared, part.encoded, Measuring(spec.batch_size, accelerator))
        found.append(Point(alpha, here.loss, here.scores[task.metric]))
        place.surroundings.progress("interpolate", i + 1, spec.points, f"loss {here.loss:.3f}")
    barrier = connectivity.barrier([p.alpha for p in found], [p.loss for p in found])
    outcome = Outcome(
        measurements=(Measurement(spec.split, "barrier", barrier),),
        points=tuple(found),
        bits=32,
        device=devices.name(device),
        dtype="float32",
        protocol=here.protocol or None,
    )
    with whole(place.folder) as target:
        write_records(target, spec, outcome)
    return outcome


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _counted(name: str, weight: Tensor, mask: Mask) -> LayerSparsity:
    """What the weight is after training, counted."""
    return LayerSparsity(name, mask.shape, int(torch.count_nonzero(weight.detach())), mask.total)
