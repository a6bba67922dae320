"""Experiments as TOML files: what is fixed, what is varied, and what is done with each cell.

```toml
title = "Data adequacy"
command = "finetune"         # or eval
seeds = [41, 42, 43]
report = "drop"

[fixed]                      # settings of every cell
model = "FacebookAI/roberta-large"

[axes]                       # every combination of these
task = ["qnli", "sst2"]
data_fraction = [1.0, 0.5]

[task.sst2]                  # settings of one task alone
max_length = 64

[[levels]]                   # each with every combination; dense cells come by themselves
sparsity = [0.3, 0.5]        # a list stands for one level each
[[ways]]                     # how something is taken away, each with every level
criterion = "magnitude"

[[then]]                     # what is done with each cell afterwards
command = "interpolate"      # with its dense one; or eval

[test]                       # stated before the runs: `report verdict --experiment` reads it
axis = "difficulty"          # or a condition, as options
direction = "rising"         # drops rise from easy to hard; falling, or either (two-sided)
correction = "holm"          # for the number of comparisons; or none
```
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jdna_cli import registry
from jdna_cli.difficulty import StatedTest
from jdna_cli.errors import RequestError
from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, Precision, PruneSpec

Table = dict[str, Any]
DENSE = "dense"  # as a teacher: the dense cell of the same settings

_FIELDS = {
    "finetune": frozenset(FinetuneSpec.model_fields),
    "eval": frozenset(EvalSpec.model_fields) | frozenset(PruneSpec.model_fields) - {"packed"},
    "interpolate": frozenset(InterpolateSpec.model_fields) - {"model", "other", "task"},
}


MOST_CELLS = 100_000


class Experiment(BaseModel):
    """One file, as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    question: str = ""
    source: str = ""  # the figure that it reproduces
    command: Literal["finetune", "eval"] = "finetune"
    report: str = "drop"
    seeds: tuple[int, ...] = Field((41,), min_length=1)
    dense: bool = True
    fixed: Table = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    task: dict[str, Table] = Field(default_factory=dict)
    levels: tuple[Table, ...] = ()
    ways: tuple[Table, ...] = ()
    then: tuple[Table, ...] = ()
    test: StatedTest | None = None

    @property
    def count(self) -> int:
        """About how many cells there will be, from the lengths of the lists alone."""
        axes = math.prod(len(values) for values in self.axes.values())
        levels = sum(map(_sizes, self.levels)) * (sum(map(_sizes, self.ways)) or 1)
        then = 1 + sum(map(_sizes, self.then))
        return axes * len(self.seeds) * (levels + 1) * then

    @cached_property
    def points(self) -> list[Table]:
        """Every combination of the axes, with what is fixed, for all tasks or for one."""
        points = [{**self.fixed, **point} for point in _grid(self.axes)]
        return [{**point, **self.task.get(str(point["task"]), {})} for point in points]

    @cached_property
    def amounts(self) -> list[Table]:
        """Every way at every level."""
        ways = [own for way in self.ways for own in _expanded(way)] or [{}]
        levels = [own for level in self.levels for own in _expanded(level)]
        return [{**way, **level} for way in ways for level in levels]

    @cached_property
    def afterwards(self) -> list[Table]:
        """What is done with each cell."""
        return [own for table in self.then for own in _expanded(table)]


def with_precision(experiment: Experiment, precision: Precision) -> Experiment:
    """An experiment whose cells are all computed in one precision where it says "auto".

    Cells are compared with each other: what is faster is decided once, not by each worker.
    """

    def settled(value: Any) -> Any:
        if isinstance(value, list):
            return list(dict.fromkeys(map(settled, value)))
        return precision if value == "auto" else value

    def of(table: Table) -> Table:
        own = table.get("mixed_precision")
        return table if own is None else {**table, "mixed_precision": settled(own)}

    several = {n: tuple(map(of, getattr(experiment, n))) for n in ("levels", "ways", "then")}
    single = {n: of(getattr(experiment, n)) for n in ("fixed", "axes")}
    return experiment.model_copy(update={**single, **several})


def says_auto(experiment: Experiment) -> bool:
    """Whether an experiment leaves its precision to the machine."""
    tables = (
        experiment.fixed,
        experiment.axes,
        *experiment.levels,
        *experiment.ways,
        *experiment.then,
    )
    own = [table.get("mixed_precision") for table in tables]
    return any(one == "auto" or (isinstance(one, list) and "auto" in one) for one in own)


