"""Versions of the libraries that compute, without importing them."""

from __future__ import annotations

import functools
from importlib import metadata

LIBRARIES = ("torch", "transformers", "accelerate")


def versions() -> dict[str, str]:
    """By name, as recorded with a run."""
    return {name: version(name) for name in LIBRARIES}


@functools.cache  # of what is imported, which stays what it is
def version(name: str) -> str:
    """Of one library."""
    return metadata.version(name)
