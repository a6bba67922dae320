"""Measuring models on a task: on one split (`evaluate`), and along a line (`interpolate`).

Each takes a spec and the models it names, leaves one whole folder, and returns plain numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.errors import RequestError
from jdna_cli.files import whole
from jdna_cli.pipelines.run_files import write_predictions, write_records
from jdna_cli.results import Measurement, Outcome
from jdna_cli.run_context import RunContext
from jdna_cli.scoring import timing
from jdna_cli.scoring.prompting import Asked
from jdna_cli.scoring.scorer import EvalContext, EvalResult, Scorer
from jdna_cli.scoring.setup import counted, prepare, scorer_for
from jdna_cli.sparsity import quantization
from jdna_cli.specs import EvalSpec, ModelSource
from jdna_cli.tasks.task import Task

LEAST_TOKENS = 256  # of a batch


def evaluate(
    spec: EvalSpec, task: Task, source: ModelSource, context: RunContext, *, trained: bool = False
) -> Outcome:
    """Measure `source` on one split and keep its answer to each example.

    A model that was `trained` on the task may read cut questions, as it did then.

    Raises:
        RequestError: a prompt is too long for its question, or for an option, to be read whole.
    """
    scorer = scorer_for(spec, task, source, context.tokens)
    context.phase("tokenizing")
    part = prepare(scorer, spec.split, context.data_dir)
    if isinstance(part.encoded, Asked) and part.encoded.torn and not trained:
        raise RequestError(part.encoded.torn)
    context.phase("loading the model")
    accelerator = devices.accelerator(spec.mixed_precision)
    offload = context.work / "offload"
    placing = Placing(spec.dtype, spec.device_map, offload)
    loaded = scorer.load(source, new_head=False, placing=placing)
    if spec.device_map is None:
        model = accelerator.prepare_model(loaded, evaluation_mode=True)
    else:
        # It is where it is to be already: accelerate moves its parts, or its inputs, as needed.
        model = loaded
    size = None if spec.batch_size == "auto" else spec.batch_size
    room = devices.tokens_at_once(accelerator.device, loaded.config)
    measuring = EvalContext(size, accelerator, context.progress, tokens=room)
    kind = devices.weights_of(loaded)
    grids = source.folder / "grid.safetensors"
    if grids.is_file():
        kind["bits"] = next(iter(quantization.load(grids).values())).grid.bits
    timed: tuple[Measurement, ...] = ()
    if spec.kernels != "dense":
        timed = (timing.use_semi_structured(model, scorer, part.encoded, measuring),)
    found = measured(scorer, model, part.encoded, measuring)
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
    with whole(context.folder, context.confirm) as target:
        write_predictions(target, spec.split, part.records, found)
        write_records(target, spec, outcome)
    return outcome


def measured(scorer: Scorer, model: nn.Module, encoded: Any, measuring: EvalContext) -> EvalResult:
    """Measure; where memory does not suffice, by smaller batches, if none were asked for."""
    while True:
        try:
            return scorer.measure(model, encoded, measuring)
        except torch.OutOfMemoryError:
            if measuring.batch_size is not None or measuring.tokens <= LEAST_TOKENS:
                raise
            measuring = replace(measuring, tokens=measuring.tokens // 2)
            torch.cuda.empty_cache()
