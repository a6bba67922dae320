"""What a task is called in a table: its name, and in what its requests differ.

Requests of one model, task and split stand beside each other. Those of one kind (fine-tunings, or
evaluations) are told apart by the settings in which they differ; where those of two kinds would
be called the same, the evaluations say what they are; and where the same was asked, the model or
the data has changed in between, and the first run of each is named.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from jdna_cli.difficulty import CONDITIONS
from jdna_cli.reports import cells
from jdna_cli.reports.query import Row, Source, name_models
from jdna_cli.specs import NEUTRAL, PRUNING_FIELDS

# The first run of each recipe says in what recipes differ.
_SPECS = """
SELECT recipe, spec, id, rule, kind FROM run WHERE id IN (
  SELECT MIN(id) FROM run WHERE recipe IS NOT NULL AND task IS NOT NULL{} GROUP BY recipe
)
"""
_IGNORED = PRUNING_FIELDS | NEUTRAL | {"seed", "model"}

_Place = tuple[str, str, str]  # model, task, split


class _Recipe(NamedTuple):
    """What its first run was asked, and under which rule it was measured."""

    spec: dict[str, Any]  # without what is taken from the model, and what changes no result
    run: int
    rule: int
    kind: str


def labelled(source: Source, without: tuple[str, ...] = ()) -> list[Row]:
    """All cells, easy tasks first, each with a `label` for its task.

    Requests that differ only in the fields `without` have one label and one `_family`.
    """
    rows = cells.load(source)
    _label(rows, _recipes(source), without)
    name_models(rows)
    easiest: dict[str, float] = {}
    for row in rows:
        hard = row["difficulty"] if row["difficulty"] is not None else math.inf
        easiest[row["task"]] = min(hard, easiest.get(row["task"], math.inf))
    return sorted(rows, key=lambda row: (easiest[row["task"]], row["task"], _order(row)))


def _recipes(source: Source) -> dict[str, _Recipe]:
    condition, values = source.filters.where()
    recipes = {}
    for name, spec, run, rule, kind in source.query(_SPECS.format(condition), values).rows:
        asked = json.loads(spec) if isinstance(spec, str) else spec
        own = {key: value for key, value in asked.items() if key not in _IGNORED}
        recipes[name] = _Recipe(own, run, rule or 1, kind)
    return recipes


def _order(row: Row) -> tuple[Any, ...]:
    """Within a task: by what makes it harder, then by name and sparsity."""
    hardness, others = _hardness(_conditions_of(row)), _words(_pruning_of(row))
    return (row["split"], hardness, row["label"], row["sparsity"], others)


_conditions_of = operator.itemgetter(*CONDITIONS)
_pruning_of = operator.itemgetter(*cells.PRUNING_COLUMNS)


@functools.cache
def _hardness(values: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(c.hardness(x) for c, x in zip(CONDITIONS.values(), values, strict=True))


@functools.cache
def _words(values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(value or "") for value in values)


def _label(rows: list[Row], recipes: dict[str, _Recipe], without: tuple[str, ...]) -> None:
    plain = {
        name: {field: value for field, value in one.spec.items() if field not in without}
        for name, one in recipes.items()
    }
    families = {name: json.dumps(spec, sort_keys=True) for name, spec in plain.items()}
    # Rows by all that their label depends on: the same for all levels of what is taken.
    alike: dict[tuple[_Place, str, int | None], list[Row]] = {}
    for row in rows:
        row["_family"] = families.get(row["recipe"], row["recipe"])
        place = (row["model"], row["task"], row["split"])
        alike.setdefault((place, row["recipe"], row["sample"]), []).append(row)

    there: defaultdict[tuple[_Place, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    # Recipes of which the same was asked: data, model or rule have changed between them.
    twins: defaultdict[tuple[_Place, str], set[str]] = defaultdict(set)
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for place, name, _ in alike:
        splits[place[1]].add(place[2])
        if name in recipes:
            one = recipes[name]
            there[place, one.kind][families[name]] = plain[name]
            twins[place, json.dumps(one.spec, sort_keys=True)].add(name)
    apart = {key: _told_apart(list(specs.values())) for key, specs in there.items()}
    changed = _changes(twins.values(), recipes)

    parts: dict[tuple[_Place, str, int | None], list[str]] = {}
    for place, name, sample in alike:
        own = [place[2]] if len(splits[place[1]]) > 1 else []
        if name in recipes:
            spec = recipes[name].spec
            fields = apart[place, recipes[name].kind]
            own += [said for field in fields if (said := _setting(field, spec.get(field)))]
        own += [f"{sample} drawn"] if sample else []
        own += [changed[name]] if name in changed else []
        parts[place, name, sample] = own
    # How many families would be called the same.
    called = Counter(
        (place, own)
        for place, _, own in {(k[0], families.get(k[1], k[1]), tuple(p)) for k, p in parts.items()}
    )
    for key, own in parts.items():
        place, name, _ = key
        evaluated = name in recipes and recipes[name].kind == "eval"
        told = ["eval", *own] if evaluated and called[place, tuple(own)] > 1 else own
        label = place[1] + (f" ({', '.join(told)})" if told else "")
        for row in alike[key]:
            row["label"] = label


def _changes(twins: Iterable[set[str]], recipes: dict[str, _Recipe]) -> dict[str, str]:
    """What tells recipes apart of which the same was asked: the rule, else the first run."""
    changes: dict[str, str] = {}
    for names in twins:
        if len(names) < 2:
            continue
        rules = [recipes[name].rule for name in names]
        by_rule = len(set(rules)) == len(rules)
        for name in names:
            one = recipes[name]
            changes[name] = f"rule {one.rule}" if by_rule else f"from run {one.run}"
    return changes


def _told_apart(specs: list[dict[str, Any]]) -> list[str]:
    """The fields of a request in which these differ."""
    if len(specs) == 1:
        return []
    names = dict.fromkeys(name for spec in specs for name in spec)
    return [n for n in names if len({json.dumps(spec.get(n)) for spec in specs}) > 1]


def _setting(name: str, value: Any) -> str:
    """A setting of a task in words; nothing where it is not made."""
    if name == "limit" or value is None or value is False or value == []:
        return ""
    if name == "pairs" and value.count(",") > 1:
        return f"{value.count(',') + 1} directions"
    name = name.replace("_", " ")
    return name if value is True else f"{name} {value}"
