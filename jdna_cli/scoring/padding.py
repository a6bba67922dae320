"""Rows of tokens of different lengths as one batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def left_padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs (B, L) of rows of different lengths, so that all end together."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    found = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: value.to(device) for name, value in found.items()}


def right_padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs (B, L) of rows of different lengths, so that all begin together."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def accepted(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Those inputs that an architecture knows: some have no positions, or keep all logits."""
    optional = {"position_ids", "logits_to_keep"}
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in inputs.items() if name not in optional or name in known}
