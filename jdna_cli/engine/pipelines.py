"""The four things jdna does to a model: prune, fine-tune, evaluate, interpolate.

Each takes a spec and the models it names, leaves one whole folder, and returns plain numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from jdna_cli.engine import checkpoints, devices, languages, models, prunable, scorers
from jdna_cli.engine.devices import Placing
from jdna_cli.engine.files import require_space, whole
from jdna_cli.engine.scorers.scorer import Evaluation, Measuring, Scorer
from jdna_cli.engine.tokens import Tokens
from jdna_cli.engine.training import Surroundings, Training
from jdna_cli.errors import RequestError
from jdna_cli.results import LayerSparsity, Measurement, Outcome, Planned, Point
from jdna_cli.sparsity import connectivity, criteria, masks, patterns
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.regimes import REGIMES, Constraint, start_
from jdna_cli.specs import (
    EvalSpec,
    FinetuneSpec,
    InterpolateSpec,
    ModelSource,
    PruneSpec,
    Spec,
    parse_pattern,
)
from jdna_cli.tasks import Task, conditions
from jdna_cli.tasks.conditions import Conditions
from jdna_cli.tasks.metrics import LOWER_IS_BETTER
from jdna_cli.tasks.records import Records, load
from jdna_cli.tasks.sampling import training_subset


@dataclass(frozen=True)
class Place:
    """Where a run reads its task's data and leaves its files."""

    folder: Path
    data_dir: Path | None
    surroundings: Surroundings
    tokens: Path | None = None  # where tokenised data sets are remembered


# ------------------------------------------------------------------------------------------ prune


def check_prune(spec: PruneSpec, source: ModelSource) -> list[prunable.Prunable]:
    """The tensors that `spec` would prune in `source`, from names and shapes alone.

    Raises:
        RequestError: there are none, the pattern fits one of them not, or the criterion is unknown.
    """
    shapes, config = _described(source)
    criteria.load(spec.criterion)
    if spec.pattern and spec.scope != "global":
        raise RequestError(f"--scope: {spec.pattern} competes within groups, it has no scope")
    chosen = prunable.select(config, list(shapes), spec.include, spec.exclude)
    if spec.pattern:
        prunable.check_pattern(shapes, chosen, parse_pattern(spec.pattern)[1])
    return chosen


def plan_prune(spec: PruneSpec, source: ModelSource) -> list[Planned]:
    """Every tensor of the model's file, and why those that would not be pruned would not."""
    chosen = {tensor.name for tensor in check_prune(spec, source)}
    shapes, config = _described(source)
    reasons = prunable.reasons(config, list(shapes))
    asked = "left out by --include or --exclude"
    return [
        Planned(name, shape, None if name in chosen else reasons[name] or asked)
        for name, shape in sorted(shapes.items())
    ]


def _described(source: ModelSource) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Shapes of all tensors of a model's files, and its configuration."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in models.weight_files(source.folder):
        with safe_open(file, framework="pt") as handle:
            shapes |= {n: tuple(handle.get_slice(n).get_shape()) for n in handle.keys()}  # noqa: SIM118
    return shapes, models.config_of(source.folder)


def prune(spec: PruneSpec, source: ModelSource, place: Place) -> Outcome:
    """Write `source` with the chosen weights set to zero; every other byte of it as it was."""
    chosen = check_prune(spec, source)
    files = models.weight_files(source.folder)
    require_space(place.folder, models.size(files))
    with ExitStack() as stack:
        handles = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        where = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
        found = choose_masks(spec, chosen, where)
        with whole(place.folder) as target:
            for file, handle in zip(files, handles, strict=True):
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
                for name in tensors.keys() & found.keys():
                    tensors[name] = tensors[name].clone(memory_format=torch.contiguous_format)
                    masks.clear_(tensors[name], found[name])
                save_file(tensors, target / file.name, metadata=handle.metadata())
            bits = 8 * min(where[p.name].get_tensor(p.name).element_size() for p in chosen)
            models.copy_companions(source.folder, target)
            if (index := source.folder / models.INDEX).is_file():
                (target / models.INDEX).write_bytes(index.read_bytes())
            masks.save(found, target / "mask.safetensors")
            layers = tuple(_layer(name, mask) for name, mask in found.items())
            outcome = Outcome(layers=layers, bits=bits, device="cpu")
            write_records(target, spec, outcome)
    return outcome


def choose_masks(
    spec: PruneSpec, chosen: list[prunable.Prunable], where: dict[str, Any]
) -> dict[str, Mask]:
    """Score the chosen tensors by the criterion, and turn scores into masks by the pattern."""
    criterion = criteria.load(spec.criterion)

    def scored() -> Iterator[patterns.Scored]:
        for tensor in chosen:
            weight: Tensor = where[tensor.name].get_tensor(tensor.name)
            score = criterion.score(weight, criteria.Statistics(tensor.name))
            yield patterns.Scored(tensor.name, score, tensor.input_dim)

    if spec.pattern:
        return patterns.n_of_m(scored, *parse_pattern(spec.pattern))
    assert spec.sparsity is not None
    return patterns.unstructured(scored, spec.sparsity, spec.scope)


