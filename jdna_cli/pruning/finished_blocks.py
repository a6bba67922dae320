"""What a pruning by activations has settled: each finished block, on disk, to go on from.

The samples' way through a finished block is computed again from its settled weights, which takes
the forward pass alone; the result is that of a pruning that was never cut off, bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jdna_cli.files import sha256, whole
from jdna_cli.pruning.changes import Change
from jdna_cli.sparsity import masks
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.quantization import Grid, Quantized

_TENSORS, _STATE = "changes.safetensors", "state.json"


class FinishedBlocks:
    """The finished blocks of one request, below a folder of its run."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        grid: Grid | None,
        original: Callable[[str], Tensor] | None,
    ) -> None:
        """Set up.

        Args:
            folder: of what the run leaves until it is done.
            fingerprint: of the request: another's blocks are not taken.
            grid: of rounded weights; None where weights are pruned.
            original: the values before, by a matrix's name, where those that are kept stay what
                they were: then the masks alone are written.
        """
        self._folder, self._fingerprint, self._grid = folder, fingerprint, grid
        self._original = original

    def save(self, block: int, changes: Sequence[Change], notes: Sequence[str]) -> None:
        """Keep what has become of a block's matrices, and what is to be told of them."""
        tensors: dict[str, Tensor] = {}
        told: list[dict[str, Any]] = []
        for i, change in enumerate(changes):
            assert change.tensor is not None
            parts: dict[str, Tensor | None] = {}
            if self._original is None:
                parts["tensor"] = change.tensor
            if change.mask is not None:
                parts["mask"] = torch.from_numpy(change.mask.bits)
            if change.quantized is not None:
                own = change.quantized
                parts |= {"codes": own.codes, "scales": own.scales, "zeros": own.zeros}
            for name, tensor in parts.items():
                if tensor is not None:
                    tensors[f"{i}.{name}"] = tensor.cpu().contiguous()
            mask = change.mask
            told.append(
                {"name": change.name, "mask": None if mask is None else [mask.shape, mask.kept]}
            )
        shutil.rmtree(self._place(block), ignore_errors=True)  # one that is damaged, or another's
        with whole(self._place(block)) as target:
            save_file(tensors, target / _TENSORS)
            state = {"fingerprint": self._fingerprint, "changes": told, "notes": list(notes),
                     "sha256": sha256(target / _TENSORS)}  # fmt: skip
            (target / _STATE).write_text(json.dumps(state))

    def load(self, block: int) -> tuple[list[Change], list[str]] | None:
        """What was kept of a block; None where nothing was, or it is damaged or another's."""
        place = self._place(block)
        try:
            state = json.loads((place / _STATE).read_text())
            right = state["fingerprint"] == self._fingerprint
            if not right or sha256(place / _TENSORS) != state["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        tensors = load_file(place / _TENSORS)
        return [self._change(i, one, tensors) for i, one in enumerate(state["changes"])], state[
            "notes"
        ]

    def _place(self, block: int) -> Path:
        return self._folder / f"block-{block}"

    def _change(self, i: int, told: dict[str, Any], tensors: dict[str, Tensor]) -> Change:
        mask = quantized = None
        if told["mask"] is not None:
            shape, kept = told["mask"]
            mask = Mask(tensors[f"{i}.mask"].numpy(), tuple(shape), kept)
        if f"{i}.codes" in tensors:
            assert self._grid is not None
            codes, scales = tensors[f"{i}.codes"], tensors[f"{i}.scales"]
            quantized = Quantized(codes, scales, tensors.get(f"{i}.zeros"), self._grid)
        if self._original is None:
            return Change(told["name"], tensors[f"{i}.tensor"], mask, quantized)
        assert mask is not None
        weight = self._original(told["name"])
        masks.clear_(weight, mask)
        return Change(told["name"], weight, mask)
