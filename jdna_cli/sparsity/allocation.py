"""Allocation: how much each tensor loses, so that the whole loses what was asked.

`erk` takes more from large tensors, `owl` less from blocks with outliers, and a file says it tensor
by tensor. Where scores compete over the whole model (scope `global`) the allocation is theirs.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeGuard

from jdna_cli.errors import RequestError
from jdna_cli.sparsity.targets import DENSE, Target
from jdna_cli.specs import parse_pattern

UNIFORM, GLOBAL, ERK, OWL = "uniform", "global", "erk", "owl"
NAMES = (UNIFORM, GLOBAL, ERK, OWL)

OUTLIER = 5.0  # times the mean score of its block: M of OWL
REACH = 0.08  # how far a block's sparsity may lie from the mean: λ of OWL
SPREAD = 0.08  # how far a unit's sparsity may lie from the total, where a scan allots it
POWER = 3.0  # of the rise of the loss in the sparsity, where one sparsity alone was measured
SLACK = 0.001  # of the total, that a file may miss it by: its numbers are rounded


def is_file(name: str | None) -> TypeGuard[str]:
    """Whether an allocation is a file, not one of the names."""
    return name is not None and name not in NAMES


# ------------------------------------------------------------------------------------------- shares


def erk(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Sparsity of each tensor by Erdős–Rényi: density ∝ (in + out) / (in · out), at most 1.

    Source: Mocanu et al. 2018, eq. 3; for kernels Evci et al. 2020 (arXiv 1911.11134), which is the
    same for matrices.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    left = (1 - sparsity) * sum(sizes.values())
    dense: set[str] = set()
    while True:
        others = [name for name in shapes if name not in dense]
        weights = sum(raw[name] * sizes[name] for name in others)
        scale = (left - sum(sizes[name] for name in dense)) / weights if weights else 0.0
        above = {name for name in others if scale * raw[name] > 1}
        if not above:
            return {n: 0.0 if n in dense else 1 - scale * raw[n] for n in shapes}
        dense |= above


def owl(outliers: Sequence[float], sizes: Sequence[int], sparsity: float) -> list[float]:
    """Sparsity of each block by its share of outliers: the more it has, the less it loses.

    Args:
        outliers: of each block, the share of its weights whose Wanda score is above `OUTLIER` times
            the block's mean.
        sizes: number of prunable weights of each block.
        sparsity: of all blocks together; each lies within `REACH` of it where that can be.

    Source: Yin et al. 2024 (arXiv 2310.05175), section 3.2: 1 - sparsity rises with the share.
    """
    low, high = min(outliers), max(outliers)
    if low == high:
        return [sparsity] * len(outliers)
    spread = [2 * REACH * (x - low) / (high - low) for x in outliers]
    total = sum(sizes)

    def densities(shift: float) -> list[float]:
        return [min(1.0, max(0.0, shift + x)) for x in spread]

    # The shift that keeps as much as was asked; clipped ends make it more than a mean.
    below, above = -2 * REACH, 1.0
    for _ in range(100):
        middle = (below + above) / 2
        kept = sum(d * n for d, n in zip(densities(middle), sizes, strict=True))
        below, above = (middle, above) if kept < (1 - sparsity) * total else (below, middle)
    return [1 - d for d in densities(above)]


def without_noise(rises: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Rises of units (block, kind of matrix) at one sparsity, drawn towards what both say of them.

    Few examples measure a small rise badly. A rise below zero is noise, and so as much again above
    it: σ² = 2 / n · Σ of the squares of those below. Each rise is drawn towards that of its block
    and its kind together (the sum of their means less the mean of all) by σ² / the variance around
    it, at most all the way (James and Stein 1961; Efron and Morris 1975).
    """
    mean = _mean(rises.values())
    of: tuple[dict[str, float], ...] = tuple(
        {part: _mean(r for unit, r in rises.items() if unit[i] == part) for part in parts}
        for i, parts in ((0, {u[0] for u in rises}), (1, {u[1] for u in rises}))
    )
    fitted = {unit: of[0][unit[0]] + of[1][unit[1]] - mean for unit in rises}
    noise = 2 * math.fsum(min(r, 0.0) ** 2 for r in rises.values()) / len(rises)
    around = _mean((r - fitted[unit]) ** 2 for unit, r in rises.items())
    own = max(0.0, 1 - noise / around) if around > 0 else 1.0
    return {unit: fitted[unit] + own * (r - fitted[unit]) for unit, r in rises.items()}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def by_sensitivity(
    rises: Mapping[str, Mapping[float, float]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, float]:
    """Sparsities that raise the loss least, where each unit's rise is known when it goes alone.

    A unit's rise is taken as a · s^p, with one p for all (least squares of the logarithms) and an a
    of its own; the rises of several as their sum. The minimum under the total is where
    a · p · s^(p-1) / size is the same for all units. Rises do not simply add up where much goes, so
    that each unit stays within `SPREAD` of the total, and within half the way from the largest
    sparsity that was measured to 1.

    Args:
        rises: of each unit, the rise of the loss by sparsity.
        sizes: its number of weights.
        sparsity: of all together.

    Raises:
        RequestError: that lies above what was measured.
    """
    largest = (1 + max(s for own in rises.values() for s in own)) / 2
    if sparsity >= largest:
        raise RequestError(
            f"--total: {sparsity:g} lies too far above the sparsities that were measured: scan "
            f"up to {2 * sparsity - 1 + 0.05:.2f} at least"
        )
    power = _power(rises)
    known = {
        name: sum(max(r, 0.0) * s**power for s, r in own.items())
        / sum(s ** (2 * power) for s in own)
        for name, own in rises.items()
    }
    positive = sorted(a for a in known.values() if a > 0)
    if not positive:
        return dict.fromkeys(rises, sparsity)
    # A rise that noise has made none is not nothing.
    least = positive[len(positive) // 2] / 10
    steep = {name: max(a, least) / sizes[name] for name, a in known.items()}
    total = sum(sizes.values())

    def shares(height: float) -> dict[str, float]:
        free = {n: (height / x) ** (1 / (power - 1)) for n, x in steep.items()}
        return {n: min(most, max(sparsity - SPREAD, s)) for n, s in free.items()}

    most = min(largest, sparsity + SPREAD)
    low, high = 0.0, max(steep.values()) * power
    for _ in range(200):
        middle = (low + high) / 2
        lost = sum(share * sizes[name] for name, share in shares(middle).items())
        low, high = (middle, high) if lost < sparsity * total else (low, middle)
    return shares(high)


def _power(rises: Mapping[str, Mapping[float, float]]) -> float:
    """How fast rises grow with the sparsity, within units: how high they are is no matter."""
    x: list[float] = []
    y: list[float] = []
    for own in rises.values():
        points = [(math.log(s), math.log(r)) for s, r in own.items() if r > 0]
        if len(points) > 1:
            middle = [sum(c) / len(points) for c in zip(*points, strict=True)]
            x += [a - middle[0] for a, _ in points]
            y += [b - middle[1] for _, b in points]
    spread = math.fsum(a * a for a in x)
    if spread == 0:
        return POWER
    return min(8.0, max(1.5, math.fsum(a * b for a, b in zip(x, y, strict=True)) / spread))


def exactly(
    shares: Mapping[str, float], sizes: Mapping[str, int], sparsity: float
) -> dict[str, Target]:
    """Targets whose counts add up to exactly round(s · n), where the shares do but for rounding.

    One more goes where most was rounded off.
    """
    counts = {name: math.floor(share * sizes[name]) for name, share in shares.items()}
    missing = round(sparsity * sum(sizes[name] for name in shares)) - sum(counts.values())
    by_rest = sorted(shares, key=lambda name: counts[name] - shares[name] * sizes[name])
    for name in by_rest[: max(0, missing)]:
        counts[name] += 1
    return {name: Target(counts[name] / sizes[name]) for name in shares}


def groups(
    shares: Mapping[str, float], sizes: Mapping[str, int], n: int, m: int
) -> dict[str, Target]:
    """An N of its own for each tensor, so that all together keep at most n of m, as near as can be.

    A tensor keeps one of each m weights at least; one that keeps all m is left alone. Source: the
    mixed N:8 of OWL (arXiv 2310.05175, section 4.4), and Sun et al. 2021 (DominoSearch).
    """
    exact = {name: min(float(m), max(1.0, m * (1 - share))) for name, share in shares.items()}
    kept = {name: math.floor(value) for name, value in exact.items()}
    room = n * sum(sizes.values()) - sum(kept[name] * sizes[name] for name in kept)
    # Where one of each m is more than its share, others keep less for it.
    while room < 0 and (above := [name for name in kept if kept[name] > 1]):
        name = max(above, key=lambda name: kept[name] - exact[name])
        kept[name] -= 1
        room += sizes[name]
    for name in sorted(kept, key=lambda name: kept[name] - exact[name]):
        if room >= sizes[name] and kept[name] < m:
            kept[name] += 1
            room -= sizes[name]
    return {name: _grouped(count, m) for name, count in kept.items()}


def _grouped(n: int, m: int) -> Target:
    return DENSE if n == m else Target(None, (n, m))


# ------------------------------------------------------------------------------------------- a file


@dataclass(frozen=True)
class File:
    """What a file says: targets by shell patterns of tensors' names, of which the first counts."""

    path: str
    entries: tuple[tuple[str, Target], ...]

    @property
    def identity(self) -> str:
        """What it says, by content: of two files that say the same, the same."""
        text = json.dumps([[pattern, [t.sparsity, *t.groups]] for pattern, t in self.entries])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """What it is called in tables: its name, and the beginning of its identity."""
        return f"{Path(self.path).name}#{self.identity[:8]}"

    def targets(
        self, shapes: Mapping[str, tuple[int, ...]], sparsity: float | None, rest: Target | None
    ) -> dict[str, Target]:
        """What each tensor is to lose; those that the file does not name lose what is left to lose.

        Args:
            shapes: of the prunable tensors.
            sparsity: of all together; None where N:M was asked.
            rest: where N:M was asked: what tensors lose that the file does not name.

        Raises:
            RequestError: a pattern matches nothing, or the total cannot be reached.
        """
        named: dict[str, Target] = {}
        for pattern, target in self.entries:
            matched = [name for name in shapes if fnmatchcase(name, pattern)]
            if not matched:
                raise RequestError(
                    f"--allocation: {self.path}: {pattern!r} matches none of the {len(shapes)} "
                    f"prunable tensors, as {next(iter(shapes))}"
                )
            for name in matched:
                named.setdefault(name, target)
        if rest is not None:
            for name, target in named.items():
                if target.sparsity not in (None, 0.0):
                    raise RequestError(
                        f"--allocation: {self.path}: {name} is to lose {target.sparsity:g}, and "
                        "with --pattern a tensor loses N:M, or is dense"
                    )
            return {name: named.get(name, rest) for name in shapes}
        assert sparsity is not None
        return self._with_total(named, shapes, sparsity)

    def _with_total(
        self, named: dict[str, Target], shapes: Mapping[str, tuple[int, ...]], sparsity: float
    ) -> dict[str, Target]:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        total = sum(sizes.values())
        lost = sum(target.share * sizes[name] for name, target in named.items())
        others = {name: size for name, size in sizes.items() if name not in named}
        open_, wanted = sum(others.values()), sparsity * total
        if not others:
            if abs(lost - wanted) > SLACK * total:
                raise RequestError(
                    f"--allocation: {self.path} takes {lost / total:.4f} of all weights, and "
                    f"--sparsity says {sparsity:g}: give --sparsity {lost / total:.4f}, or leave "
                    "tensors unnamed, which then lose the rest"
                )
            return {name: named[name] for name in shapes}
        share = (wanted - lost) / open_
        if not -SLACK <= share < 1:
            least, most = lost / total, (lost + open_) / total
            raise RequestError(
                f"--allocation: {self.path} cannot reach --sparsity {sparsity:g}: with what it "
                f"names, all together lose {least:.4f} at least and less than {most:.4f}"
            )
        uniform = exactly(dict.fromkeys(others, max(0.0, share)), others, max(0.0, share))
        return {name: named.get(name) or uniform[name] for name in shapes}


def read(path: str) -> File:
    """Read an allocation file.

    TOML: patterns of tensors' names, each with a sparsity, "N:M", or "dense". CSV or JSON: rows
    with `tensor` and `sparsity`, as `jdna report layers` and `jdna scan` write them.

    Raises:
        RequestError: it is not there, or says something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(NAMES)
        raise RequestError(
            f"--allocation: {path!r} is none of {known}, and no file: {error.strerror}"
        ) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"--allocation: {path} is not UTF-8: byte {error.start}") from None
    readers: dict[str, Callable[[str], list[tuple[str, Any]]]] = {
        ".csv": _rows_of_csv, ".json": _rows_of_json,
    }  # fmt: skip
    try:
        rows = readers.get(Path(path).suffix.lower(), _rows_of_toml)(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        what = f"row without {error}" if isinstance(error, KeyError) else error
        raise RequestError(f"--allocation: {path}: {what}") from None
    if not rows:
        raise RequestError(f"--allocation: {path} names no tensor")
    return File(path, tuple((pattern, _target(path, pattern, value)) for pattern, value in rows))


def _rows_of_toml(text: str) -> list[tuple[str, Any]]:
    return list(tomllib.loads(text).items())


def _rows_of_csv(text: str) -> list[tuple[str, Any]]:
    return [(_literal(row["tensor"]), row["sparsity"]) for row in csv.DictReader(text.splitlines())]


def _rows_of_json(text: str) -> list[tuple[str, Any]]:
    found = json.loads(text)
    rows = found.get("rows", found) if isinstance(found, dict) else found
    return [(_literal(row["tensor"]), row["sparsity"]) for row in rows]


def _literal(name: str) -> str:
    """A tensor's name as the shell pattern that matches it alone."""
    return "".join(f"[{sign}]" if sign in "[*?" else sign for sign in name)


def _target(path: str, pattern: str, value: Any) -> Target:
    said = f"--allocation: {path}: {pattern} = {value!r}"
    hint = 'a sparsity (0 ≤ S < 1), "N:M", or "dense"'
    if isinstance(value, str) and ":" in value:
        try:
            return Target(None, parse_pattern(value))
        except ValueError as error:
            raise RequestError(f"{said}: {error}") from None
    if value == "dense":
        return DENSE
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{said}: give {hint}") from None
    if isinstance(value, bool) or not 0 <= number < 1:
        raise RequestError(f"{said}: give {hint}")
    return Target(number)


def write(targets: Mapping[str, Target], head: str) -> str:
    """An allocation as the text of a file that `read` takes; `head` is said above it."""
    lines = [f"# {line}" for line in head.splitlines()]
    for name, target in targets.items():
        grouped = '"{}:{}"'.format(*target.groups)
        value = grouped if target.sparsity is None else repr(target.sparsity)
        lines.append(f"{json.dumps(_literal(name))} = {value}")
    return "\n".join(lines) + "\n"