# --------------------------------------------------------------------------------------- finetune


# A spec that measures a task.
Measured = FinetuneSpec | EvalSpec | InterpolateSpec


def conditions_of(spec: Measured, task: Task) -> Conditions:
    """The knobs of a request.

    Raises:
        RequestError: the task has no such direction of translation.
    """
    return Conditions(
        options=spec.options,
        shots=getattr(spec, "shots", 0),
        book=spec.book,
        context_words=spec.context_words,
        pairs=conditions.pairs_of(task, spec.pairs),
        chat=getattr(spec, "chat", False),
        seed=spec.seed,
    )


def scorer_for(
    spec: Measured, task: Task, source: ModelSource, cache: Path | None = None
) -> Scorer:
    """What trains `source` on the task and measures it there.

    Raises:
        RequestError: such a model cannot do such a task, or the languages are not its own.
    """
    config = models.config_of(source.folder)
    fitting = scorers.choose(task, config)
    tokenizer = models.tokenizer_of(source.folder)
    put = conditions_of(spec, task)
    languages.check(tokenizer, put.pairs)
    limit = models.longest(config)
    length = spec.max_length if limit is None else min(spec.max_length, limit)
    return fitting(
        task,
        put,
        Tokens(tokenizer, cache),
        causal=scorers.form_of(config) == scorers.DECODER,
        max_length=length,
        stride=getattr(spec, "stride", None),
    )


@dataclass(frozen=True)
class Prepared:
    """Examples under the request's conditions, and as tokens."""

    records: Records
    encoded: Any


def examples(task: Task, split: str, put: Conditions, data_dir: Path | None) -> Records:
    """The examples of one split under the request's conditions.

    Raises:
        RequestError: the data are not what the task needs, or cannot be put under them.
    """
    return conditions.apply(task, load(task, split, data_dir), put)


def prepare(scorer: Scorer, split: str, data_dir: Path | None) -> Prepared:
    """Read, check and tokenise one split, with its shots."""
    task, put = scorer.task, scorer.conditions
    records = examples(task, split, put, data_dir)
    shown = None
    if put.shots:
        shown = conditions.shots(task, examples(task, "train", put, data_dir), put)
    return Prepared(records, scorer.encode(records, shown))


def check_finetune(
    spec: FinetuneSpec, task: Task, source: ModelSource, data_dir: Path | None
) -> None:
    """Find what is wrong with a request before anything is computed.

    Raises:
        RequestError: the model, its tokenizer, the task's data, or the precision will not do.
    """
    check_measuring(spec, task, data_dir, task.evaluation_splits[0], source)
    for split in ("train", *task.evaluation_splits):
        examples(task, split, conditions_of(spec, task), data_dir)
    if spec.prunes:
        check_prune(spec.prune_spec(), source)


def check_measuring(
    spec: Measured, task: Task, data_dir: Path | None, split: str, *sources: ModelSource
) -> None:
    """Find what is wrong with models, conditions and precision before models are loaded.

    Raises:
        RequestError: a model or its tokenizer is missing or damaged, cannot do the task, or the
            task cannot be put under the conditions.
    """
    devices.check_precision(spec.mixed_precision)
    put = conditions_of(spec, task)
    conditions.check(task, put, split, data_dir)
    for source in sources:
        models.weight_files(source.folder)
        scorer_for(spec, task, source)


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
            _write_predictions(target, split, part.records, latest[split])
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


# ---------------------------------------------------------------------------- eval and interpolate


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
        _write_predictions(target, spec.split, part.records, found)
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


# ---------------------------------------------------------------------------------------- records


def _layer(name: str, mask: Mask) -> LayerSparsity:
    return LayerSparsity(name, mask.shape, mask.kept, mask.total)


def _counted(name: str, weight: Tensor, mask: Mask) -> LayerSparsity:
    """What the weight is after training, counted."""
    return LayerSparsity(name, mask.shape, int(torch.count_nonzero(weight.detach())), mask.total)


def _write_predictions(target: Path, split: str, records: Records, found: Evaluation) -> None:
    """One JSON line per example: its name, its label, and the model's answer."""
    if not found.rows:
        return
    with (target / f"predictions-{split}.jsonl").open("w", encoding="utf-8") as file:
        for name, row in zip(records.ids, found.rows, strict=True):
            file.write(json.dumps({"id": name, **row}, ensure_ascii=False) + "\n")


def write_records(target: Path, spec: Spec, outcome: Outcome) -> None:
    """`spec.json` and `metrics.jsonl`, so that a folder tells what it is without the database."""
    asked = {"kind": spec.kind, **spec.model_dump(mode="json"), "versions": devices.versions()}
    (target / "spec.json").write_text(json.dumps(asked, indent=2) + "\n")
    with (target / "metrics.jsonl").open("w") as file:
        for m in outcome.measurements:
            row = {"split": m.split, "name": m.name, "value": m.value, "step": m.step}
            file.write(json.dumps(row) + "\n")
        for p in outcome.points:
            row = {"alpha": p.alpha, "loss": p.loss, "score": p.score}
            file.write(json.dumps(row) + "\n")
