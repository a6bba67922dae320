"""Questions that are answered in a few written words, with a text at hand or without one.

Exact match and F1 follow SQuAD (Rajpurkar et al. 2016): the best over all accepted answers, after
lower-casing and without punctuation and articles.
"""

from __future__ import annotations

from typing import Any

from jdna_cli.difficulty import HumanScore
from jdna_cli.tasks.task import HubSource, Task


def _questions(name: str, description: str, source: HubSource, **rest: Any) -> Task:
    fields: dict[str, Any] = {
        "context": "context",
        "prompt_open": "{context}\n\nQuestion: {question}\nAnswer:",
        **rest,
    }
    return Task(
        name=name,
        description=description,
        kind="question-answering",
        texts=("question",),
        answers="answers",
        prompt="Question: {question}\nAnswer:",
        metrics=("exact_match", "f1"),
        chance=0.0,
        source=source,
        **fields,
    )


TASKS = (
    _questions(
        "squad",
        "what does the paragraph say?",
        HubSource("rajpurkar/squad"),
        human=HumanScore(0.803, "Rajpurkar et al. 2016, arXiv 1606.05250 (development set)"),
        sizes={"train": 87599, "validation": 10570},
    ),
    _questions(
        "nq_open",
        "questions that people asked a search engine",
        HubSource("google-research-datasets/nq_open", columns={"answers": "answer"}),
        sizes={"train": 87925, "validation": 3610},
    ),
    _questions(
        "triviaqa_closed",
        "trivia, without any text to look them up in",
        HubSource("mandarjoshi/trivia_qa", "rc.nocontext", columns={"answers": "answer"}),
        context="",
        prompt_open="",
        sizes={"train": 138384, "validation": 17944},
    ),
)
