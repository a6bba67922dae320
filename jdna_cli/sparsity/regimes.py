"""Transfer regimes: how weights start, and which of them training may change.

| regime | pruned ("small") weights start at | held during training |
|---|---|---|
| dense | their pre-trained values | nothing |
| sparse | zero | the small ones, at zero |
| sparse-to-dense | zero | nothing: they may regrow |
| dense-frozen | their pre-trained values | the small ones, bit for bit |
| reinit | each other's values, shuffled within a tensor | nothing |
| large-frozen | their pre-trained values | the large ones, bit for bit |

The first four are Yin et al. 2024 (arXiv 2310.02277), section 4.2; the next two are controls. Where
bits of every weight were taken in place of whole weights, there are two more:

| regime | weights start at | held during training |
|---|---|---|
| quantized | the values of their grid | every weight, on its grid |
| quantized-to-dense | the values of their grid | nothing |

Of weights that were pruned and rounded what is zero stays zero under `sparse` (what is left starts
at rounded values, and moves freely) and under `quantized`; `quantized-to-dense` holds nothing.

Weights that are not prunable (embeddings, norms, biases, the head) train in every regime.

How a weight is held: its gradient is cleared before every optimiser step, so that its moments stay
zero and its update is exactly zero; weight decay is applied to the free weights alone. Nothing has
to be put back afterwards, held weights do not count in the gradient norm, and the cost is one pass
over the gradients. A weight on a grid is used as rounded, and its gradient moves a full-precision
copy that is rounded again (straight-through, Bengio et al. 2013, arXiv 1308.3432).

Where a model is divided among processes, each holds its own rows of every weight and mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jdna_cli.errors import JdnaError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from jdna_cli.sparsity.masks import Mask
    from jdna_cli.sparsity.quantization import Rounding


@dataclass(frozen=True)
class Regime:
    """One row of the table above."""

    needs: Literal["nothing", "weights", "bits"]  # what must have been taken away
    start: Literal["pretrained", "zero", "shuffled", "rounded"]
    holds: Literal["nothing", "small", "large", "grid"]
    description: str

    @property
    def needs_mask(self) -> bool:
        """Whether it says something of single weights."""
        return self.needs == "weights"


REGIMES: dict[str, Regime] = {
    name: Regime(*row)  # type: ignore[arg-type]
    for name, row in {
        "dense": ("nothing", "pretrained", "nothing", "all weights train, nothing is pruned"),
        "sparse": ("weights", "zero", "small", "pruned weights stay exactly zero"),
        "sparse-to-dense": (
            "weights",
            "zero",
            "nothing",
            "pruned weights start at zero, may regrow",
        ),
        "dense-frozen": ("weights", "pretrained", "small", "small weights keep their values"),
        "reinit": ("weights", "shuffled", "nothing", "small weights start from shuffled values"),
        "large-frozen": ("weights", "pretrained", "large", "only the small weights train"),
        "quantized": ("bits", "rounded", "grid", "every weight stays on its grid"),
        "quantized-to-dense": ("bits", "rounded", "nothing", "rounded weights train freely"),
    }.items()
}


# What makes sense where weights were pruned, and what is left of them rounded.
OF_BOTH = ("quantized", "sparse", "quantized-to-dense")


def start_(
    weights: Mapping[str, Tensor], masks: Mapping[str, Mask], regime: Regime, seed: int
) -> None:
    """Set the prunable `weights` (CPU, contiguous) in place to where `regime` starts them."""
    import torch

    from jdna_cli.sparsity.masks import clear_

    generator = torch.Generator().manual_seed(seed)
    for name in sorted(masks):
        if regime.start == "zero":
            clear_(weights[name], masks[name])
        elif regime.start == "shuffled":
            # A permutation is the one draw that has exactly the distribution it replaces.
            flat = weights[name].detach().view(-1)
            small = (~masks[name].unpacked()).view(-1).nonzero().squeeze(1)
            flat[small] = flat[small[torch.randperm(small.numel(), generator=generator)]]


class Constraint:
    """Holds weights during training and proves at the end that they were held."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        regime: Regime,
    ) -> None:
        """Remember what is held.

        Args:
            weights: the trained parameters by name, at their start values.
            masks: a mask for each prunable parameter.
            regime: says whether the small or the large ones are held.
        """
        self._weights = weights
        free: dict[str, Mask] = {}
        if regime.holds in ("small", "large"):
            flip = regime.holds == "large"
            free = {n: m.inverted() if flip else m for n, m in masks.items()}
        self._hold(free)

    def _hold(self, free: Mapping[str, Mask]) -> None:
        from jdna_cli.sparsity.masks import mask_applier
        from jdna_cli.sparsity.shards import local, mask_of

        self._free = {n: mask_of(m, self._weights[n]) for n, m in free.items()}
        self._erasers = {n: mask_applier(local(self._weights[n]), m) for n, m in self._free.items()}
        self._digests = {n: self._digest(n) for n in self._free}

    def prune(self, masks: Mapping[str, Mask], optimizer: Optimizer) -> None:
        """Set to zero, and hold there from now on, what `masks` do not keep.

        What the optimiser remembers of those weights is forgotten.
        """
        from jdna_cli.sparsity.masks import mask_applier
        from jdna_cli.sparsity.shards import local, mask_of

        for name, mask in masks.items():
            weight = self._weights[name]
            erase = mask_applier(local(weight), mask_of(mask, weight))
            erase(local(weight.detach()))
            for kind in ("exp_avg", "exp_avg_sq"):
                if kind in optimizer.state.get(weight, {}):
                    erase(local(optimizer.state[weight][kind]))
        self._hold(masks)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep of it, by name."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` told; the weights are those of the checkpoint already."""

    def clear_gradients(self) -> None:
        """Clear the gradients of held weights; call before gradients are clipped."""
        from jdna_cli.sparsity.shards import local

        for name, erase in self._erasers.items():
            gradient = self._weights[name].grad
            if gradient is not None:
                erase(local(gradient))

    def attach(self, optimizer: Optimizer, weight_decay: float) -> None:
        """Run before every step of `optimizer`, whose own weight decay must be zero.

        Args:
            optimizer: steps the weights; its groups' learning rates are read at each step.
            weight_decay: decoupled decay, w ← w − lr · decay · w, of matrices only, as AdamW's.
        """
        from jdna_cli.sparsity.shards import local

        names = {id(weight): name for name, weight in self._weights.items()}

        def before_step(stepped: Optimizer, *_: Any) -> None:
            self.clear_gradients()
            # Read anew each time: loading a state replaces the groups.
            for group in stepped.param_groups if weight_decay else ():
                for parameter in group["params"]:
                    if parameter.ndim < 2 or parameter.grad is None:
                        continue
                    decay = parameter.detach() * (group["lr"] * weight_decay)
                    erase = self._erasers.get(names.get(id(parameter), ""))
                    if erase is not None:
                        erase(local(decay))
                    parameter.detach().sub_(decay)

        optimizer.register_step_pre_hook(before_step)

    def verify(self, step: int) -> None:
        """Prove that held weights have the bits they started with.

        Raises:
            JdnaError: one has not; the message names the tensor.
        """
        for name, expected in self._digests.items():
            if self._digest(name) != expected:
                raise JdnaError(
                    f"held weights of {name!r} had changed by step {step}: a bug in jdna"
                )

    def _digest(self, name: str) -> int:
        """A sum over the held weights' bits, where the weight is."""
        from jdna_cli.sparsity.masks import digest
        from jdna_cli.sparsity.shards import local

        own = local(self._weights[name].detach())
        free = own.clone(memory_format=_contiguous())
        self._erasers[name](free)
        return digest(own, free)