def _sizes(table: Table) -> int:
    """How many tables one stands for."""
    lists = (v for k, v in table.items() if isinstance(v, list) and k not in LISTS)
    return math.prod(map(len, lists))


def _grid(axes: Mapping[str, list[Any]]) -> Iterator[Table]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _expanded(table: Table) -> Iterator[Table]:
    """A table whose lists stand for one table each; lists of patterns of names do not."""
    lists = {k: v for k, v in table.items() if isinstance(v, list) and k not in LISTS}
    for point in _grid(lists):
        yield {**table, **point}


LISTS = ("include", "exclude", "lora_targets", "log_with")  # settings that are lists themselves


def read(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        RequestError: names the file, the line, and the key that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8: byte {error.start} is none of it") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Experiment:
    """`read`, of a text; `where` stands in messages."""
    try:
        found = Experiment(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{where}: {error}") from None
    except RecursionError:
        raise RequestError(f"{where}: values are nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = str(first["loc"][0])
        raise RequestError(f"{where}{_line(text, key)}: {key}: {first['msg']}") from None
    if not found.dense and not found.levels:
        raise RequestError(f"{where}: there are no cells: give [[levels]], or leave dense = true")
    tables = [("fixed", found.fixed), ("axes", found.axes)]
    tables += [("levels", table) for table in found.levels]
    tables += [("ways", table) for table in found.ways]
    tables += [(f"task.{name}", table) for name, table in found.task.items()]
    for section, table in tables:
        for key in table:
            _check_key(text, where, section, key, _FIELDS[found.command])
    for key, values in found.axes.items():
        if not isinstance(values, list) or not values:
            raise RequestError(f"{where}{_line(text, key, 'axes')}: {key}: an axis is a list")
    for table in found.then:
        command = table.get("command")
        if command not in ("eval", "interpolate"):
            raise RequestError(
                f"{where}{_line(text, 'then')}: then: command is eval or interpolate"
            )
        known = _FIELDS[command] - {"model", "task"} | {"command"}
        for key in table:
            _check_key(text, where, "then", key, known)
    if found.count > MOST_CELLS:
        raise RequestError(
            f"{where}: it has about {found.count:,} cells, more than {MOST_CELLS:,}: divide it"
        )
    tasks = [*found.axes.get("task", []), found.fixed.get("task")]
    for name in found.task:
        if name not in tasks:
            raise RequestError(f"{where}{_line(text, 'task.' + name)}: no cell is of task {name!r}")
    if "model" not in found.fixed and "model" not in found.axes:
        raise RequestError(f"{where}: [fixed] or [axes] must name a model")
    if "task" not in found.fixed and "task" not in found.axes:
        raise RequestError(f"{where}: [fixed] or [axes] must name a task")
    if "seed" in found.fixed or "seed" in found.axes:
        raise RequestError(f"{where}{_line(text, 'seed')}: seed: seeds stand in `seeds = [41]`")
    return found


def _check_key(
    text: str, where: str, section: str, key: str, known: frozenset[str] | set[str]
) -> None:
    try:
        registry.check("setting", key, known)
    except RequestError as error:
        line = _line(text, key, section)
        raise RequestError(f"{where}{line}: [{section}] {error}") from None


def _line(text: str, key: str, section: str | None = None) -> str:
    """`, line N` of a key, in a section where one is named."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)", line):
            current = header[1]
            if header[1] == key and section is None:
                return f", line {number}"
        if re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line) and section in (None, current):
            return f", line {number}"
    return ""


# ------------------------------------------------------------------------------------ the catalogue


def names() -> list[str]:
    """Names of the experiments that come with jdna, as in `cross-task/small`."""
    top = resources.files("jdna_cli.sweeps") / "catalogue"
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.toml')}"
        for folder in top.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    )


def on_model(experiment: Experiment, model: str) -> Experiment:
    """The experiment on one model in place of its own."""
    axes = {name: values for name, values in experiment.axes.items() if name != "model"}
    fixed = {**experiment.fixed, "model": model}
    return experiment.model_copy(update={"fixed": fixed, "axes": axes})


def find(name: str) -> Experiment:
    """The experiment of a name, or of a file.

    Raises:
        RequestError: there is none, or it is wrong.
    """
    if name.endswith(".toml"):
        return read(Path(name))
    registry.check("experiment", name, names())
    folder, _, file = name.partition("/")
    found = resources.files("jdna_cli.sweeps") / "catalogue" / folder / f"{file}.toml"
    return parse(found.read_text(encoding="utf-8"), name)
