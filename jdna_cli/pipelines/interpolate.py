"""The straight line between two models, and the loss barrier on it."""

from __future__ import annotations

import torch
from torch import Tensor

from jdna_cli.compute import devices
from jdna_cli.errors import RequestError
from jdna_cli.files import whole
from jdna_cli.pipelines.run_files import write_records
from jdna_cli.results import Measurement, Outcome, Point
from jdna_cli.run_context import RunContext
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.scoring.setup import counted, prepare, scorer_for
from jdna_cli.sparsity import connectivity
from jdna_cli.specs import InterpolateSpec, ModelSource
from jdna_cli.tasks.task import Task


def interpolate(
    spec: InterpolateSpec, task: Task, first: ModelSource, second: ModelSource, context: RunContext
) -> Outcome:
    """Measure models on the straight line from `first` to `second`, heads included."""
    scorer = scorer_for(spec, task, first, context.tokens)
    at_the_end = scorer_for(spec, task, second, context.tokens)
    context.phase("tokenizing")
    part = prepare(scorer, spec.split, context.data_dir)
    context.phase("loading the models")
    accelerator = devices.accelerator(spec.mixed_precision)
    device = accelerator.device
    model = scorer.load(first, new_head=False)
    other = at_the_end.load(second, new_head=False)
    if scorer.output_order != at_the_end.output_order:
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
        context.progress("interpolate", i + 1, spec.points, f"loss {here.loss:.3f}")
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
    with whole(context.folder, context.confirm) as target:
        write_records(target, spec, outcome)
    return outcome


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