class OnGrid(Constraint):
    """Keeps weights on their grids: rounded in use, moved in full precision behind it."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        grids: Mapping[str, Rounding],
        masks: Mapping[str, Mask],
    ) -> None:
        """Round the weights that have a grid, and hold those at zero that a mask does not keep.

        Args:
            weights: the trained parameters by name, float32; what no mask keeps is zero.
            grids: the grid of each that has one.
            masks: the mask of each that was pruned, too.
        """
        super().__init__(weights, masks, REGIMES["sparse"])
        self._grids = dict(grids)
        self._full = {name: weights[name].detach().clone() for name in grids}
        self._round()

    def _round(self) -> None:
        for name, full in self._full.items():
            self._weights[name].detach().copy_(self._grids[name].rounded(full))

    def attach(self, optimizer: Optimizer, weight_decay: float) -> None:
        """Step the full-precision weights with the gradients of the rounded ones, and round."""

        def before_step(stepped: Optimizer, *_: Any) -> None:
            for name, full in self._full.items():
                self._weights[name].detach().copy_(full)

        def after_step(stepped: Optimizer, *_: Any) -> None:
            for name, full in self._full.items():
                full.copy_(self._weights[name].detach())
            self._round()

        optimizer.register_step_pre_hook(before_step)
        super().attach(optimizer, weight_decay)
        optimizer.register_step_post_hook(after_step)

    def verify(self, step: int) -> None:
        """Prove that every weight is a value of its grid, and what was pruned is zero.

        Raises:
            JdnaError: one is not.
        """
        super().verify(step)
        for name, full in self._full.items():
            now = self._weights[name].detach()
            if not bool((self._grids[name].rounded(full) == now).all()):
                raise JdnaError(f"weights of {name!r} were off their grid by step {step}: a bug")

    def state(self) -> dict[str, Tensor]:
        """The full-precision weights."""
        return dict(self._full)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with them."""
        for name, full in self._full.items():
            full.copy_(tensors[name])
        self._round()


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format
