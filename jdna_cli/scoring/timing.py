"""What sparsity buys in time: latency and throughput of forward passes, with their spread.

A pass over an example's inputs (for a model that writes: its prompt and right answer, without
decoding). Nothing is assumed of zeros: a dense kernel multiplies them like any value.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from jdna_cli.errors import RequestError
from jdna_cli.results import Measurement
from jdna_cli.scoring.scorer import EvalContext, Scorer
from jdna_cli.specs import EvalSpec, ModelSource

WARM_UP = 5  # passes that do not count
SINGLE = 50  # passes of one example
ROUNDS = 5  # passes over the same batches
BATCHES = 8
AGREES = 0.1  # of the largest output: what rounding to 16 bits may make in a deep model


def measure(
    model: nn.Module, scorer: Scorer, encoded: Any, measuring: EvalContext
) -> tuple[Measurement, ...]:
    """Latency of one example (ms: median, 10 % and 90 % points) and throughput (examples/s).

    Args:
        model: prepared, in evaluation mode.
        scorer: encoded the examples.
        encoded: the examples.
        measuring: device, precision, and the batch size of the throughput.
    """
    device = measuring.accelerator.device

    def forward(indices: list[int]) -> None:
        scorer.outputs(model, encoded, indices, device)

    count = len(encoded)
    with torch.inference_mode():
        for i in range(WARM_UP):
            forward([i % count])
        single = [_seconds(lambda i=i: forward([i % count]), device) for i in range(SINGLE)]  # type: ignore[misc]
        batches = list(measuring.batches(encoded.lengths))
        chosen = batches[:: max(1, len(batches) // BATCHES)][:BATCHES]
        examples = sum(len(batch) for batch in chosen)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        def all_batches() -> None:
            for batch in chosen:
                forward(batch)

        all_batches()
        rates = [examples / _seconds(all_batches, device) for _ in range(ROUNDS)]
    tenths = statistics.quantiles(single, n=10)
    found = {
        "latency_ms": 1000 * statistics.median(single),
        "latency_ms_p10": 1000 * tenths[0],
        "latency_ms_p90": 1000 * tenths[-1],
        "throughput": statistics.median(rates),
        "throughput_sd": statistics.stdev(rates),
    }
    if device.type == "cuda":
        found["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return tuple(Measurement("time", name, value) for name, value in found.items())


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def check_kernels(spec: EvalSpec, source: ModelSource, pattern: str | None) -> None:
    """Refuse semi-structured kernels where they cannot run.

    Raises:
        RequestError: says what they need.
    """
    if spec.kernels == "dense":
        return
    if not torch.cuda.is_available():
        raise RequestError("--kernels: semi-structured kernels need a GPU, use dense")
    if spec.dtype not in ("float16", "bfloat16"):
        raise RequestError("--kernels: semi-structured kernels need --dtype float16 or bfloat16")
    if pattern != "2:4" or source.mask is None:
        raise RequestError(f"--kernels: {source.name} was not pruned by --pattern 2:4")


def use_semi_structured(
    model: nn.Module, scorer: Scorer, encoded: Any, measuring: EvalContext
) -> Measurement:
    """Turn 2:4 weights into PyTorch's semi-structured form; returns the largest difference.

    Raises:
        RequestError: no weight has a shape that the kernels take, or what they give is not what
            dense ones give.
    """
    from torch.sparse import to_sparse_semi_structured

    device = measuring.accelerator.device
    first = list(range(min(8, len(encoded))))
    turned = 0
    with torch.inference_mode():
        before = scorer.outputs(model, encoded, first, device).float()
        for module in model.modules():
            if isinstance(module, nn.Linear) and _fits(module.weight):
                sparse = to_sparse_semi_structured(module.weight.detach().contiguous())
                module.weight = nn.Parameter(sparse, requires_grad=False)
                # The kernels give transposed memory, which the next ones may read wrongly.
                module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
                module.register_forward_hook(lambda _, __, output: output.contiguous())
                turned += 1
        if not turned:
            raise RequestError("--kernels: no weight has a shape that the kernels take")
        after = scorer.outputs(model, encoded, first, device).float()
    difference, highest = float((before - after).abs().max()), float(before.abs().max())
    if not difference <= AGREES * highest:
        raise RequestError(
            f"--kernels: the semi-structured kernels of torch {torch.__version__} give other "
            f"outputs than dense ones: up to {difference:.2g} apart, where outputs reach "
            f"{highest:.2g}; use dense"
        )
    return Measurement("time", "kernel_difference", difference)


def _fits(weight: torch.Tensor) -> bool:
    """Whether a weight is 2:4, and of a shape that the kernels take."""
    rows, columns = weight.shape
    if rows % 32 or columns % 64:
        return False
    return bool(((weight.view(-1, 4) != 0).sum(1) <= 2).all())
