"""Pruning and quantization: planned from a model's names and shapes, and written.

Where the weights alone decide, tensors stream from file to file, one at a time. Where activations
do, blocks are treated one after the other (`blockwise`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from jdna_cli.pruning.changes import Change, score_of
from jdna_cli.pruning.output import OutputFolder
from jdna_cli.pruning.plan import PrunePlan
from jdna_cli.sparsity import (
    masks,
    patterns,
    quantization,
    safetensors_io,
    selection,
)
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.sparsity.parallel import ahead

LARGE = 1 << 24  # weights; of a larger model parts alone are read to know about where the cutoff is
STRETCH, STRETCHES = 64, 1 << 14
PIECE = 1 << 20  # weights; a multiple of 8, so that bits of masks can be joined


def rounded(plan: PrunePlan) -> Iterator[Change]:
    """Round the chosen tensors to the nearest values of their grids."""

    def one(name: str) -> Change:
        return _rounded(plan, name, safetensors_io.read(plan.stored[name]), None)

    return ahead(one, plan.chosen)


def _rounded(plan: PrunePlan, name: str, weight: torch.Tensor, mask: masks.Mask | None) -> Change:
    assert plan.grid is not None
    upright = plan.chosen[name] == 1
    done = quantization.nearest(weight if upright else weight.T.contiguous(), plan.grid, name)
    decoded = done.decoded() if done.values is None else done.values
    return Change(name, decoded if upright else decoded.T.contiguous(), mask, done)


def masked(plan: PrunePlan, statistics: dict[str, Statistics]) -> Iterator[Change]:
    """Score the chosen tensors by the criterion, mask them by the pattern, and set to zero.

    What is left is rounded to the nearest values, where that was asked for.
    """
    spec = plan.spec
    total = sum(plan.stored[name].numel for name in plan.chosen)

    def scored(name: str, input_dim: int) -> patterns.Scored:
        weight = safetensors_io.read(plan.stored[name])
        known = statistics.get(name) or Statistics(name, input_dim, spec.pruning_seed)
        return patterns.Scored(name, score_of(plan.criterion, weight, known), input_dim, weight)

    def source() -> Iterator[patterns.Item]:
        return (functools.partial(scored, *own) for own in plan.chosen.items())

    def finish(x: patterns.Scored, mask: masks.Mask) -> Change:
        assert x.weight is not None
        masks.clear_(x.weight, mask)
        if spec.rounding == "nearest" and plan.grid is not None:
            return _rounded(plan, x.name, x.weight, mask)
        return Change(x.name, x.weight, mask)

    if plan.targets:
        return patterns.each_alone(source, lambda x: plan.targets[x.name], spec.scope, finish)
    assert spec.sparsity is not None
    sample = _sample(plan, total) if plan.criterion.parts else None
    return patterns.each_unstructured(source, spec.sparsity, spec.scope, finish, total, sample)


def _sample(plan: PrunePlan, total: int) -> selection.Source | None:
    """Stretches of the tensors of a large model, to know about where the cutoff is."""
    if total <= LARGE:
        return None

    def part(name: str) -> tuple[str, torch.Tensor]:
        stretch = safetensors_io.read_part(plan.stored[name], total // STRETCHES, STRETCH)
        known = Statistics(name, seed=plan.spec.pruning_seed)
        return name, score_of(plan.criterion, stretch, known)

    return lambda: (functools.partial(part, name) for name in plan.chosen)


def masked_in_pieces(plan: PrunePlan, folder: OutputFolder) -> Iterator[Change]:
    """As `masked`, of scores that a piece of a tensor has by itself: in the memory of pieces."""
    spec = plan.spec
    own = [
        (n, piece) for n in plan.chosen for piece in safetensors_io.pieces(plan.stored[n], PIECE)
    ]
    total = sum(piece.numel for _, piece in own)

    def scored(name: str, piece: safetensors_io.Entry) -> patterns.Scored:
        weight = safetensors_io.read(piece)
        offset = (piece.start - plan.stored[name].start) // piece.bytes_each
        known = Statistics(name, seed=spec.pruning_seed, offset=offset)
        return patterns.Scored(name, score_of(plan.criterion, weight, known), 0, weight)

    def source() -> Iterator[patterns.Item]:
        return (functools.partial(scored, *one) for one in own)

    def finish(x: patterns.Scored, mask: masks.Mask) -> tuple[torch.Tensor, masks.Mask, int]:
        assert x.weight is not None
        masks.clear_(x.weight, mask)
        return x.weight, mask, selection.count_nonzero(x.weight)

    assert spec.sparsity is not None
    done = patterns.each_unstructured(
        source, spec.sparsity, spec.scope, finish, total, _sample(plan, total)
    )
    parts: list[masks.Mask] = []
    left = 0
    for (name, piece), (weight, mask, nonzero) in zip(own, done, strict=True):
        folder.put_piece(piece, weight)
        parts.append(mask)
        left += nonzero
        entry = plan.stored[name]
        if piece.end == entry.end:
            yield Change(name, None, masks.joined(parts, entry.shape), counted=left)
            parts, left = [], 0
