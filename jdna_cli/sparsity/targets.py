"""What one tensor is to lose. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """How many weights of a tensor go: a share of all, or all but N of each M."""

    sparsity: float | None = None
    groups: tuple[int, int] = (0, 0)

    @property
    def share(self) -> float:
        """The share of its weights that goes."""
        if self.sparsity is not None:
            return self.sparsity
        n, m = self.groups
        return 1 - n / m

    @property
    def words(self) -> str:
        """50% or 2:4."""
        plain = self.sparsity is not None
        return f"{100 * self.share:.4g}%" if plain else "{}:{}".format(*self.groups)


DENSE = Target(0.0)
