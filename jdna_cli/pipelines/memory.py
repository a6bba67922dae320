"""What memory a request will take, and where: from names and shapes alone, before anything runs.

Weights, gradients and moments are counted; activations are estimated, to about a factor of two.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from jdna_cli.compute import devices
from jdna_cli.models import model_files
from jdna_cli.pruning.plan import PrunePlan
from jdna_cli.results import Need
from jdna_cli.sparsity import safetensors_io
from jdna_cli.specs import EvalSpec, FinetuneSpec, ModelSource

# Numbers of a layer that training keeps for each token, per hidden dimension: Korthikanti et al.
# 2022 (arXiv 2205.05198), equation 2 (bytes of half precision), without the squares of attention.
KEPT = 34 / 2
MEMORY, DISK = "memory", "disk"


def _device() -> str:
    return "GPU" if torch.cuda.is_available() else MEMORY


def _weights(source: ModelSource) -> tuple[int, int]:
    """Numbers of all weights, and their bytes in the files."""
    entries = safetensors_io.entries(model_files.weight_files(source.folder)).values()
    return sum(e.numel for e in entries), sum(e.numel * e.bytes_each for e in entries)


def _text_config(source: ModelSource) -> Any:
    config = model_files.config_of(source.folder)
    return getattr(config, "text_config", config)


def of_pruning(plan: PrunePlan) -> list[Need]:
    """Of a pruning: tensor by tensor, or block by block with its calibration."""
    stored = plan.stored.values()
    count, written = sum(e.numel for e in stored), sum(e.numel * e.bytes_each for e in stored)
    needs = [Need("the pruned model", written, DISK)]
    largest = max(plan.stored[name].numel for name in plan.chosen)
    if not plan.calibrated:
        return [Need("one tensor at a time, with its scores", 12 * largest, MEMORY), *needs]
    gpu = _device() == "GPU"
    weights = written if gpu else 4 * count
    spec, config = plan.spec, _text_config(plan.source)
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    tokens = spec.calibration_samples * spec.calibration_length
    between = tokens * int(getattr(config, "hidden_size", 0)) * (weights // count)
    found = [Need("the model", weights, MEMORY)]
    if plan.gradients:
        found += [Need("its gradients, and their sums", 2 * weights, _device())]
        return [*found, *needs]
    widths = [plan.stored[name].shape[dim] for name, dim in plan.chosen.items()]
    per_block = max(1, len(widths) // layers)
    if plan.needs_products:
        squares = sum(w * w for w in sorted(widths, reverse=True)[:per_block])
        products = 4 * squares + 16 * max(widths) ** 2  # those that are factorised, in float64
        found.append(Need("products of a block's inputs, and their factors", products, _device()))
    if gpu:
        found.append(Need("one block at a time", weights // layers, "GPU"))
    found.append(Need(f"samples between blocks, {tokens:,} tokens", between, _device()))
    kept = sum(plan.stored[name].numel * plan.stored[name].bytes_each for name in plan.chosen)
    return [*found, *needs, Need("finished blocks, until the run is done", kept, DISK)]


def of_measuring(spec: EvalSpec, source: ModelSource) -> list[Need]:
    """Of an evaluation: weights, and the activations of one batch."""
    count, written = _weights(source)
    each = {"float32": 4, "bfloat16": 2, "float16": 2}.get(spec.dtype, max(1, written // count))
    config = _text_config(source)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokens = devices.tokens_at_once(device, config)
    if spec.batch_size != "auto":
        tokens = spec.batch_size * spec.max_length
    return [
        Need("weights", count * each, _device()),
        Need(f"activations of {tokens:,} tokens", tokens * devices.bytes_of_token(config),
             _device()),
    ]  # fmt: skip


def of_finetuning(spec: FinetuneSpec, source: ModelSource) -> list[Need]:
    """Of a fine-tuning: weights, gradients, moments, activations, and what is written."""
    count, _ = _weights(source)
    config = _text_config(source)
    hidden, layers = (int(getattr(config, n, 0)) for n in ("hidden_size", "num_hidden_layers"))
    tokens = spec.batch_size * spec.max_length
    each = 4 if spec.mixed_precision == "no" else 2
    kept = math.ceil(tokens * hidden * layers * KEPT * each)
    moving = count if spec.lora is None else _of_adapters(spec, source)
    return [
        Need("weights", 4 * count, _device()),
        *([Need("adapted weights, as they are used", 4 * count, _device())] if spec.lora else []),
        Need("gradients", 4 * moving, _device()),
        Need("moments of AdamW", 8 * moving, _device()),
        Need(f"activations of {tokens:,} tokens", kept, _device()),
        Need("the model", 4 * count, DISK),
        *([Need("two checkpoints", 24 * moving, DISK)] if spec.checkpoint_every else []),
    ]


def _of_adapters(spec: FinetuneSpec, source: ModelSource) -> int:
    """Numbers of the adapters; a head's are few."""
    from jdna_cli.training import adapters

    assert spec.lora is not None
    stored = safetensors_io.entries(model_files.weight_files(source.folder))
    return sum(
        spec.lora * sum(stored[name].shape) for name in adapters.targets(spec, source.folder)
    )
