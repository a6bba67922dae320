"""Criteria: what scores a weight's importance. One file per criterion, named after it.

A criterion is `score(weight, statistics)`: a tensor of the weight's shape and of dtype float32,
float16 or bfloat16. Its ABSOLUTE value ranks: the smallest go first. The sign is ignored, so that
magnitude needs no copy of the weight. A criterion that chooses while it changes the weights that
stay has the second form, `prune_layer(weight, statistics, target, grid)`: where a grid is given, it
rounds what stays to its values at once.

A module says of itself, where it differs: `SCOPE`, where its scores compete by default (`global`),
and `NEEDS`, what it must know besides the weight (`nothing`). One of jdna's own may also say of
`PARTS` of a tensor that their scores are the `same` as in the whole: models are then read in parts.

| NEEDS | statistics |
|---|---|
| nothing | `name`, `input_dim` |
| seed | `draw()` |
| activations | `input_norm` |
| gram | `gram` |
| gradients | `gradient`, `squared_gradient` |
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jdna_cli import registry
from jdna_cli.errors import RequestError

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor

    from jdna_cli.sparsity.compensation import Pruned
    from jdna_cli.sparsity.quantization import Grid
    from jdna_cli.sparsity.targets import Target

NEEDS = ("nothing", "seed", "activations", "gram", "gradients")
SCOPES = ("global", "layer", "row")


@dataclass(frozen=True)
class Statistics:
    """What a criterion may know besides the weight itself; what it does not need is None.

    Tensors are float32. `tokens` is the number of calibration tokens that reached this weight's
    inputs, `examples` the number of calibration examples.
    """

    name: str
    input_dim: int = 1  # of the weight: 1 for (out, in), 0 for (in, out)
    seed: int = 0
    offset: int = 0  # of a piece in its tensor, flat; pieces begin at multiples of 2²⁰
    tokens: int = 0
    examples: int = 0
    input_norm: Tensor | None = None  # (in,): l2 norm of each input over all calibration tokens
    gram: Tensor | None = None  # (in, in): sum over calibration tokens of x xᵀ
    gradient: Tensor | None = None  # the weight's shape: mean over examples
    squared_gradient: Tensor | None = None  # the weight's shape: mean of squares over examples

    def draw(self, number: int = 0) -> Generator:
        """A generator of this tensor's own, the same each time; more of them by `number`."""
        import numpy as np

        own = hashlib.sha256(f"{self.seed}:{self.name}:{number}".encode()).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(own[:16], "big")))


@dataclass(frozen=True)
class Criterion:
    """A criterion's functions and what it says of itself; one of the two functions is there."""

    name: str
    needs: str
    scope: str
    score: Callable[[Tensor, Statistics], Tensor] | None
    prune_layer: Callable[[Tensor, Statistics, Target, Grid | None], Pruned] | None
    parts: str = ""  # "same" where a part of a tensor has the scores that it has in the whole
    identity: str | None = None  # of a user's own file: what it is by content

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration data."""
        return self.needs in ("activations", "gram", "gradients")


def names() -> tuple[str, ...]:
    """Names of all criteria."""
    return registry.members(sys.modules[__name__])


def load(name: str) -> Criterion:
    """The criterion called `name`, or the function of a user's own file, as in `mine.py:score`.

    Raises:
        RequestError: there is none of that name, or the file has no such function.
    """
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _own(Path(file), function)
    registry.check("criterion", name, names())
    return _described(registry.load(sys.modules[__name__], name), name, "score", None)


def identity(name: str) -> str | None:
    """What a user's own criterion is by content, without running it; None for jdna's.

    Raises:
        RequestError: the file cannot be read.
    """
    file, colon, _ = name.rpartition(":")
    if not (colon and file.endswith(".py")):
        return None
    return hashlib.sha256(_content(Path(file))).hexdigest()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RequestError(f"--criterion: {file} cannot be read: {error.strerror}") from None


def _own(file: Path, function: str) -> Criterion:
    """A criterion from a file that the user named: running it is the user's own choice."""
    content = _content(file)
    digest = hashlib.sha256(content).hexdigest()
    module = ModuleType(f"jdna_criterion_{digest[:16]}")
    module.__file__ = str(file)
    try:
        # What was hashed is what runs, whatever becomes of the file meanwhile.
        exec(compile(content, str(file), "exec"), vars(module))
    except Exception as error:
        raise RequestError(
            f"--criterion: {file} fails when it is read: {type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(module, function, None)):
        raise RequestError(f"--criterion: {file} has no function {function!r}")
    # The same content under the same name is the same criterion, wherever the file lies.
    return _described(module, f"{file.name}:{function}#{digest[:8]}", function, digest)


def _described(module: Any, name: str, function: str, identity: str | None) -> Criterion:
    needs, scope = getattr(module, "NEEDS", "nothing"), getattr(module, "SCOPE", "global")
    if needs not in NEEDS:
        raise RequestError(f"criterion {name!r}: NEEDS is {needs!r}, use one of {', '.join(NEEDS)}")
    if scope not in SCOPES:
        raise RequestError(f"criterion {name!r}: SCOPE is {scope!r}, use {', '.join(SCOPES)}")
    score, whole = getattr(module, function, None), getattr(module, "prune_layer", None)
    parts = "" if identity else getattr(module, "PARTS", "")
    return Criterion(name, needs, scope, score, None if identity else whole, parts, identity)
