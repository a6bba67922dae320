"""How hard a task is: the normalised human-model gap, (human - dense) / human; higher is harder.

The view `performance_drop` computes it from the dense runs and the human scores that tasks state.
Source: Yin et al. 2024 (arXiv 2310.02277), section 3. And what makes one task harder within itself:
the conditions, each with its direction, said here once for ordering, verdict, documentation and
page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jdna_cli.amounts import percent


@dataclass(frozen=True)
class HumanScore:
    """A person's score on a task's main metric, as a fraction, and where it was published."""

    value: float
    source: str


@dataclass(frozen=True)
class Condition:
    """What makes a task easier or harder within itself.

    Attributes:
        name: the column of a run; the flag is named after it, except for `mixture`.
        flag: what sets it.
        direction: from easy to hard, in words.
        hardness: a number that rises with it; of None, which is the task as it is, too.
        label: one level of it for a reader.
    """

    name: str
    flag: str
    direction: str
    hardness: Callable[[Any], float]
    label: Callable[[Any], str]

    @property
    def title(self) -> str:
        """Its name as a reader has it."""
        return self.name.replace("_", " ")


def _counted(name: str) -> Callable[[Any], str]:
    return lambda value: f"{value} {name}"


CONDITIONS = {
    one.name: one
    for one in (
        Condition("options", "--options", "few to many options",
                  lambda count: math.inf if count is None else float(count), _counted("options")),
        Condition("shots", "--shots", "many to few examples shown before the question",
                  lambda count: -float(count or 0), _counted("shots")),
        Condition("book", "--book", "with the text at hand, then without",
                  lambda book: float(book == "closed"), lambda book: f"{book} book"),
        # More words are more to search: the sentence with the answer is always among them.
        Condition("context_words", "--context-words", "few to many words around the answer",
                  lambda count: float(count or 0), _counted("context words")),
        Condition("mixture", "--pairs", "one to many directions of translation",
                  lambda count: float(count or 0), _counted("directions")),
        Condition("data_fraction", "--data-fraction", "all to few of the training examples",
                  lambda share: -float(share or 0), lambda share: f"{percent(share)} of the data"),
    )
}  # fmt: skip


class StatedTest(BaseModel):
    """The test that an experiment is decided by, stated before its runs.

    Attributes:
        axis: "difficulty" (of tasks), or the condition whose levels are compared.
        direction: rising: drops rise from easy to hard; either: two-sided.
        correction: for the number of comparisons.
        alpha: chance of a false alarm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: str
    direction: Literal["rising", "falling", "either"] = "rising"
    correction: Literal["holm", "none"] = "holm"
    alpha: float = Field(0.05, gt=0, lt=1)

    @field_validator("axis")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (known := ("difficulty", *CONDITIONS)):
            raise ValueError(f"not {value!r}: {', '.join(known)}")
        return value
