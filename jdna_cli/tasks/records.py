"""From a task's name and a split to checked examples, from files, the hub, or a generator."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.tasks import GeneratedSource, Row, Task


@dataclass(frozen=True)
class Records:
    """The examples of one split: texts (one or two each), labels, and names of examples."""

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: Sequence[int]) -> Records:
        """The examples at `indices`, in that order."""
        return Records(
            tuple(self.texts[i] for i in indices),
            tuple(self.labels[i] for i in indices),
            tuple(self.ids[i] for i in indices),
        )


def folder(task: Task, data_dir: Path | None) -> Path | None:
    """The folder of the task's files below `data_dir`, if there is one."""
    found = data_dir / task.name if data_dir else None
    return found if found and found.is_dir() else None


def path(task: Task, split: str, below: Path) -> Path:
    """The file of one split.

    Raises:
        RequestError: it is missing.
    """
    names = [split, "validation"] if split == "validation_matched" else [split]
    for name in names:
        if (found := below / f"{name}.jsonl").is_file():
            return found
    raise RequestError(f"{below} has no {split}.jsonl, which task {task.name!r} needs")


def identity(task: Task, splits: Sequence[str], data_dir: Path | None) -> str:
    """What the examples of `splits` are, by content: part of a run's fingerprint."""
    if below := folder(task, data_dir):
        parts = [hashlib.sha256(path(task, s, below).read_bytes()).hexdigest() for s in splits]
        return f"files:{':'.join(parts)}"
    if isinstance(task.source, GeneratedSource):
        return f"generated:{task.name}:{task.source.version}"
    return f"hub:{task.source.path}:{task.source.config}@{task.source.revision or 'main'}"


def load(task: Task, split: str, data_dir: Path | None) -> Records:
    """Read and check all examples of one split.

    Raises:
        RequestError: a file or column is missing, a value is of the wrong type, a label is not
            the task's, a name occurs twice, or there are no examples.
        JdnaError: the hub could not be reached.
    """
    if below := folder(task, data_dir):
        where, rows = str(path(task, split, below)), _read_lines(path(task, split, below))
    elif isinstance(task.source, GeneratedSource):
        where, rows = f"{task.name}/{split}", task.source.rows(split)
    else:
        where, rows = f"{task.source.path}/{task.source.config}/{split}", _read_hub(task, split)
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


def _read_hub(task: Task, split: str) -> list[Row]:
    import datasets

    source = task.source
    assert not isinstance(source, GeneratedSource)
    datasets.utils.logging.disable_progress_bar()
    try:
        found = datasets.load_dataset(
            source.path, source.config, split=split, revision=source.revision
        )
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise JdnaError(
            f"task {task.name!r}: data set {source.path} could not be loaded ({first}); "
            "with files of your own give --data-dir DIR"
        ) from error
    return [dict(row) for row in found]


def _checked(task: Task, where: str, rows: Sequence[Row]) -> Records:
    if not rows:
        raise RequestError(f"{where}: no examples")
    wanted = [*task.texts, task.label]
    texts, labels, ids = [], [], []
    for number, row in enumerate(rows, 1):
        for column in wanted:
            if column not in row:
                raise RequestError(
                    f"{where}, row {number}: column {column!r} is missing; task {task.name!r} "
                    f"needs {', '.join(wanted)}, the row has {', '.join(map(str, row))}"
                )
        parts = tuple(row[column] for column in task.texts)
        for column, part in zip(task.texts, parts, strict=True):
            if not isinstance(part, str):
                raise RequestError(f"{where}, row {number}: {column!r} is not text: {part!r}")
        texts.append(parts)
        labels.append(_label(task, where, number, row[task.label]))
        ids.append(str(row.get("idx", row.get("id", number - 1))))
    if len(set(ids)) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise RequestError(f"{where}: two rows are called {twice!r}; idx or id must be unique")
    return Records(tuple(texts), tuple(labels), tuple(ids))


def _label(task: Task, where: str, number: int, value: Any) -> float:
    if task.kind == "regression":
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise RequestError(f"{where}, row {number}: label {value!r} is not a number")
    if isinstance(value, str) and value in task.labels:
        return float(task.labels.index(value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(task.labels):
        return float(value)
    hidden = "; the labels of this split are hidden, use another" if value == -1 else ""
    raise RequestError(
        f"{where}, row {number}: label {value!r} is none of 0 to {len(task.labels) - 1} "
        f"({', '.join(task.labels)}){hidden}"
    )
