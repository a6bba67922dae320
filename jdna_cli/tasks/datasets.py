"""From a task and a split to checked examples, from files, the hub, or a generator."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jdna_cli import files
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.tasks.examples import Example, examples_of
from jdna_cli.tasks.reading import READERS
from jdna_cli.tasks.task import FileSource, GeneratedSource, HubSource, Row, Task

SUFFIXES = tuple(READERS)
ROOM = 1_000_000  # examples kept in memory for the next cell of a sweep


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
    found = data_dir / (task.folder or task.name) if data_dir else None
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
    raise RequestError(
        f"{below} has no {split}.jsonl (nor .csv, .tsv, .parquet), which task {task.name!r} needs"
    )


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
        identity = f"files:{':'.join(parts)}"
    elif isinstance(task.source, GeneratedSource):
        identity = f"generated:{task.name}:{task.source.version}"
    else:
        source = _hub(task)
        identity = f"hub:{source.path}:{source.config}@{source.revision or 'main'}"
    from jdna_cli.tasks.built_in import all_tasks

    if all_tasks().get(task.name) is not task:
        from jdna_cli.tasks import task_toml

        # A task of the user's own may change its meaning under the same name.
        described = task_toml.write(task.model_copy(update={"source": None}))
        identity += f":own:{hashlib.sha256(described.encode()).hexdigest()}"
    return identity


def _hub(task: Task) -> Any:
    if task.source is None:
        raise RequestError(
            f"task {task.name!r} is read from files: name a folder DIR that has "
            f"{task.name}/{task.splits[0]}.jsonl with --data-dir DIR"
        )
    return task.source


# ------------------------------------------------------------------------------------------ reading


_KEPT: OrderedDict[tuple[object, ...], Records] = OrderedDict()


def load(task: Task, split: str, data_dir: Path | None) -> Records:
    """Read and check all examples of one split; those read last are kept in memory.

    Raises:
        RequestError: a file or column is missing, a value is of the wrong type, a label is not
            the task's, a name occurs twice, or there are no examples.
        JdnaError: the hub could not be reached.
    """
    if below := folder(task, data_dir):
        file = path(task, split, below)
        key: tuple[object, ...] = (str(file), *files.state(file))
        where, rows = str(file), partial(READERS[file.suffix], file)
    elif isinstance(task.source, GeneratedSource):
        where, rows = f"{task.name}/{split}", partial(task.source.rows, split)
        key = (where, task.source.version)
    else:
        where = f"{_hub(task).path}/{_hub(task).config}/{split}"
        rows, key = partial(_read_hub, task, split), (where, _hub(task).revision)
    key = (*key, task.model_dump_json(exclude={"source"}))
    if key not in _KEPT:
        _KEPT[key] = Records(examples_of(task, where, rows()))
        while len(_KEPT) > 1 and sum(map(len, _KEPT.values())) > ROOM:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    return _KEPT[key]


def _unreachable(source: HubSource) -> str:
    """Why the hub cannot be asked for a data set; nothing where it answers, whatever it says."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        huggingface_hub.HfApi().dataset_info(source.path, revision=source.revision, timeout=10)
    except HfHubHTTPError:
        return ""  # it answered: reading will tell what is wrong
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except Exception as error:  # of httpx, or httpx2: as the library's version has it
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _read_hub(task: Task, split: str) -> list[Row]:
    import datasets

    source = _hub(task)
    datasets.utils.logging.disable_progress_bar()
    silent = _unreachable(source)
    before = datasets.config.HF_HUB_OFFLINE
    # What was read before is still here, and what does not answer is not asked five times.
    datasets.config.HF_HUB_OFFLINE = before or bool(silent)
    try:
        found = datasets.load_dataset(
            source.path,
            source.config,
            split=source.splits.get(split, split),
            revision=source.revision,
        )
    except (OSError, ValueError) as error:
        first = f"the hub could not be asked: {silent}" if silent else str(error).splitlines()[0]
        raise JdnaError(
            f"task {task.name!r}: data set {source.path} could not be loaded ({first}); "
            "with files of your own give --data-dir DIR"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    renamed = {theirs: ours for ours, theirs in source.columns.items()}
    return [{renamed.get(key, key): value for key, value in row.items()} for row in found]
