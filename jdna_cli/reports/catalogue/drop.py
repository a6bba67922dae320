"""`drop`: performance lost by task difficulty and sparsity. The paper's main question.

For each model, regime and criterion: tasks from easy to hard as rows, sparsities as columns, and
in each cell the mean drop (1 − score / dense score) with its standard deviation over seeds. What
was not run is empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.reports import Query, Row, plots
from jdna_cli.reports.tables import Section
from jdna_cli.specs import NEUTRAL, PRUNING_FIELDS
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

EMPTY = "no finished fine-tuning or evaluation is recorded yet"
_PATTERNS = ("unstructured", "N:M", "dense")
_SECTION = (
    "model",
    "regime",
    "criterion",
    "scope",
    "prunable",
    "bits",
    "calibration",
    "schedule",
    "teacher",
)

# The first run of each recipe says in what recipes differ.
_SPECS = """
SELECT run.recipe, run.spec FROM run JOIN (
  SELECT recipe, MIN(id) AS id FROM run
  WHERE recipe IS NOT NULL AND task IS NOT NULL GROUP BY recipe
) AS earliest ON earliest.id = run.id
"""


def rows(query: Query) -> list[Row]:
    """All rows of `performance_drop`, easy tasks first, each with a label for its task."""
    found = query("SELECT * FROM performance_drop").records()
    specs = {
        recipe: json.loads(spec) if isinstance(spec, str) else spec
        for recipe, spec in query(_SPECS).rows
    }
    labels = _labels(found, specs)
    for row in found:
        row["label"] = labels[row["task"], row["split"], row["recipe"]]
    easiest: dict[str, float] = {}
    for row in found:
        hard = row["difficulty"] if row["difficulty"] is not None else math.inf
        easiest[row["task"]] = min(hard, easiest.get(row["task"], math.inf))
    return sorted(found, key=lambda row: (easiest[row["task"]], row["task"], *_order(row)))


def _order(row: Row) -> tuple[Any, ...]:
    """Within a task: by what makes it harder, then by name and sparsity."""
    knobs = (
        row["options"] or math.inf,
        -(row["shots"] or 0),
        row["book"] == "closed",
        row["context_words"] or 0,
        row["mixture"] or 0,
        -(row["data_fraction"] or 0),
    )
    others = (str(row[name] or "") for name in _SECTION)
    return (row["split"], *knobs, row["label"], row["sparsity"], *others)


def _labels(
    found: Sequence[Row], specs: dict[str, dict[str, Any]]
) -> dict[tuple[str, str, str], str]:
    """A name for each task that says in what its recipe differs from the task's others."""
    recipes: dict[tuple[str, str, str], set[str]] = {}
    splits: dict[str, set[str]] = {}
    for row in found:
        recipes.setdefault((row["model"], row["task"], row["split"]), set()).add(row["recipe"])
        splits.setdefault(row["task"], set()).add(row["split"])
    told = {place: _told_apart(own, specs) for place, own in recipes.items()}
    labels: dict[tuple[str, str, str], str] = {}
    for row in found:
        parts = [row["split"]] if len(splits[row["task"]]) > 1 else []
        spec = specs.get(row["recipe"], {})
        fields = told[row["model"], row["task"], row["split"]]
        given = [name for name in fields if spec.get(name) is not None]
        parts += [_setting(name, spec[name]) for name in given]
        label = row["task"] + (f" ({', '.join(parts)})" if parts else "")
        labels[row["task"], row["split"], row["recipe"]] = label
    return labels


def _setting(name: str, value: Any) -> str:
    """A setting of a task in words."""
    if name == "pairs" and value.count(",") > 1:
        return f"{value.count(',') + 1} directions"
    return f"{name.replace('_', ' ')} {value}"


def _told_apart(recipes: set[str], specs: dict[str, dict[str, Any]]) -> list[str]:
    """The fields of a request in which these recipes differ."""
    if len(recipes) == 1:
        return []
    own = [specs[recipe] for recipe in sorted(recipes) if recipe in specs]
    ignored = PRUNING_FIELDS | NEUTRAL | {"seed", "model"}
    names = dict.fromkeys(name for spec in own for name in spec if name not in ignored)
    return [n for n in names if len({json.dumps(spec.get(n)) for spec in own}) > 1]


