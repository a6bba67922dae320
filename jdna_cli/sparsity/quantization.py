"""Weight-only quantization: each weight becomes one of 2ᵇ evenly spaced values of its group.

Symmetric: w ≈ s · c with c in −(2ᵇ⁻¹ − 1) … 2ᵇ⁻¹ − 1, so that zero is a value and both signs have
the same range. Asymmetric: w ≈ s · (c − z) with c in 0 … 2ᵇ − 1. A group is a whole tensor, an
output channel, or `group_size` consecutive weights of a channel along the input. Scales are kept in
the weight's own type, and codes are found for the scales as they are kept.

Sources: Jacob et al. 2018 (arXiv 1712.05877), eq. 1; with compensation, Frantar et al. 2022
(GPTQ, arXiv 2210.17323).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import safetensors_io, selection
from jdna_cli.sparsity.compensation import Choice, Factor, sweep
from jdna_cli.sparsity.safetensors_io import Writer

FORMAT = "jdna-grid-1"
ROWS = 1 << 17  # weights rounded at a time


@dataclass(frozen=True)
class Grid:
    """How a tensor is divided into groups, and how many values each has."""

    bits: int
    asymmetric: bool = False
    granularity: str = "channel"  # or tensor
    group_size: int | None = None

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1 if self.asymmetric else (1 << self.bits - 1) - 1

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return 0 if self.asymmetric else -self.highest

    def grouped(self, weight: Tensor) -> Tensor:
        """A view (rows, groups, size) of a weight (out, in); raises ValueError if none divides."""
        if self.granularity == "tensor":
            return weight.reshape(1, 1, -1)
        size = self.group_size or weight.shape[1]
        if weight.shape[1] % size:
            raise ValueError(f"groups of {size} do not divide {weight.shape[1]}")
        return weight.reshape(weight.shape[0], -1, size)


@dataclass(frozen=True)
class Quantized:
    """One tensor: codes (out, in) int16, scales and zero points (rows, groups)."""

    codes: Tensor
    scales: Tensor  # in the weight's dtype
    zeros: Tensor | None  # uint8, where asymmetric
    grid: Grid
    # What the codes stand for, in the dtype of the scales, where that is known already; whoever
    # takes it must not change it.
    values: Tensor | None = None

    def decoded(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weights (out, in), in the dtype of the scales unless another is named."""
        places = self.grid.grouped(self.codes).float()
        found = _values(places, self.scales, self.zeros).reshape(self.codes.shape)
        return found.to(dtype or self.scales.dtype)


@dataclass(frozen=True)
class Rounding:
    """The values that one tensor's weights may have, whatever training makes of them."""

    scales: Tensor
    zeros: Tensor | None
    grid: Grid
    input_dim: int

    def rounded(self, weight: Tensor) -> Tensor:
        """The nearest of those values: of the shape of `weight`, float32."""
        turned = weight if self.input_dim == 1 else weight.T
        codes = encode(turned.detach().float(), self.scales, self.zeros, self.grid)
        found = Quantized(codes, self.scales, self.zeros, self.grid).decoded(torch.float32)
        return found if self.input_dim == 1 else found.T

    def to(self, device: torch.device) -> Rounding:
        """The same on a device."""
        zeros = None if self.zeros is None else self.zeros.to(device)
        return Rounding(self.scales.to(device), zeros, self.grid, self.input_dim)


def writer(path: Path, dims: Mapping[str, int], grid: Grid) -> Writer:
    """Start a file of grids: scales and zero points of each tensor of `dims` (name: input_dim)."""
    words = {"format": FORMAT, "grid": json.dumps(vars(grid)), "dims": json.dumps(dict(dims))}
    return Writer(path, [name for name in dims for _ in range(2)], words)


def add(file: Writer, name: str, quantized: Quantized) -> None:
    """Write one tensor's grid."""
    file.add(f"{name}:scales", quantized.scales.cpu())
    if quantized.zeros is not None:
        file.add(f"{name}:zeros", quantized.zeros.cpu())


def load(path: Path) -> dict[str, Rounding]:
    """The grids of a file that `writer` started.

    Raises:
        JdnaError: the file is damaged or of another format.
    """
    try:
        words, stored = safetensors_io.metadata(path), safetensors_io.entries([path])
        if words.get("format") != FORMAT:
            raise JdnaError(f"{path} is not a file of grids of format {FORMAT}")
        grid, found = Grid(**json.loads(words["grid"])), {}
        for name, input_dim in json.loads(words["dims"]).items():
            zeros = stored.get(f"{name}:zeros")
            found[name] = Rounding(
                safetensors_io.read(stored[f"{name}:scales"]),
                None if zeros is None else safetensors_io.read(zeros),
                grid,
                input_dim,
            )
    except (OSError, KeyError, ValueError) as error:
        raise JdnaError(f"{path} cannot be read as grids: {error}") from error
    return found


