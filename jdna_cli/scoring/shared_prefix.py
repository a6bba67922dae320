"""Prompts that begin alike, as those with the same shots do: what they share is read once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jdna_cli.scoring.padding import accepted, left_padded

WORTH = 128  # tokens that must be spared


def read(
    model: Any, rows: Sequence[list[int]], pad: int, device: torch.device, own: int = 1
) -> tuple[dict[str, Any], int]:
    """Left-padded inputs of a decoder, and how many tokens of each row were read already.

    The keys and values of the shared beginning go with the inputs, whose mask covers all of a row:
    beginning, padding, and the rest. Nothing is read beforehand where too little would be spared,
    where gradients are wanted, or where a model does not place tokens by their positions. `own`
    tokens of each row at least are left to be read.
    """
    shared = min(min(map(len, rows)) - own, _alike(rows))
    if not torch.is_inference_mode_enabled() or (len(rows) - 1) * shared < WORTH:
        return left_padded(rows, pad, device), 0
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return left_padded(rows, pad, device), 0
    begun = {
        "input_ids": torch.tensor([rows[0][:shared]], device=device),
        "use_cache": True,
        "logits_to_keep": 1,
    }
    cache = getattr(model(**accepted(model, begun)), "past_key_values", None)
    layers = getattr(cache, "layers", ())
    if cache is None or not layers or any(type(x).__name__ != "DynamicLayer" for x in layers):
        return left_padded(rows, pad, device), 0  # it forgets, or keeps no keys and values
    cache.batch_repeat_interleave(len(rows))
    rest = left_padded([row[shared:] for row in rows], pad, device)
    before: Tensor = torch.ones(len(rows), shared, dtype=torch.int64, device=device)
    return {
        "input_ids": rest["input_ids"],
        "attention_mask": torch.cat([before, rest["attention_mask"]], 1),
        "position_ids": rest["position_ids"] + shared,
        "past_key_values": cache,
    }, shared


def _alike(rows: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with."""
    first, last = min(rows), max(rows)
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
