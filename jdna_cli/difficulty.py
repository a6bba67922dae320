"""How hard a task is: the normalised human-model gap, (human - dense) / human; higher is harder.

The view `performance_drop` computes it from the dense runs and the human scores that tasks state.
Source: Yin et al. 2024 (arXiv 2310.02277), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HumanScore:
    """A person's score on a task's main metric, as a fraction, and where it was published."""

    value: float
    source: str
