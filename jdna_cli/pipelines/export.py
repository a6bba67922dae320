"""Export: a model as another runtime's file, its outputs compared, and the time of both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from jdna_cli.compute import devices
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.files import require_space, whole
from jdna_cli.models import architecture, model_files, runtimes
from jdna_cli.models.runtimes import Call, Graph, Inputs
from jdna_cli.pipelines.run_files import write_records
from jdna_cli.results import Measurement, Outcome
from jdna_cli.run_context import RunContext
from jdna_cli.specs import ExportSpec, ModelSource

AGREES = 1e-3  # of the largest output: what other orders of float32 sums may make
WARM_UP, PASSES = 5, 25  # of a block: that do not count, and that do
PAUSE = 0.5  # seconds between blocks: threads of one runtime spin on for a while after a pass


def check(spec: ExportSpec, source: ModelSource) -> None:
    """Find out whether the runtime is there, and the model has so many positions.

    Raises:
        RequestError: says what is wrong.
    """
    runtimes.runtime(spec.format)
    most = architecture.architecture(source.folder).positions
    if most is not None and spec.length > most:
        raise RequestError(f"--length: {source.name} has positions for {most} tokens")


def export(spec: ExportSpec, source: ModelSource, context: RunContext) -> Outcome:
    """Write `source` for another runtime, and find out whether that gives what torch gives.

    Raises:
        JdnaError: it gives something else.
    """
    check(spec, source)
    runtime = runtimes.runtime(spec.format)
    dense = model_files.size(model_files.weight_files(source.folder))
    require_space(context.folder, 2 * dense)
    context.phase("loading the model")
    graph = runtimes.graph_of(source)
    with whole(context.folder, context.confirm) as target:
        context.phase(f"writing for {runtime.format.runtime}")
        runtime.write(graph, target)
        written = model_files.size(target.iterdir())
        context.phase(f"opening by {runtime.format.runtime}")
        call = runtime.open(target, torch.get_num_threads())
        difference = _difference(graph, call, spec, runtime.format.runtime)
        there, here = _times(graph, call, spec, context)
        outcome = Outcome(
            measurements=(
                Measurement("model", "bytes", written),
                Measurement("model", "dense_bytes", dense),
                Measurement("time", "kernel_difference", difference),
                *_latency(there, ""),
                *_latency(here, "torch_"),
            ),
            bits=32,
            device=devices.name(torch.device("cpu")),
            dtype="float32",
        )
        model_files.copy_companions(source.folder, target)
        write_records(target, spec, outcome)
    return outcome


def _difference(graph: Graph, call: Call, spec: ExportSpec, name: str) -> float:
    """The largest difference of two outputs, over batches of other shapes than the graph saw."""
    found, highest = 0.0, 0.0
    for shape, padded in (((1, spec.length), 0), ((3, max(2, spec.length // 2)), 1)):
        inputs = graph.example(shape, seed=1, padded=padded)
        with torch.inference_mode():
            own = graph(*inputs.values())
        other = call(inputs)
        if other.shape != own.shape:
            raise JdnaError(f"{name} gives {list(other.shape)} where torch gives {list(own.shape)}")
        mask = inputs["attention_mask"]
        if own.shape[:-1] == mask.shape and not graph.choices:  # of padding nothing is said
            own, other = own[mask == 1], other[mask == 1]
        apart = (own - other).abs()
        found = max(found, float(apart.max())) if bool(torch.isfinite(apart).all()) else torch.inf
        highest = max(highest, float(own.abs().max()))
    if not found <= AGREES * highest:
        raise JdnaError(
            f"{name} gives other outputs than torch: up to {found:.2g} apart, where outputs reach "
            f"{highest:.2g}"
        )
    return found


def _times(
    graph: Graph, call: Call, spec: ExportSpec, context: RunContext
) -> tuple[list[float], list[float]]:
    """Seconds of passes of one text there and in torch, in four blocks: torch, two there, torch."""
    inputs: Inputs = graph.example((1, spec.length), seed=2)

    def torch_pass(inputs: Inputs) -> Tensor:
        output: Tensor = graph(*inputs.values())
        return output

    there: list[float] = []
    here: list[float] = []
    blocks = ((torch_pass, here), (call, there), (call, there), (torch_pass, here))
    with torch.inference_mode():
        for i, (run, seconds) in enumerate(blocks):
            time.sleep(PAUSE)
            for _ in range(WARM_UP):
                run(inputs)
            seconds += [_seconds(run, inputs) for _ in range(PASSES)]
            context.progress("time", i + 1, len(blocks), "")
    return there, here


def _seconds(run: Callable[[Inputs], Tensor], inputs: Inputs) -> float:
    began = time.perf_counter()
    run(inputs)
    return time.perf_counter() - began


def _latency(seconds: list[float], name: str) -> tuple[Measurement, ...]:
    tenths = statistics.quantiles(seconds, n=10)
    numbers = {
        "latency_ms": statistics.median(seconds),
        "latency_ms_p10": tenths[0],
        "latency_ms_p90": tenths[-1],
    }
    return tuple(Measurement("time", f"{name}{n}", 1000 * x) for n, x in numbers.items())
