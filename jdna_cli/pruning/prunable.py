"""Which tensors of a file may be pruned: as its architecture says, and as the request narrows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from jdna_cli.errors import RequestError
from jdna_cli.models.architecture import Architecture, architecture, shapes_differ
from jdna_cli.specs import ModelSource


@dataclass(frozen=True)
class Prunable:
    """One prunable tensor: its name in the file, and the dimension that runs along the input."""

    name: str
    input_dim: int


def _prunable(folder: Path) -> Architecture:
    known = architecture(folder)
    if known.refused is not None:
        raise RequestError(known.refused)
    return known


def reasons(folder: Path, tensors: list[str]) -> dict[str, str | None]:
    """Why each of a file's tensors is not prunable; None where it is."""
    known = _prunable(folder)
    reasons: dict[str, str | None] = {}
    for name in tensors:
        bare = name.removeprefix(known.prefix)
        if bare in known.matrices:
            reasons[name] = None
        else:
            reasons[name] = known.others.get(bare, "not of the backbone: a head, or unused")
    return reasons


def check_shapes(source: ModelSource, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse matrices of other shapes than the configuration gives them: one is of another model.

    Raises:
        RequestError: names the first.
    """
    known = _prunable(source.folder)
    for name, stored in shapes.items():
        wanted = known.shapes[name.removeprefix(known.prefix)]
        if list(stored) != wanted:
            told = shapes_differ(stored, wanted)
            raise RequestError(f"model {source.name!r} is not whole: its weight {name!r} {told}")


def select(
    folder: Path, tensors: list[str], include: tuple[str, ...], exclude: tuple[str, ...]
) -> list[Prunable]:
    """The prunable ones among a file's tensors, in the order of their names.

    Args:
        folder: of the model.
        tensors: names in the file, with or without the backbone's prefix.
        include: shell patterns; where given, only tensors that match one are prunable.
        exclude: shell patterns; tensors that match one are not.

    Raises:
        RequestError: nothing is left.
    """
    known = _prunable(folder)
    found = []
    for name in sorted(tensors, key=lambda n: n.removeprefix(known.prefix)):
        bare = name.removeprefix(known.prefix)
        if bare not in known.matrices:
            continue
        names = (name, bare)
        if include and not any(fnmatchcase(n, p) for n in names for p in include):
            continue
        if any(fnmatchcase(n, p) for n in names for p in exclude):
            continue
        found.append(Prunable(name, known.matrices[bare]))
    if not found:
        chosen = f" with --include {' '.join(include)} --exclude {' '.join(exclude)}"
        raise RequestError(
            f"no prunable weights in this {known.model_type} model"
            + (chosen if include or exclude else "")
        )
    return found


def check_groups(
    shapes: dict[str, tuple[int, ...]], prunable: list[Prunable], m: int, flag: str, other: str
) -> None:
    """Refuse groups of M where a tensor's input width is not a multiple of M.

    Raises:
        RequestError: names the first such tensor and its width.
    """
    for tensor in prunable:
        width = shapes[tensor.name][tensor.input_dim]
        if width % m:
            raise RequestError(
                f"{flag}: {tensor.name} has {width} inputs, which groups of {m} do not divide; "
                f"leave it out with --exclude '{tensor.name}' or choose {other}"
            )
