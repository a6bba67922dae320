"""What fine-tuning does to the small and to the large weights, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jdna_cli.models import model_files
from jdna_cli.models.parameters import match_names
from jdna_cli.pruning import prunable
from jdna_cli.results import Movement
from jdna_cli.sparsity import patterns, safetensors_io, selection, shards
from jdna_cli.sparsity.masks import Mask
from jdna_cli.specs import ModelSource

HALF = 0.5  # where nothing is pruned, the small weights are the smaller half of all


@dataclass(frozen=True)
class Observer:
    """Compares weights with their pre-trained values, which are read when they are needed."""

    pretrained: dict[str, safetensors_io.Entry]  # by name of the parameter in training
    small: dict[str, Mask]  # False: one of the small weights
    names: dict[str, str]  # by name of the parameter: its name in the pre-trained file
    from_zero: bool  # whether the small weights start at zero

    def observe(self, weights: Mapping[str, Tensor], step: int) -> list[Movement]:
        """All tensors as they are after `step`."""
        return [
            self._one(name, shards.whole(weights[name]).cpu().float(), step) for name in self.small
        ]

    def _one(self, name: str, now: Tensor, step: int) -> Movement:
        before = safetensors_io.read(self.pretrained[name]).float()
        large = self.small[name].unpacked()
        small, scale = ~large, float(before.square().mean().sqrt()) or 1.0
        moved = (now - before).square()
        count = int(small.sum())
        there = now[small] if self.from_zero else None
        regrown = there[there != 0] if there is not None else None
        return Movement(
            tensor=self.names[name],
            step=step,
            moved_small=float(moved[small].mean().sqrt()) / scale if count else None,
            moved_large=float(moved[large].mean().sqrt()) / scale if count < now.numel() else None,
            regrown=None if regrown is None or not count else regrown.numel() / count,
            regrown_size=(
                None
                if regrown is None or not regrown.numel()
                else float(regrown.square().mean().sqrt()) / scale
            ),
            flips=float((torch.sign(now) * torch.sign(before) < 0).float().mean()),
            overlap=_overlap(now, large, count),
        )


def _overlap(now: Tensor, large: Tensor, count: int) -> float:
    """Share of the `count` small weights that are among the `count` smallest now."""
    if not count:
        return 1.0
    cut = selection.cutoff(lambda: [("", now)], count, now.numel())
    bits, _, _ = selection.kept(now, cut)
    stays = np.unpackbits(bits, count=now.numel()).astype(bool)
    gone = ~(stays | large.view(-1).numpy())
    return int(np.count_nonzero(gone)) / count


def observer(
    model: torch.nn.Module, source: ModelSource, masks: Mapping[str, Mask], *, from_zero: bool
) -> Observer:
    """Set up for a model in training.

    Args:
        model: has the parameters.
        source: the pre-trained model.
        masks: what pruning keeps, by name of the parameter; empty where nothing is pruned.
        from_zero: whether the weights that are not kept start at zero.
    """
    stored = safetensors_io.entries(model_files.weight_files(source.folder))
    chosen = {x.name: x.input_dim for x in prunable.select(source.folder, list(stored), (), ())}
    names = {there: name for name, there in match_names(model, chosen).items()}
    if not masks:
        masks = _smaller_half({name: stored[name] for name in chosen}, names)
    small = {there: masks[there] for there in names if there in masks}
    return Observer({there: stored[names[there]] for there in small}, small, names, from_zero)


def _smaller_half(
    stored: Mapping[str, safetensors_io.Entry], names: Mapping[str, str]
) -> dict[str, Mask]:
    def scored() -> list[patterns.Scored]:
        return [patterns.Scored(n, safetensors_io.read(x), 1) for n, x in stored.items()]

    found = dict(patterns.unstructured(scored, HALF, "global"))
    return {there: found[name] for there, name in names.items()}


Observe = Callable[[int], list[Movement]]
