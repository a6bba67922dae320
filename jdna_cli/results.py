"""What was measured: plain numbers that travel from the engine to the database and the console."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSparsity:
    """How many weights of one prunable tensor were kept."""

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int

    @property
    def sparsity(self) -> float:
        """Fraction of this tensor's weights that are zero."""
        return 1.0 - self.kept / self.total


@dataclass(frozen=True)
class Planned:
    """One tensor of a model's file.

    `reason` says why it is not prunable, None where it is; `loss` what it is to lose, in words,
    None where that is known only when scores compete.
    """

    name: str
    shape: tuple[int, ...]
    reason: str | None
    loss: str | None = None


@dataclass(frozen=True)
class Need:
    """Bytes that something takes, and where: memory, the GPU, or the disk."""

    what: str
    bytes: int
    where: str


@dataclass(frozen=True)
class Measurement:
    """One number. `step` is None for a result of the run, else the point of a training curve."""

    split: str
    name: str
    value: float
    step: int | None = None


@dataclass(frozen=True)
class Point:
    """One point of the line between two models; `score` is the task's main metric."""

    alpha: float
    loss: float
    score: float


@dataclass(frozen=True)
class Sensitivity:
    """What a task lost when one kind of matrix of one block was pruned, and nothing else.

    `score` is the task's main metric; `weights` counts those of the tensors together.
    """

    block: str
    matrix: str
    sparsity: float
    tensors: tuple[str, ...]
    weights: int
    loss: float
    score: float


@dataclass(frozen=True)
class Movement:
    """How far one tensor's weights have moved from their pre-trained values, at one step.

    "Small" are the weights that pruning chose, "large" the others. Distances are root mean squares
    in units of the tensor's own pre-trained root mean square; shares are fractions.
    """

    tensor: str
    step: int
    moved_small: float | None
    moved_large: float | None
    regrown: float | None  # share of the weights that started at zero and are not
    regrown_size: float | None  # their root mean square
    flips: float  # share of all weights whose sign is another
    overlap: float  # share of the small weights that are among as many smallest ones now


@dataclass(frozen=True)
class Outcome:
    """What a pipeline returns; what does not apply to its kind stays empty."""

    measurements: tuple[Measurement, ...] = ()
    layers: tuple[LayerSparsity, ...] = ()
    points: tuple[Point, ...] = ()
    movements: tuple[Movement, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    bits: int | None = None
    bits_per_weight: float | None = None  # of the prunable weights, in their compact form
    device: str = ""
    dtype: str | None = None
    protocol: str | None = None  # how it was measured, where a metric's name does not say it
    examples: dict[str, dict[str, int]] | None = None  # of each split: read, and used
    remark: str | None = None  # what was done otherwise than asked, and is recorded
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """Results by name: those of the first split under their own, others as split/name."""
        metrics: dict[str, float] = {}
        results = [m for m in self.measurements if m.step is None]
        first = next((m.split for m in results if m.split != "train"), None)
        for m in results:
            metrics[m.name if m.split == first else f"{m.split}/{m.name}"] = m.value
        return metrics

    def result(self, name: str) -> float:
        """A result by name, of whichever split it was measured on, the first of several."""
        return next(m.value for m in self.measurements if m.step is None and m.name == name)

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(layer.total for layer in self.layers)

    @property
    def pruned(self) -> int:
        """Number of weights that are zero."""
        return sum(layer.total - layer.kept for layer in self.layers)

    @property
    def sparsity(self) -> float | None:
        """Sparsity reached, or None where nothing was prunable."""
        return self.pruned / self.prunable if self.prunable else None

    def collapsed(self, kept_fraction: float = 0.01) -> tuple[str, ...]:
        """Layer collapse: the tensors that kept at most `kept_fraction` of their weights."""
        return tuple(x.name for x in self.layers if x.kept <= kept_fraction * x.total)
