"""The saved answers of runs, example by example."""

from __future__ import annotations

import filecmp
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from jdna_cli.errors import RequestError
from jdna_cli.reports.query import Source
from jdna_cli.reports.statistics import Floats
from jdna_cli.tasks.metrics import LOWER_IS_BETTER


def folder(source: Source, artifact: str) -> Path:
    """Where a run's files are; its column is relative to the home folder if they are inside."""
    return source.home / artifact


def scores(file: Path, metric: str) -> dict[str, float] | None:
    """Each example's share of the metric by its name; None where the metric is no mean of such.

    For accuracy: 1 where the answer is right, 0 where it is wrong. For perplexity, of each window:
    its negative log-likelihood per token of a window, so that the mean is the log of the perplexity
    (windows have as many tokens as each other but for the first where they overlap).
    """
    found: dict[str, float] = {}
    tokens: list[int] = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            if metric == "perplexity":
                if "negative_log_likelihood" not in row:
                    return None
                own = row["negative_log_likelihood"]
                tokens.append(row["tokens"])
            elif metric == "accuracy" and "label" in row and "prediction" in row:
                own = row.get("accuracy", float(row["label"] == row["prediction"]))
            else:
                own = row.get(metric)
            if own is None:
                return None
            found[str(row["id"])] = float(own)
    if tokens:
        mean = sum(tokens) / len(tokens)
        found = {name: value / mean for name, value in found.items()}
    return found or None


def of_means(means: Floats, metric: str) -> Floats:
    """Scores from means over examples: a perplexity is the exponential of a mean."""
    return np.exp(means) if metric in LOWER_IS_BETTER else means


def relative(dense: Floats, pruned: Floats, metric: str) -> Floats:
    """Relative performance from means over examples, NaN where the dense model has nothing right.

    Args:
        dense: means of the dense run, of any shape.
        pruned: of the other, broadcast against them.
        metric: score / dense score, but for perplexity dense / score.
    """
    if metric in LOWER_IS_BETTER:
        return np.exp(dense - pruned)
    return np.asarray(pruned / np.where(dense > 0, dense, np.nan))


class Answers:
    """Scores by example of any run; each file is read once."""

    def __init__(self, source: Source) -> None:
        """Where files are is looked up when the first is asked for."""
        self._source = source
        self._read: dict[tuple[int, str, str], dict[str, float] | None] = {}

    def of(self, number: int, split: str, metric: str) -> dict[str, float] | None:
        """A run's scores, or None where its predictions are not there."""
        key = (number, split, metric)
        if key not in self._read:
            self._read[key] = self._scores(number, split, metric)
        return self._read[key]

    def same(self, one: int, other: int, split: str) -> bool:
        """Whether two runs gave the same answers to the last bit: nothing was drawn anew."""
        files = [self._file(number, split) for number in (one, other)]
        if files[0] is None or files[1] is None:
            return False
        return filecmp.cmp(files[0], files[1], shallow=False)

    def _scores(self, number: int, split: str, metric: str) -> dict[str, float] | None:
        file = self._file(number, split)
        return scores(file, metric) if file else None

    @functools.cached_property
    def _artifacts(self) -> dict[int, str]:
        sql = "SELECT id, artifact FROM run WHERE status = 'finished' AND artifact IS NOT NULL"
        condition, values = self._source.filters.where()
        if self._source.runs:  # asked for by number, whatever the filters say
            condition, values = "", []
        return dict(self._source.query(sql + condition, values).rows)

    @functools.cached_property
    def _near(self) -> set[str]:
        home = self._source.home
        return {file.name for file in home.iterdir()} if home.is_dir() else set()

    def _file(self, number: int, split: str) -> Path | None:
        artifact = self._artifacts.get(number)
        if artifact is None or ("/" not in artifact and artifact not in self._near):
            return None
        file = folder(self._source, artifact) / f"predictions-{split}.jsonl"
        return file if file.is_file() else None


def of(source: Source) -> Answers:
    """The answers of a source's runs, read once for all its reports."""
    found: Answers = source.remembered.setdefault("answers", Answers(source))
    return found


def paired(first: dict[str, float], second: dict[str, float]) -> tuple[Floats, Floats]:
    """Both runs' scores of the examples that they share, in one order.

    Raises:
        RequestError: they share none.
    """
    names = [name for name in first if name in second]
    if not names:
        raise RequestError("the two runs share no example: they were not measured on the same data")
    return np.array([first[n] for n in names]), np.array([second[n] for n in names])