def _grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """All cells but plain dense ones, by model, regime, criterion, and what is taken."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if not plain(row):
            key = [row[name] for name in _SECTION]
            if row["quantization"]:
                key[_SECTION.index("bits")] = None  # the columns of the table
            groups.setdefault((*key, kind_of(row)), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: tuple(str(x) for x in item[0])))


def plain(row: Row) -> bool:
    """Whether nothing was taken, and nobody taught: what the others are compared with."""
    return row["regime"] == "dense" and not row["pattern"] and not row["teacher"]


def kind_of(row: Row) -> str:
    """What is taken, but for how much: unstructured, N:M, or a way of rounding."""
    if row["quantization"]:
        return str(row["quantization"].partition(" bits ")[2])
    if not row["pattern"]:
        return "dense"
    return "unstructured" if row["pattern"] == "unstructured" else "N:M"


def short(model: str) -> str:
    """A local model is called by its folder; the data forms have the whole path."""
    local = model.startswith(("/", ".", "~")) or model.count("/") > 1
    return Path(model).name if local else model


def _title(key: tuple[Any, ...]) -> str:
    model, regime, criterion, scope, prunable, bits, calibration, schedule, teacher, kind = key
    parts = [short(model), regime]
    if criterion:
        parts.append(f"{criterion}{f' {scope}' if scope else ''}")
    if kind != "dense":
        parts.append(kind)
    words = {"+": "only ", "-": "without "}
    parts += [words[choice[0]] + choice[1:] for choice in (prunable or "").split()]
    if bits not in (None, 32):
        parts.append(f"{bits} bits")
    if calibration:
        parts.append(f"calibrated on {calibration}")
    parts += [schedule] if schedule else []
    parts += [f"taught by {short(teacher)}"] if teacher else []
    return " · ".join(parts)


def _level(row: Row) -> tuple[float, str]:
    """How much is taken, as a number that orders, and in words."""
    if row["quantization"]:
        bits = int(row["quantization"].partition(" ")[0])
        return -bits, f"{bits} bits"
    if not row["pattern"]:
        return 0.0, "dense"
    unstructured = row["pattern"] == "unstructured"
    return row["sparsity"], f"{100 * row['sparsity']:g}%" if unstructured else row["pattern"]


def by_place(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by label, split and recipe, in the order in which they come."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["label"], row["split"], row["recipe"]), []).append(row)
    return found


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model, regime, criterion and kind of pattern."""
    dense = [row for row in rows if plain(row)]
    groups = _grouped(rows)
    if not groups:
        return [_dense_only(dense)] if dense else []
    return [_section(key, members, dense) for key, members in groups.items()]


def _section(key: tuple[Any, ...], members: list[Row], dense: list[Row]) -> Section:
    levels = sorted({_level(row) for row in members})
    bases = {(row["recipe"], row["split"]): row for row in dense}
    table, unmatched, alone = [], 0, False
    for place, own in by_place(members).items():
        cells = {_level(row): row for row in own}
        unmatched += sum(row["mean_relative"] is None for row in own)
        alone = alone or any(row["n"] == 1 for row in own)
        seeds = sorted({row["n"] for row in own})
        # Difficulty is the dense runs' own: a pruned cell may have been run on fewer seeds.
        base = bases.get((place[2], place[1]), own[0])
        table.append(
            [
                place[0],
                own[0]["metric"],
                percent(base["difficulty"]),
                score(base["metric"], base["dense_score"]),
                "–".join(str(n) for n in (seeds if len(seeds) < 2 else (seeds[0], seeds[-1]))),
                *(cell(cells.get(level)) for level in levels),
            ]
        )
    notes = [
        "Drop in % of the dense score, ± standard deviation over seeds; tasks from easy to hard "
        "by (human − dense) / human."
    ]
    if alone:
        notes.append("One seed tells nothing of the spread: such cells have none.")
    if unmatched:
        notes.append(
            f"{unmatched} cells (×) have no dense run with a score above 0 to compare with."
        )
    columns = ("task", "metric", "difficulty", "dense", "seeds", *(name for _, name in levels))
    return Section(f"Performance drop · {_title(key)}", columns, table, tuple(notes))


