"""Iterative pruning: a little more at a time, while the rest trains.

The sparsity after round i of r is s · (1 − (1 − i / r)³), Zhu and Gupta 2017 (arXiv 1710.01878),
eq. 1: much at first, little at the end, when each weight counts. What has gone stays gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jdna_cli.pruning.changes import score_of
from jdna_cli.sparsity import criteria, patterns, shards
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.sparsity.masks import Mask
from jdna_cli.specs import FinetuneSpec, parse_pattern


@dataclass(frozen=True)
class GradualPruning:
    """When how much is pruned, and what."""

    spec: FinetuneSpec
    dims: dict[str, int]  # prunable parameters of the model in training, and their input dimension

    def due(self, step: int, total: int) -> float | None:
        """The share of the final sparsity to be reached after `step` of `total`; None: nothing."""
        rounds, last = self.spec.schedule_rounds, max(1, round(self.spec.schedule_end * total))
        here = [i for i in range(1, rounds + 1) if max(1, round(i * last / rounds)) == step]
        return 1 - (1 - here[-1] / rounds) ** 3 if here else None

    def masks(
        self, weights: Mapping[str, Tensor], before: Mapping[str, Mask], share: float
    ) -> dict[str, Mask]:
        """Masks by the criterion on the weights as they are now; nested in those of `before`."""
        spec, criterion = self.spec, criteria.load(self.spec.criterion)

        def scored() -> Iterator[patterns.Scored]:
            for name, input_dim in self.dims.items():
                weight = shards.whole(weights[name]).cpu()
                known = Statistics(name, input_dim, spec.pruning_seed)
                score = score_of(criterion, weight, known).abs()
                if name in before:
                    # What stays must rank above what has gone, also where it is zero.
                    kept = before[name].unpacked()
                    lowest = torch.finfo(score.dtype).tiny
                    score = torch.where(kept, score.clamp(min=lowest), torch.zeros_like(score))
                yield patterns.Scored(name, score, input_dim)

        if spec.pattern:
            n, m = parse_pattern(spec.pattern)
            keep = max(n, round(m - share * (m - n)))
            if keep == m:
                return {name: _all(weights[name]) for name in self.dims}
            return dict(patterns.n_of_m(scored, keep, m))
        assert spec.sparsity is not None
        return dict(patterns.unstructured(scored, spec.sparsity * share, spec.scope))


def _all(weight: Tensor) -> Mask:
    from jdna_cli.sparsity import masks

    return masks.pack(torch.ones(weight.shape, dtype=torch.bool))
