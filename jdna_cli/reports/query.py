"""What a report is made from: a database that is only read, and which of its runs are meant."""

from __future__ import annotations

import datetime as dt
import difflib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jdna_cli import clock
from jdna_cli.difficulty import StatedTest
from jdna_cli.errors import RequestError
from jdna_cli.store.reading import Rows

Row = dict[str, Any]
Query = Callable[..., Rows]  # (SQL, parameters) -> rows

# Which runs are dense references: filters on what was pruned leave them in.
_REFERENCE = "(run.regime = 'dense' AND run.pattern IS NULL AND run.teacher IS NULL)"


@dataclass(frozen=True)
class Filters:
    """Which runs a report is about; what is empty filters nothing."""

    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()  # unstructured, N:M for all of those, or one as 2:4
    seeds: tuple[int, ...] = ()
    since: dt.date | None = None
    until: dt.date | None = None  # that day included

    @property
    def given(self) -> dict[str, str]:
        """What was asked, by flag, in words."""
        lists = {"model": self.models, "task": self.tasks, "regime": self.regimes,
                 "criterion": self.criteria, "pattern": self.patterns,
                 "seed": self.seeds}  # fmt: skip
        found = {name: ", ".join(map(str, values)) for name, values in lists.items() if values}
        found |= {"since": str(self.since)} if self.since else {}
        return found | ({"until": str(self.until)} if self.until else {})

    @property
    def of_pruning(self) -> bool:
        """Whether it says something of what was taken away."""
        asked = self.criteria or self.patterns or self.regimes or self.since or self.until
        return bool(asked) and "dense" not in self.regimes

    def where(self) -> tuple[str, list[Any]]:
        """A condition on `run` that starts with AND, and its parameters.

        Dense references of the models, tasks and seeds asked for are always among the runs.
        """
        always: list[str] = []
        values: list[Any] = []
        for column, wanted in (("task", self.tasks), ("seed", self.seeds)):
            if wanted:
                always.append(_among(f"run.{column}", wanted))
                values += wanted
        if self.models:
            # A local model goes by its path, or by the folder's name.
            always.append(f"({' OR '.join([_NAMED] * len(self.models))})")
            values += [value for name in self.models for value in (name, _ending(name))]
        pruned: list[str] = []
        for column, some in (("regime", self.regimes), ("criterion", self.criteria)):
            if some:
                pruned.append(_among(f"run.{column}", some))
                values += some
        if self.patterns:
            exact = tuple(p for p in self.patterns if p != "N:M")
            parts = [_among("run.pattern", exact)] if exact else []
            parts += ["run.pattern LIKE '%:%'"] if "N:M" in self.patterns else []
            pruned.append(f"({' OR '.join(parts)})")
            values += exact
        if self.since:
            pruned.append("run.finished_at >= ?")
            values.append(clock.start_of(self.since))
        if self.until:
            pruned.append("run.finished_at < ?")
            values.append(clock.start_of(self.until + dt.timedelta(days=1)))
        if pruned:
            always.append(f"({_REFERENCE} OR ({' AND '.join(pruned)}))")
        return "".join(f" AND {condition}" for condition in always), values


_NAMED = "run.model = ? OR run.model LIKE ? ESCAPE '!'"


def _ending(name: str) -> str:
    """What LIKE takes for the last part of a path, in which no character is a wildcard."""
    for sign in ("!", "%", "_"):
        name = name.replace(sign, f"!{sign}")
    return f"%/{name}"


def _among(column: str, values: Iterable[object]) -> str:
    return f"{column} IN ({', '.join('?' for _ in values)})"


@dataclass(frozen=True)
class Source:
    """What a report may ask for."""

    query: Query
    home: Path
    filters: Filters = Filters()
    tolerance: float = 0.01  # drop that still counts as none
    runs: tuple[int, ...] = ()  # the runs asked for by number
    figure: str = ""  # the published figure that was asked for
    test: StatedTest | None = None  # what the runs are judged by, stated before them
    arrays: str = "json_array"  # the database's function that puts values into a JSON array
    # What was read or judged before: a page asks for the same many times.
    remembered: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def records(self, sql: str, rest: str = "") -> list[Row]:
        """Rows of a query whose WHERE ends in the filters; `rest` follows them."""
        condition, values = self.filters.where()
        found = self.query(f"{sql}{condition} {rest}", values).records()
        name_models(found)
        return found


def short(model: str | None) -> str:
    """A local model is called by its folder; the data forms have the whole path."""
    model = model or "?"
    local = model.startswith(("/", ".", "~")) or model.count("/") > 1
    return Path(model).name if local else model


def name_models(rows: Iterable[Row]) -> None:
    """Give each row the name of its model, `_name`: two folders of one name with their parents."""
    there = [row for row in rows if "model" in row]
    alike: dict[str, set[str]] = {}
    for model in {row["model"] or "?" for row in there}:
        alike.setdefault(short(model), set()).add(model)
    names = {}
    for name, models in alike.items():
        for model in models:
            ends = model.split("/")
            count = 1
            while (
                len(models) > 1
                and count < len(ends)
                and any(
                    other != model and other.split("/")[-count:] == ends[-count:]
                    for other in models
                )
            ):
                count += 1
            names[model] = name if len(models) == 1 else "/".join(ends[-count:])
    for row in there:
        row["_name"] = names[row["model"] or "?"]


def source_of(
    url: str,
    home: Path,
    filters: Filters | None = None,
    tolerance: float = 0.01,
    runs: tuple[int, ...] = (),
    figure: str = "",
    test: StatedTest | None = None,
) -> Source:
    """What reports are made from.

    Raises:
        RequestError: there is no database, or it has another schema.
    """
    from jdna_cli.store import reading, schema

    reading.require_schema(url, schema.head())
    query = functools.partial(reading.query, url)
    arrays = "json_array" if url.startswith("sqlite:///") else "json_build_array"
    source = Source(
        query, home, tolerance=tolerance, runs=runs, figure=figure, test=test, arrays=arrays
    )
    return source if filters is None else replace(source, filters=filters)


_COLUMNS = ("model", "task", "regime", "criterion", "pattern", "seed")


def explain_nothing(source: Source) -> str:
    """Why no run was found: the first filter that matches none, and what there is instead."""
    given = source.filters.given
    if not source.query("SELECT 1 FROM run WHERE status = 'finished' LIMIT 1", ()).rows:
        return "no run has finished here yet"
    for name in _COLUMNS:
        if name not in given:
            continue
        sql = f"SELECT DISTINCT {name} FROM run WHERE status = 'finished'"  # noqa: S608
        found = (row[0] for row in source.query(sql, ()).rows)
        there = sorted(str(value) for value in found if value is not None)
        names = {known for value in there for known in (value, Path(value).name)}
        names |= {"N:M"} if any(":" in value for value in there) else set()
        wanted = given[name].split(", ")
        if any(value in names for value in wanted):
            continue
        near = difflib.get_close_matches(wanted[0], names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(there[:12])}"
        if not there:
            return f"--{name}: no finished run has a {name}"
        return f"--{name}: no finished run has {wanted[0]!r}: {hint}"
    told = [f"--{name} {value}" for name, value in given.items()]
    return f"no finished run matches {', '.join(told)}{' together' if len(told) > 1 else ''}"


def nothing(source: Source, otherwise: str) -> RequestError:
    """What to raise where a report has no rows."""
    if source.filters.given:
        return RequestError(explain_nothing(source))
    return RequestError(otherwise)
