"""A folder is a registry: its file names are its members' names, imported when they are used."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from jdna_cli.errors import RequestError


def members(package: ModuleType) -> tuple[str, ...]:
    """Names of the modules of `package`, sorted, with dashes as users write them."""
    names = (info.name for info in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name.replace("_", "-") for name in names if not name.startswith("_")))


def load(package: ModuleType, name: str) -> ModuleType:
    """Import the member `name` of `package`."""
    return importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}")


def check(what: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known; otherwise refuse it and name the nearest that is.

    Raises:
        RequestError: `name` is not among `known`.
    """
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise RequestError(f"unknown {what} {name!r}: {hint}")
