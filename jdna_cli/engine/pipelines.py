"""Measuring models on a task: on one split (`evaluate`), and along a line (`interpolate`).

Each takes a spec and the models it names, leaves one whole folder, and returns plain numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jdna_cli.engine import devices, timing
from jdna_cli.engine.devices import Placing
from jdna_cli.engine.files import whole
from jdna_cli.engine.place import Place, write_predictions, write_records
from jdna_cli.engine.preparation import counted, prepare, scorer_for
from jdna_cli.engine.scorers.scorer import EvalContext
from jdna_cli.engine.scorers.writer import Asked
from jdna_cli.errors import RequestError
from jdna_cli.results import Measurement, Outcome, Point
from jdna_cli.sparsity import connectivity, quantization
from jdna_cli.specs import EvalSpec, InterpolateSpec, ModelSource
from jdna_cli.tasks import Task


def evaluate(
    spec: EvalSpec, task: Task, source: ModelSource, place: Place, *, trained: bool = False
) -> Outcome:
    """Measure `source` on one split and keep its answer to each example.

    A model that was `trained` on the task may read cut questions, as it did then.

    Raises:
        RequestError: a prompt is too long for its question, or for an option, to be read whole.
    """
    scorer = scorer_for(spec, task, source, place.tokens)
    place.surroundings.phase("tokenizing")
    part = prepare(scorer, spec.split, place.data_dir)
    if isinstance(part.encoded, Asked) and part.encoded.torn and not trained:
        raise RequestError(part.encoded.torn)
    place.surroundings.phase("loading the model")
    accelerator = devices.accelerator(spec.mixed_precision)
    offload = place.surroundings.work / "offload"
    placing = Placing(spec.dtype, spec.device_map, offload)
    loaded = scorer.load(source, new_head=False, placing=placing)
    if spec.device_map is None:
        model = accelerator.prepare_model(loaded, evaluation_mode=True)
    else:
        # It is where it is to be already: accelerate moves its parts, or its inputs, as needed.
        model = loaded
    measuring = EvalContext(spec.batch_size, accelerator, place.surroundings.progress)
    kind = devices.weights_of(loaded)
    grids = source.folder / "grid.safetensors"
    if grids.is_file():
        kind["bits"] = next(iter(quantization.load(grids).values())).grid.bits
    timed: tuple[Measurement, ...] = ()
    if spec.kernels != "dense":
        timed = (timing.use_semi_structured(model, scorer, part.encoded, measuring),)
    found = scorer.measure(model, part.encoded, measuring)
    if spec.time:
        timed += timing.measure(model, scorer, part.encoded, measuring)
    numbers = {"loss": found.loss, **found.scores}
    outcome = Outcome(
        measurements=(*(Measurement(spec.split, n, v) for n, v in numbers.items()), *timed),
        **kind,
        device=devices.name(accelerator.device),
        protocol=found.protocol or None,
        examples={spec.split: counted(part.records)},
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
    place.surroundings.phase("tokenizing")
    part = prepare(scorer, spec.split, place.data_dir)
    place.surroundings.phase("loading the models")
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
        here = scorer.measure(prepared, part.encoded, EvalContext(spec.batch_size, accelerator))
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
        examples={spec.split: counted(part.records)},
    )
    with whole(place.folder) as target:
        write_records(target, spec, outcome)
    return outcome


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
