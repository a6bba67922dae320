"""How hard a task is: the normalised gap between a person's score and the dense model's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HumanScore:
    """A person's score on a task's main metric, as a fraction, and where it was published."""

    value: float
    source: str


def task_difficulty(human: float, dense: float) -> float:
    """Normalised human-model gap `(human - dense) / human`; higher is harder.

    Both scores are fractions of the same metric. Negative where the model beats people.
    Source: Yin et al. 2024 (arXiv 2310.02277), section 3.
    """
    return (human - dense) / human
