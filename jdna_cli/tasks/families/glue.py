"""GLUE: nine tasks of language understanding (Wang et al. 2018, arXiv 1804.07461).

Metrics are GLUE's own. Where it has two, the first stated here is the main one. Human scores are
those of Nangia and Bowman 2019 on GLUE's test sets, for the main metric.
"""

from __future__ import annotations

from typing import Any

from jdna_cli.difficulty import HumanScore
from jdna_cli.tasks.task import HubSource, Task

_SOURCE = "Nangia & Bowman 2019, arXiv 1905.10425"
_PAIR = ("sentence1", "sentence2")


def _glue(name: str, description: str, texts: tuple[str, ...], human: float, **rest: Any) -> Task:
    fields: dict[str, Any] = {
        "kind": "classification",
        "metrics": ("accuracy",),
        "chance": 0.5,
        **rest,
    }
    return Task(
        name=name,
        description=description,
        texts=texts,
        human=HumanScore(human, _SOURCE),
        source=HubSource("nyu-mll/glue", name),
        **fields,
    )


def _sizes(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


TASKS = (
    _glue(
        "cola",
        "is the sentence grammatical?",
        ("sentence",),
        0.664,
        labels=("unacceptable", "acceptable"),
        metrics=("matthews_correlation", "accuracy"),
        chance=0.0,
        sizes=_sizes(8551, 1043, 1063),
    ),
    _glue(
        "sst2",
        "is the film review positive?",
        ("sentence",),
        0.978,
        labels=("negative", "positive"),
        sizes=_sizes(67349, 872, 1821),
    ),
    _glue(
        "mrpc",
        "do the two sentences mean the same?",
        _PAIR,
        0.808,
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        sizes=_sizes(3668, 408, 1725),
    ),
    _glue(
        "qqp",
        "do the two questions ask the same?",
        ("question1", "question2"),
        0.804,
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        sizes=_sizes(363846, 40430, 390965),
    ),
    _glue(
        "stsb",
        "how similar are the two sentences, from 0 to 5?",
        _PAIR,
        0.927,
        kind="regression",
        metrics=("pearson", "spearman"),
        chance=0.0,
        sizes=_sizes(5749, 1500, 1379),
    ),
    _glue(
        "mnli",
        "does the premise entail, contradict, or leave open the hypothesis?",
        ("premise", "hypothesis"),
        0.920,
        labels=("entailment", "neutral", "contradiction"),
        chance=1 / 3,
        evaluation_splits=("validation_matched", "validation_mismatched"),
        splits=(
            "train",
            "validation_matched",
            "validation_mismatched",
            "test_matched",
            "test_mismatched",
        ),
        sizes={
            "train": 392702,
            "validation_matched": 9815,
            "validation_mismatched": 9832,
            "test_matched": 9796,
            "test_mismatched": 9847,
        },
    ),
    _glue(
        "qnli",
        "does the sentence answer the question?",
        ("question", "sentence"),
        0.912,
        labels=("entailment", "not_entailment"),
        sizes=_sizes(104743, 5463, 5463),
    ),
    _glue(
        "rte",
        "does the first text entail the second?",
        _PAIR,
        0.936,
        labels=("entailment", "not_entailment"),
        sizes=_sizes(2490, 277, 3000),
    ),
    _glue(
        "wnli",
        "does the sentence with the pronoun replaced follow?",
        _PAIR,
        0.959,
        labels=("not_entailment", "entailment"),
        sizes=_sizes(635, 71, 146),
    ),
)
