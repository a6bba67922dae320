"""Whether a model has learnt a task at all: its score against what guessing gives."""

from __future__ import annotations

import functools

import numpy as np

from jdna_cli.reports import predictions, statistics
from jdna_cli.reports.query import Row
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

AT_CHANCE = 0.1  # of the way from chance to a perfect score, where no answers were saved


@functools.cache
def _chance_of(task: str) -> float | None:
    """Of a built-in task, for runs that were recorded before it was."""
    from jdna_cli.tasks.built_in import all_tasks

    found = all_tasks().get(task)
    return found.chance if found else None


def chance(row: Row) -> float | None:
    """What guessing scores on a cell's task."""
    known = row["chance"]
    return float(known) if known is not None else _chance_of(row["task"])


def at_chance(row: Row, answers: predictions.Answers) -> bool:
    """Whether even the dense model does not do better than guessing.

    It does where the 95 % interval of its score over the examples (means over seeds) lies above
    chance. Where their answers were not saved: where it came a tenth of the way to a perfect score.
    """
    guess = chance(row)
    if guess is None or row["dense_score"] is None or row["metric"] in LOWER_IS_BETTER:
        return False
    found = [
        answers.of(one.dense_run, row["split"], row["metric"])
        for one in row["_seeds"]
        if one.dense_run is not None
    ]
    known = [one for one in found if one is not None]
    if not known or any(one.keys() != known[0].keys() for one in known):
        return bool(row["dense_score"] - guess <= AT_CHANCE * (1 - guess))
    means = np.array([[one[name] for name in known[0]] for one in known]).mean(axis=0)
    over = statistics.mean_of_examples(means)
    return (over.mean if over.low is None else over.low) <= guess
