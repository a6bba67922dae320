"""From a task and a split to checked examples, from files, the hub, or a generator."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.tasks import FileSource, GeneratedSource, Row, Task

SUFFIXES = (".jsonl", ".csv", ".tsv")
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


@dataclass(frozen=True)
class Records:
    """The examples of one split."""

    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The texts of each example."""
        return tuple(example.texts for example in self.examples)

    @property
    def labels(self) -> tuple[float, ...]:
        """The label of each example."""
        return tuple(example.label for example in self.examples)

    @property
    def ids(self) -> tuple[str, ...]:
        """The name of each example."""
        return tuple(example.id for example in self.examples)

    def chosen(self, indices: Sequence[int]) -> Records:
        """The examples at `indices`, in that order."""
        return Records(tuple(self.examples[i] for i in indices))


# ----------------------------------------------------------------------------------- where they are


def folder(task: Task, data_dir: Path | None) -> Path | None:
    """The folder of the task's files: its own, or the one below `data_dir`, if there is one."""
    if isinstance(task.source, FileSource):
        return task.source.folder
    found = data_dir / task.name if data_dir else None
    return found if found and found.is_dir() else None


def path(task: Task, split: str, below: Path) -> Path:
    """The file of one split.

    Raises:
        RequestError: it is missing.
    """
    names = [split, "validation"] if split == "validation_matched" else [split]
    for name in names:
        for suffix in SUFFIXES:
            if (found := below / f"{name}{suffix}").is_file():
                return found
    raise RequestError(f"{below} has no {split}.jsonl, which task {task.name!r} needs")


def has(task: Task, split: str, data_dir: Path | None) -> bool:
    """Whether the split can be expected: its file stands there, or its source has it."""
    if split not in task.splits:
        return False
    if below := folder(task, data_dir):
        return any((below / f"{split}{suffix}").is_file() for suffix in SUFFIXES)
    return task.source is not None


def identity(task: Task, splits: Sequence[str], data_dir: Path | None) -> str:
    """What the examples of `splits` are, by content: part of a run's fingerprint.

    Raises:
        RequestError: they are nowhere to be found.
    """
    if below := folder(task, data_dir):
        parts = [hashlib.sha256(path(task, s, below).read_bytes()).hexdigest() for s in splits]
        found = f"files:{':'.join(parts)}"
    elif isinstance(task.source, GeneratedSource):
        found = f"generated:{task.name}:{task.source.version}"
    else:
        source = _hub(task)
        found = f"hub:{source.path}:{source.config}@{source.revision or 'main'}"
    from jdna_cli.tasks import all_tasks

    if all_tasks().get(task.name) is not task:
        from jdna_cli.tasks import own

        # A task of the user's own may change its meaning under the same name.
        described = own.write(task.model_copy(update={"source": None}))
        found += f":own:{hashlib.sha256(described.encode()).hexdigest()}"
    return found


def _hub(task: Task) -> Any:
    if task.source is None:
        raise RequestError(
            f"task {task.name!r} is read from files: name a folder DIR that has "
            f"{task.name}/{task.splits[0]}.jsonl with --data-dir DIR"
        )
    return task.source


# ------------------------------------------------------------------------------------------ reading


def load(task: Task, split: str, data_dir: Path | None) -> Records:
    """Read and check all examples of one split.

    Raises:
        RequestError: a file or column is missing, a value is of the wrong type, a label is not
            the task's, a name occurs twice, or there are no examples.
        JdnaError: the hub could not be reached.
    """
    if below := folder(task, data_dir):
        file = path(task, split, below)
        where, rows = str(file), _read_lines(file) if file.suffix == ".jsonl" else _read_table(file)
    elif isinstance(task.source, GeneratedSource):
        where, rows = f"{task.name}/{split}", task.source.rows(split)
    else:
        where, rows = f"{_hub(task).path}/{_hub(task).config}/{split}", _read_hub(task, split)
    return _checked(task, where, rows)


def _read_lines(file: Path) -> list[Row]:
    rows: list[Row] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RequestError(f"{file}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise RequestError(f"{file}, line {number}: not a JSON object")
            rows.append(row)
    return rows


def _read_table(file: Path) -> list[Row]:
    dialect = "excel-tab" if file.suffix == ".tsv" else "excel"
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, dialect=dialect, strict=True))
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise RequestError(f"{file}, row {number}: not as many values as the first line has")
    return list(rows)


def _read_hub(task: Task, split: str) -> list[Row]:
    import datasets

    source = _hub(task)
    datasets.utils.logging.disable_progress_bar()
    try:
        found = datasets.load_dataset(
            source.path,
            source.config,
            split=source.splits.get(split, split),
            revision=source.revision,
        )
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise JdnaError(
            f"task {task.name!r}: data set {source.path} could not be loaded ({first}); "
            "with files of your own give --data-dir DIR"
        ) from error
    renamed = {theirs: ours for ours, theirs in source.columns.items()}
    return [{renamed.get(key, key): value for key, value in row.items()} for row in found]


# ----------------------------------------------------------------------------------------- checking


def value_at(row: Row, column: str) -> Any:
    """The value of a column, or of a column within a column: "choices.text".

    Raises:
        KeyError: there is none.
    """
    found: Any = row
    for part in column.split("."):
        if not isinstance(found, Mapping):
            raise KeyError(column)
        found = found[part]
    return found


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


def _checked(task: Task, where: str, rows: Sequence[Row]) -> Records:
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
    return Records(tuple(found))
