"""A task as data: its kind, its columns, its prompts, its metrics, and where its examples are.

The same fields written in a TOML file make a task of a user's own (`user_tasks.py`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, model_validator

from jdna_cli.difficulty import HumanScore
from jdna_cli.errors import RequestError

Row = Mapping[str, Any]
Kind = Literal[
    "classification",
    "regression",
    "multiple-choice",
    "arithmetic",
    "question-answering",
    "translation",
    "language-modelling",
]


@dataclass(frozen=True)
class HubSource:
    """A data set of the model hub: repository, configuration, and the revision it is pinned to.

    `splits` and `columns` say where the hub's names differ from the task's own.
    """

    path: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FileSource:
    """A folder of files of the user's own: SPLIT.jsonl, .csv, or .tsv."""

    folder: Path


@dataclass(frozen=True)
class GeneratedSource:
    """A data set made on the spot. `version` changes whenever a row does."""

    rows: SkipValidation[Callable[[str], list[Row]]]
    version: str


@dataclass(frozen=True)
class KindRules:
    """What a task of one kind must say, what it may say besides, and what it is measured by."""

    needs: frozenset[str]
    may: frozenset[str]
    metrics: tuple[str, ...]


def _kind(needs: str, may: str, metrics: str) -> KindRules:
    return KindRules(frozenset(needs.split()), frozenset(may.split()), tuple(metrics.split()))


_CLASSES = "accuracy f1 macro_f1 matthews_correlation"
KINDS: dict[str, KindRules] = {
    "classification": _kind("texts labels", "label", _CLASSES),
    "regression": _kind("texts", "label", "pearson spearman"),
    "multiple-choice": _kind(
        "options label",
        "texts labels prompt header group blank answer_with",
        "accuracy accuracy_norm",
    ),
    "arithmetic": _kind(
        "texts answers equation", "prompt header group instruction answer_tokens", "accuracy"
    ),
    "question-answering": _kind(
        "texts answers prompt",
        "context prompt_open header group instruction answer_tokens",
        "exact_match f1",
    ),
    "translation": _kind(
        "texts pairs", "majority minority prompt instruction answer_tokens", "bleu chrf"
    ),
    "language-modelling": _kind("texts", "separator", "perplexity"),
}
# Fields that only some kinds have.
_PARTICULAR = frozenset[str]().union(*(rules.needs | rules.may for rules in KINDS.values()))
_TEMPLATES = ("prompt", "prompt_open", "instruction", "header")
# Names that a prompt may use besides the columns of its rows.
_FILLED = {
    "multiple-choice": {"listing"},
    "translation": {"source", "source_language", "target_language"},
}


class Task(BaseModel):
    """One task. Scores are fractions; the first of `metrics` is the main one."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str
    kind: Kind
    metrics: tuple[str, ...] = Field(min_length=1)
    chance: float | None = Field(default=None, ge=0, lt=1)
    human: HumanScore | None = None
    # Of its files below --data-dir, where it shares those of another task.
    folder: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    # Without a source of its own, a task is read from --data-dir alone.
    source: HubSource | FileSource | GeneratedSource | None = None
    evaluation_splits: tuple[str, ...] = Field(default=("validation",), min_length=1)
    splits: tuple[str, ...] = Field(default=("train", "validation", "test"), min_length=1)
    sizes: dict[str, int] = {}  # examples per split, as published

    # Columns of a row; "choices.text" is a column within a column.
    texts: tuple[str, ...] = ()
    label: str = "label"
    labels: tuple[str, ...] = ()  # classes, or the names that a row gives its options
    options: tuple[str, ...] = ()  # columns of one option each, or one column of a list
    answers: str = ""
    equation: str = ""
    context: str = ""

    # How it is put to a model that writes text.
    prompt: str = ""
    prompt_open: str = ""  # with a context
    instruction: str = ""  # for encoder-decoders, where it differs from `prompt`
    header: str = ""  # before the shots; underscores in what fills it are spaces
    group: str = ""  # column whose value a question shares with its shots
    blank: str = ""  # stands in the text where the option belongs
    answer_with: Literal["text", "letter"] = "text"
    answer_tokens: int = Field(default=32, ge=1)
    separator: str = "\n\n"  # between rows of a running text
    pairs: tuple[str, ...] = ()  # directions of translation, those of the first mixtures first
    majority: tuple[str, ...] = ()
    minority: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        rules = KINDS[self.kind]
        given = self.model_fields_set & _PARTICULAR
        for name in sorted(rules.needs):
            if name not in given or not getattr(self, name):
                raise ValueError(f"{name}: a task of kind {self.kind!r} needs it")
        for name in sorted(given - rules.needs - rules.may):
            raise ValueError(f"{name}: a task of kind {self.kind!r} has no such key")
        for name in self.metrics:
            if name not in rules.metrics:
                known = ", ".join(rules.metrics)
                raise ValueError(f"metrics: {name!r} does not fit {self.kind!r}, use {known}")
        if self.kind == "classification" and len(self.labels) < 2:
            raise ValueError("labels: a classification needs two or more")
        if self.kind == "classification" and "f1" in self.metrics and len(self.labels) > 2:
            raise ValueError("metrics: f1 is that of the second of two labels, use macro_f1")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: one occurs twice")
        if self.kind == "multiple-choice" and not (self.texts or self.blank):
            raise ValueError("texts: name the column of the question")
        for name in self.splits:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise ValueError(f"splits: {name!r} is no name of a split")
        if unknown := set(self.evaluation_splits) - set(self.splits):
            raise ValueError(f"evaluation_splits: {min(unknown)!r} is not among splits")
        for name in _TEMPLATES:
            template_names(getattr(self, name), name)
        for name in template_names(self.header, "header"):
            if name in _FILLED.get(self.kind, set()) | {self.context}:
                raise ValueError(f"header: {{{name}}} stands in the prompt, not before the shots")
        return self

    @property
    def metric(self) -> str:
        """Name of the main metric, by which runs are compared."""
        return self.metrics[0]

    @property
    def outputs(self) -> int:
        """Number of outputs of the task's head: one per class, or one number."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that a row must have."""
        own: list[str] = [*self.texts]
        if self.kind in ("classification", "regression", "multiple-choice"):
            own += [*self.options, self.label]
        if self.kind in ("arithmetic", "question-answering"):
            own += [self.answers, *([self.equation] if self.equation else [])]
        return tuple(dict.fromkeys([*own, *self.prompted]))

    @property
    def prompted(self) -> tuple[str, ...]:
        """Columns that prompts are filled with."""
        names = [name for key in _TEMPLATES for name in template_names(getattr(self, key), key)]
        names += [self.group] if self.group else []
        given = _FILLED.get(self.kind, set()) | {self.context}
        return tuple(dict.fromkeys(name for name in names if name not in given))


def template_names(template: str, key: str) -> list[str]:
    """Names in braces in a prompt.

    Raises:
        ValueError: a brace is not closed, or holds more than a name.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"{key}: {{{name}}} is no name of a column")
    return names


def check_split(task: Task, split: str) -> str:
    """Return `split` if the task has it.

    Raises:
        RequestError: it has not; the message names those it has.
    """
    if split in task.splits:
        return split
    raise RequestError(
        f"task {task.name!r} has no split {split!r}: it has {', '.join(task.splits)}"
    )
