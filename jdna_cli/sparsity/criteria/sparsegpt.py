"""SparseGPT: columns are pruned from left to right, and the rest makes good the error.

A weight's score is w² / [H⁻¹]_jj, H = X Xᵀ + λI over the columns that are still free; each removal
changes the weights to its right by the optimal-brain-surgeon update. Frantar and Alistarh 2023
(arXiv 2301.00774), algorithm 1; blocks of 128 columns, λ = 1 % of the mean diagonal, as there.
Unstructured masks are chosen block by block over all rows of a tensor, so the scope is `layer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from jdna_cli.sparsity.compensation import Pruned
    from jdna_cli.sparsity.quantization import Grid
    from jdna_cli.sparsity.targets import Target

NEEDS = "gram"
SCOPE = "layer"


def prune_layer(
    weight: Tensor, statistics: Statistics, target: Target, grid: Grid | None = None
) -> Pruned:
    """The changed weight, zero where pruned, what was kept, and the damping that sufficed.

    A weight that was zero before stays zero.

    Args:
        weight: (out, in), any floating dtype; not changed.
        statistics: with `gram` (in, in).
        target: how many go: a share of all, or N:M along the input.
        grid: what is left is rounded to its values as it is settled (section 3.5); None: it is not.

    Raises:
        JdnaError: the weight holds NaN, or the Hessian cannot be factorised.
    """
    from jdna_cli.sparsity.compensation import NOfM, Pruned, Share, factor, sweep
    from jdna_cli.sparsity.quantization import OntoGrid

    assert statistics.gram is not None
    found = factor(statistics.gram, statistics.name)
    share, groups = target.sparsity, target.groups
    choice = NOfM(weight, *groups) if share is None else Share(weight, share)
    if grid is None:
        changed = sweep(weight, found, choice, statistics.name)
        return Pruned(changed, choice.kept(), found.damping)
    rule = OntoGrid(weight, grid, choice)
    changed = sweep(weight, found, rule, statistics.name)
    return Pruned(changed, choice.kept(), found.damping, rule.result())
