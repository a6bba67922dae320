"""From a row of a data set to examples, with what is wrong in it told by its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.tasks.task import Row, Task

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Example:
    """One example; what its kind of task has not stays empty.

    `label` is the class, the number, or the index of the right option; of a translation, the index
    of its direction among those asked for.
    """

    id: str
    texts: tuple[str, ...]
    label: float = 0.0
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()  # any of them is right; the first is the one to learn
    equation: str = ""
    context: str | None = None
    pair: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)  # columns that prompts are filled with


def value_at(row: Row, column: str) -> Any:
    """The value of a column, or of a column within a column: "choices.text".

    Raises:
        KeyError: there is none.
    """
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(column)
        value = value[part]
    return value


@dataclass(frozen=True)
class _Reader:
    """Reads one row; what is wrong with it is said with its place."""

    task: Task
    where: str
    number: int
    row: Row

    def wrong(self, message: str) -> RequestError:
        return RequestError(f"{self.where}, row {self.number}: {message}")

    def value(self, column: str) -> Any:
        try:
            return value_at(self.row, column)
        except KeyError:
            raise self.wrong(
                f"column {column!r} is missing; task {self.task.name!r} needs "
                f"{', '.join(self.task.columns)}, the row has {', '.join(map(str, self.row))}"
            ) from None

    def text(self, column: str) -> str:
        found = self.value(column)
        if not isinstance(found, str):
            raise self.wrong(f"{column!r} is not text: {found!r}")
        return found

    def numeric(self, column: str) -> float:
        found = self.value(column)
        try:
            if isinstance(found, bool):
                raise ValueError
            number = float(found)
        except (TypeError, ValueError):
            raise self.wrong(f"{column} {found!r} is not a number") from None
        if not math.isfinite(number):
            raise self.wrong(f"{column} {found!r} is not a number")
        return number

    def listed(self, column: str) -> tuple[str, ...]:
        """Texts of a list, of one text, or of what data sets keep a list in."""
        found = self.value(column)
        if isinstance(found, Mapping):
            nested = found.get("text") or [found.get("value"), *found.get("aliases", ())]
            found = [text for text in nested if text]
        texts = [found] if isinstance(found, str) else found
        if (
            not isinstance(texts, list | tuple)
            or not texts
            or not all(isinstance(text, str) for text in texts)
        ):
            raise self.wrong(f"{column!r} is neither a text nor a list of texts: {found!r}")
        return tuple(dict.fromkeys(texts))

    def class_(self, column: str, names: Sequence[str]) -> float:
        """A class by its name or its number."""
        value = self.value(column)
        if isinstance(value, str) and value in names:
            return float(names.index(value))
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return float(value)
        hidden = "; the labels of this split are hidden, use another" if value in (-1, "") else ""
        raise self.wrong(
            f"label {value!r} is none of 0 to {len(names) - 1} ({', '.join(names)}){hidden}"
        )

    def options(self) -> tuple[str, ...]:
        columns = self.task.options
        if len(columns) > 1:
            return tuple(self.text(column) for column in columns)
        found = self.value(columns[0])
        if (
            not isinstance(found, list | tuple)
            or len(found) < 2
            or not all(isinstance(text, str) for text in found)
        ):
            raise self.wrong(f"{columns[0]!r} is no list of two or more texts: {found!r}")
        return tuple(found)

    def option_names(self, count: int) -> Sequence[str]:
        """What the row calls its options: as in `choices.label` beside `choices.text`."""
        if self.task.labels:
            return self.task.labels[:count]
        column = self.task.options[0]
        if len(self.task.options) == 1 and "." in column:
            beside = column.rpartition(".")[0] + ".label"
            try:
                names = value_at(self.row, beside)
            except KeyError:
                names = None
            if names is not None and len(names) == count:
                return [str(name) for name in names]
        return list(LETTERS[:count])

    def filled(self) -> dict[str, str]:
        """The columns that prompts name."""
        return {name: self.text(name) for name in self.task.prompted}


def _examples(read: _Reader) -> Iterator[Example]:
    """The examples of one row: one, but for a translation, which has one per direction."""
    task = read.task
    name = str(read.row.get("idx", read.row.get("id", read.number - 1)))
    if task.kind == "translation":
        yield from _translations(read, name)
        return
    texts = tuple(read.text(column) for column in task.texts)
    if task.kind == "classification":
        yield Example(name, texts, read.class_(task.label, task.labels))
    elif task.kind == "regression":
        yield Example(name, texts, read.numeric(task.label))
    elif task.kind == "multiple-choice":
        options = read.options()
        if task.blank and task.blank not in texts[0]:
            raise read.wrong(f"{task.texts[0]!r} has no blank {task.blank!r}: {texts[0]!r}")
        right = read.class_(task.label, read.option_names(len(options)))
        yield Example(name, texts, right, options=options, fields=read.filled())
    elif task.kind == "arithmetic":
        answer = read.numeric(task.answers)
        equation = read.text(task.equation)
        yield Example(name, texts, answer, equation=equation, fields=read.filled())
    elif task.kind == "question-answering":
        found = read.row.get(task.context) if task.context else None
        context = found if isinstance(found, str) and found.strip() else None
        answers = read.listed(task.answers)
        yield Example(name, texts, answers=answers, context=context, fields=read.filled())
    else:
        yield Example(name, texts)


def _translations(read: _Reader, name: str) -> Iterator[Example]:
    column = read.task.texts[0]
    for index, pair in enumerate(read.task.pairs):
        source, target = (read.text(f"{column}.{code}") for code in pair.split("-"))
        yield Example(f"{name}:{pair}", (source,), index, answers=(target,), pair=pair)


def examples_of(task: Task, where: str, rows: Sequence[Row]) -> tuple[Example, ...]:
    """The examples of rows, each row checked.

    Args:
        task: says which columns there are.
        where: where the rows come from, for messages.
        rows: rows of one split.

    Raises:
        RequestError: a column is missing, a value is of the wrong type, a label is not the task's,
            a name occurs twice, or there are no rows.
    """
    if not rows:
        raise RequestError(f"{where}: no examples")
    found: list[Example] = []
    for number, row in enumerate(rows, 1):
        found += _examples(_Reader(task, where, number, row))
    seen: set[str] = set()
    for example in found:
        if example.id in seen:
            raise RequestError(
                f"{where}: two rows are called {example.id!r}; idx or id must be unique"
            )
        seen.add(example.id)
    return tuple(found)