def _dense_only(dense: list[Row]) -> Section:
    table = [
        [
            r["label"],
            r["metric"],
            percent(r["difficulty"]),
            score(r["metric"], r["score"]),
            str(r["n"]),
        ]
        for r in dense
    ]
    note = "Nothing was pruned yet: `jdna finetune MODEL --task T --sparsity 0.5` makes a drop."
    columns = ("task", "metric", "difficulty", "dense", "seeds")
    return Section("Dense runs only", columns, table, (note,))


def score(metric: str, value: float | None) -> str:
    """A score in percent; a perplexity as it is."""
    if value is None:
        return ""
    return f"{value:.1f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f}"


def percent(value: float | None) -> str:
    """A fraction in percent; nothing where there is none."""
    return "" if value is None else f"{100 * value:.1f}%".replace("-", "−")


def cell(row: Row | None) -> str:
    """A cell's drop with its spread; × where there is nothing to compare it with."""
    if row is None:
        return ""
    if row["mean_relative_drop"] is None:
        return "×"
    text = f"{100 * row['mean_relative_drop']:.1f}"
    if row["sd_relative_drop"] is not None:
        text += f" ± {100 * row['sd_relative_drop']:.1f}"
    # A rounded nothing has no sign.
    return ("0.0" + text[4:] if text.startswith("-0.0") else text).replace("-", "−")


def figure(rows: Sequence[Row], path: Path) -> None:
    """Relative performance against sparsity, a line per task, a panel per table."""
    found = []
    for key, members in _grouped(rows).items():
        unstructured, rounded = key[-1] == "unstructured", key[-1] not in _PATTERNS
        lines = []
        for place, rows_there in by_place(members).items():
            own = sorted((r for r in rows_there if r["mean_relative"] is not None), key=_level)
            if own:
                lines.append(_line(place[0], own, rounded=rounded))
        ticks = () if unstructured else tuple(sorted({_tick(row) for row in members}))
        x_label = "sparsity (%)" if unstructured else "N:M (N of each M weights kept)"
        x_label = "bits" if rounded else x_label
        if lines:
            found.append(plots.Panel(_title(key), x_label, tuple(lines), ticks))
    if not found:
        raise RequestError("--plot: there is no pruned run with a dense one beside it yet")
    note = f"{seeds_note(rows)}; easy tasks first"
    plots.panels(found, "relative performance (% of dense)", 100.0, note, path)


def seeds_note(rows: Sequence[Row]) -> str:
    """Over how many seeds means and bands are."""
    counts = sorted({row["n"] for row in rows})
    if counts == [1]:
        return "n = 1 seed, so the spread is not known"
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean over n = {seeds} seeds, bands: ± standard deviation"


def _tick(row: Row) -> tuple[float, str]:
    level, name = _level(row)
    return (level if row["quantization"] else 100 * level), name


def _line(label: str, own: list[Row], *, rounded: bool) -> plots.Line:
    difficulty = own[0]["difficulty"]
    name = label if difficulty is None else f"{label}, difficulty {percent(difficulty)}"
    spreads = [row["sd_relative_drop"] for row in own]
    if rounded:
        # Where nothing is rounded is too far to the left to be shown.
        return plots.Line(
            name,
            tuple(_level(row)[0] for row in own),
            tuple(100 * row["mean_relative"] for row in own),
            tuple(None if s is None else 100 * s for s in spreads),
        )
    return plots.Line(
        name,
        (0.0, *(100 * row["sparsity"] for row in own)),
        (100.0, *(100 * row["mean_relative"] for row in own)),
        (None, *(None if s is None else 100 * s for s in spreads)),
    )