def fit(weight: Tensor, grid: Grid, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points (rows, groups) that just hold every weight.

    Args:
        weight: (out, in) float32.
        grid: says what the groups are.
        dtype: in which scales are kept.
    """
    groups = grid.grouped(weight)
    tiny = torch.finfo(dtype).tiny
    if not grid.asymmetric:
        scales = (groups.abs().amax(-1) / grid.highest).to(dtype)
        return torch.where(scales < tiny, torch.ones_like(scales), scales), None
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((high - low) / grid.highest).to(dtype)
    scales = torch.where(scales < tiny, torch.ones_like(scales), scales)
    zeros = (-low / scales.float()).round().clamp(0, grid.highest).to(torch.uint8)
    return scales, zeros


def encode(weight: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """The nearest codes, int16, of the shape of `weight` (out, in) float32; ties to even."""
    return _places(weight, scales, zeros, grid).to(torch.int16).reshape(weight.shape)


def _places(weight: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """The nearest codes as float32, (rows, groups, size), of a weight (out, in) float32."""
    places = (grid.grouped(weight) / scales.float()[..., None]).round_()
    if zeros is not None:
        places += zeros.float()[..., None]
    return places.clamp_(grid.lowest, grid.highest)


def _values(places: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    """What codes stand for, float32, of their shape (rows, groups, size) float32; changes them."""
    if zeros is not None:
        places -= zeros.float()[..., None]
    places += 0.0  # no -0
    places *= scales.float()[..., None]
    return places


def nearest(weight: Tensor, grid: Grid, name: str) -> Quantized:
    """Round every weight to the nearest value of its group.

    Args:
        weight: (out, in), float32, float16 or bfloat16.
        grid: bits and groups.
        name: of the tensor, for messages.

    Raises:
        JdnaError: the weight is not finite.
    """
    if not selection.is_finite(weight):
        raise JdnaError(f"tensor {name!r} holds NaN or infinity, which has no nearest value")
    codes = torch.empty(weight.shape, dtype=torch.int16, device=weight.device)
    rounded, parts = torch.empty_like(weight, memory_format=torch.contiguous_format), []
    # A few channels at a time, so that they stay in the cache.
    step = max(1, ROWS // max(1, weight.shape[1]))
    step = weight.shape[0] if grid.granularity == "tensor" else step
    for start in range(0, weight.shape[0], step):
        own = slice(start, start + step)
        values = weight.detach()[own].float()
        scales, zeros = fit(values, grid, weight.dtype)
        places = _places(values, scales, zeros, grid)
        codes[own] = places.reshape(values.shape)
        rounded[own] = _values(places, scales, zeros).reshape(values.shape)
        parts.append((scales, zeros))
    points = [zeros for _, zeros in parts if zeros is not None]
    return Quantized(
        codes, torch.cat([s for s, _ in parts]), torch.cat(points) if points else None, grid,
        rounded,
    )  # fmt: skip


def compensated(weight: Tensor, factor: Factor, grid: Grid, name: str) -> Quantized:
    """Round column by column; each one's error is made good by those to its right (GPTQ).

    What is zero stays zero.

    Args:
        weight: (out, in), float32, float16 or bfloat16.
        factor: factor of this layer's Hessian.
        grid: bits and groups.
        name: of the tensor, for messages.

    Raises:
        JdnaError: the weight is not finite.
    """
    rule = OntoGrid(weight, grid, Choice(weight))
    sweep(weight, factor, rule, name)
    return rule.result()


class OntoGrid:
    """Settles each column on its grid; a group's scale is fitted when its turn comes.

    What a choice removes is zero there too: SparseGPT, section 3.5, rounds what is left at once.
    """

    def __init__(self, weight: Tensor, grid: Grid, choice: Choice) -> None:
        """Set up.

        Args:
            weight: (out, in), as it is before the first column.
            grid: bits and groups.
            choice: what is kept.
        """
        self._grid, self._dtype, self._choice = grid, weight.dtype, choice
        self._parts: list[tuple[Tensor, Tensor | None]] = []
        self._column = Grid(grid.bits, grid.asymmetric)  # a column's group, one weight wide
        self._codes: list[Tensor] = []  # (b, out) of each block
        self._own = torch.empty((0, weight.shape[0]), dtype=torch.int16, device=weight.device)
        self._groups: dict[int, tuple[Tensor, Tensor | None]] = {}  # of the block, by first column
        if grid.group_size is None:
            self._parts.append(fit(weight.detach().float(), grid, weight.dtype))

    @property
    def unit(self) -> int:
        """Whole groups."""
        return math.lcm(self._grid.group_size or 1, self._choice.unit)

    def open(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """As the choice does."""
        self._choice.open(weight, scale, start)
        if len(self._own) != weight.shape[1]:
            self._own = self._own.new_empty(weight.shape[::-1])
            self._groups.clear()

    def settle(self, weight: Tensor, scale: Tensor, j: int) -> Tensor:
        """The nearest value of the column's group as it is by now; zero where it is not kept."""
        left = self._choice.settle(weight, scale, j)
        size = self._grid.group_size
        if size is not None and j % size == 0:
            self._groups[j] = fit(weight[:, j : j + size], self._column, self._dtype)
        scales, zeros = self._parts[0] if size is None else self._groups[j - j % size]
        rows = weight.shape[0]
        scales = scales.expand(rows, 1)
        zeros = None if zeros is None else zeros.expand(rows, 1)
        codes = encode(left[:, None], scales, zeros, self._column)
        self._own[j] = codes[:, 0]
        return Quantized(codes, scales, zeros, self._column).decoded()[:, 0].float()

    def close(self) -> None:
        """Remember the block's codes and grids."""
        self._choice.close()
        self._codes.append(self._own.clone())
        for scales, zeros in self._groups.values():
            self._parts.append((scales.clone(), None if zeros is None else zeros.clone()))

    def result(self) -> Quantized:
        """The whole tensor."""
        scales = torch.cat([scales for scales, _ in self._parts], dim=1)
        zeros = [zeros for _, zeros in self._parts if zeros is not None]
        codes = torch.cat(self._codes).T.contiguous()
        return Quantized(codes, scales, torch.cat(zeros, 1) if zeros else None, self._grid)
