"""Marks for written answers: each kind of task has its own rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jdna_cli.tasks import equations, metrics
from jdna_cli.tasks.examples import Example
from jdna_cli.tasks.task import Task


@dataclass(frozen=True)
class Marks:
    """The task's metrics as fractions, a row for each example, and how it was measured."""

    scores: dict[str, float]
    rows: list[dict[str, Any]]
    protocol: str = ""


def mark(task: Task, examples: Sequence[Example], written: Sequence[str]) -> Marks:
    """Score what a model wrote for each example."""
    rules = {
        "arithmetic": _arithmetic,
        "question-answering": _answers,
        "translation": _translations,
    }
    return rules[task.kind](task, examples, written)


def _arithmetic(task: Task, examples: Sequence[Example], written: Sequence[str]) -> Marks:
    """Share of problems whose written equation comes to the right answer."""
    rows: list[dict[str, Any]] = []
    for example, text in zip(examples, written, strict=True):
        numbers = equations.masked(" ".join(example.texts))[1]
        rows.append(
            {
                "label": example.label,
                "prediction": equations.value(text, numbers),
                "written": text,
                "correct": equations.right(text, numbers, example.label),
            }
        )
    return Marks({"accuracy": _mean([float(row["correct"]) for row in rows])}, rows)


def _answers(task: Task, examples: Sequence[Example], written: Sequence[str]) -> Marks:
    rows: list[dict[str, Any]] = []
    for example, text in zip(examples, written, strict=True):
        rows.append(
            {
                "label": list(example.answers),
                "prediction": text,
                "exact_match": metrics.exact_match(example.answers, text),
                "f1": metrics.token_f1(example.answers, text),
            }
        )
    return Marks({name: _mean([r[name] for r in rows]) for name in ("exact_match", "f1")}, rows)


def _translations(task: Task, examples: Sequence[Example], written: Sequence[str]) -> Marks:
    """Corpus scores of each direction, and their mean where there are several."""
    scores: dict[str, float] = {}
    signatures = []
    pairs = list(dict.fromkeys(example.pair for example in examples))
    for pair in pairs:
        own = [i for i, example in enumerate(examples) if example.pair == pair]
        found, signature = metrics.translation(
            [written[i] for i in own], [examples[i].answers[0] for i in own], pair.split("-")[1]
        )
        signatures.append(f"{pair}: {signature}")
        scores |= {f"{name}_{pair}": value for name, value in found.items()}
    means = {n: _mean([scores[f"{n}_{pair}"] for pair in pairs]) for n in ("bleu", "chrf")}
    rows = [
        {"pair": example.pair, "label": example.answers[0], "prediction": text}
        for example, text in zip(examples, written, strict=True)
    ]
    return Marks({**means, **(scores if len(pairs) > 1 else {})}, rows, " | ".join(signatures))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
