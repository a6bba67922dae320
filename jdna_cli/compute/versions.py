"""Versions of the libraries that compute, without importing them."""

from __future__ import annotations

from importlib import metadata

LIBRARIES = ("torch", "transformers", "accelerate")


def versions() -> dict[str, str]:
    """By name, as recorded with a run."""
    return {name: metadata.version(name) for name in LIBRARIES}
