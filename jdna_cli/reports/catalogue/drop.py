"""`drop`: performance lost by task difficulty and sparsity. The paper's main question.

For each model, regime and criterion: tasks from easy to hard as rows, sparsities as columns, and
in each cell the mean drop (1 − score / dense score) with its standard deviation over seeds. What
was not run is empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jdna_cli.reports import Query, Row, plots
from jdna_cli.reports.tables import Section
from jdna_cli.specs import PRUNING_FIELDS

_SECTION = ("model", "regime", "criterion", "scope", "prunable", "bits")

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
    return sorted(found, key=_order)


def _order(row: Row) -> tuple[Any, ...]:
    hard = row["difficulty"] if row["difficulty"] is not None else float("inf")
    return (hard, row["label"], row["sparsity"], *(str(row[name] or "") for name in _SECTION))


def _labels(
    found: Sequence[Row], specs: dict[str, dict[str, Any]]
) -> dict[tuple[str, str, str], str]:
    """A name for each task that says in what its recipe differs from the task's others."""
    labels: dict[tuple[str, str, str], str] = {}
    for row in found:
        alike = ("task", "model", "split")
        own = {r["recipe"] for r in found if all(r[name] == row[name] for name in alike)}
        splits = {r["split"] for r in found if r["task"] == row["task"]}
        parts = [row["split"]] if len(splits) > 1 else []
        spec = specs.get(row["recipe"], {})
        for field, value in spec.items():
            if field in PRUNING_FIELDS | {"seed", "model", "checkpoint_every", "eval_batch_size"}:
                continue
            if len({json.dumps(specs[r].get(field)) for r in own if r in specs}) > 1:
                parts.append(f"{field.replace('_', ' ')} {value}")
        label = row["task"] + (f" ({', '.join(parts)})" if parts else "")
        labels[row["task"], row["split"], row["recipe"]] = label
    return labels


def _grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Pruned cells by model, regime, criterion, scope, and kind of pattern."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["regime"] != "dense" or row["pattern"]:
            key = (*(row[name] for name in _SECTION), row["pattern"] == "unstructured")
            groups.setdefault(key, []).append(row)
    return dict(sorted(groups.items(), key=lambda item: tuple(str(x) for x in item[0])))


def _title(key: tuple[Any, ...]) -> str:
    model, regime, criterion, scope, prunable, bits, unstructured = key
    # A local model is called by its folder; the data forms have the whole path.
    name = Path(model).name if model.startswith(("/", ".", "~")) or model.count("/") > 1 else model
    parts = [name, regime, f"{criterion}{f' {scope}' if scope else ''}"]
    parts.append("unstructured" if unstructured else "N:M")
    words = {"+": "only ", "-": "without "}
    parts += [words[choice[0]] + choice[1:] for choice in (prunable or "").split()]
    if bits not in (None, 32):
        parts.append(f"{bits} bits")
    return " · ".join(parts)


def _level(row: Row) -> tuple[float, str]:
    unstructured = row["pattern"] == "unstructured"
    return row["sparsity"], f"{100 * row['sparsity']:g}%" if unstructured else row["pattern"]


def _place(row: Row) -> tuple[str, str, str]:
    return row["label"], row["split"], row["recipe"]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model, regime, criterion and kind of pattern."""
    dense = [row for row in rows if row["regime"] == "dense" and not row["pattern"]]
    groups = _grouped(rows)
    if not groups:
        return [_dense_only(dense)] if dense else []
    return [_section(key, members, dense) for key, members in groups.items()]


def _section(key: tuple[Any, ...], members: list[Row], dense: list[Row]) -> Section:
    levels = sorted({_level(row) for row in members})
    places = list(dict.fromkeys(_place(row) for row in members))
    table, unmatched, alone = [], 0, False
    for place in places:
        own = [row for row in members if _place(row) == place]
        cells = {_level(row): row for row in own}
        unmatched += sum(row["mean_relative"] is None for row in own)
        alone = alone or any(row["n"] == 1 for row in own)
        seeds = sorted({row["n"] for row in own})
        # Difficulty is the dense runs' own: a pruned cell may have been run on fewer seeds.
        base = next(
            (r for r in dense if r["recipe"] == place[2] and r["split"] == place[1]), own[0]
        )
        table.append(
            [
                place[0],
                own[0]["metric"],
                _percent(base["difficulty"]),
                "" if base["dense_score"] is None else f"{100 * base['dense_score']:.1f}",
                "–".join(str(n) for n in (seeds if len(seeds) < 2 else (seeds[0], seeds[-1]))),
                *(_cell(cells.get(level)) for level in levels),
            ]
        )
    notes = [
        "Drop in % of the dense score, ± standard deviation over seeds; tasks from easy to hard "
        "by (human − dense) / human."
    ]
    if alone:
        notes.append("One seed tells nothing of the spread: such cells have none.")
    if unmatched:
        notes.append(f"{unmatched} cells (×) have no dense run to be compared with.")
    columns = ("task", "metric", "difficulty", "dense", "seeds", *(name for _, name in levels))
    return Section(f"Performance drop · {_title(key)}", columns, table, tuple(notes))


def _dense_only(dense: list[Row]) -> Section:
    table = [
        [r["label"], r["metric"], _percent(r["difficulty"]), f"{100 * r['score']:.1f}", str(r["n"])]
        for r in dense
    ]
    note = "Nothing was pruned yet: `jdna finetune MODEL --task T --sparsity 0.5` makes a drop."
    columns = ("task", "metric", "difficulty", "dense", "seeds")
    return Section("Dense runs only", columns, table, (note,))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%".replace("-", "−")


def _cell(row: Row | None) -> str:
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
        unstructured = bool(key[-1])
        lines = []
        for place in dict.fromkeys(_place(row) for row in members):
            own = sorted(
                (r for r in members if _place(r) == place and r["mean_relative"] is not None),
                key=_level,
            )
            if own:
                lines.append(_line(place[0], own))
        ticks = () if unstructured else tuple(sorted({_tick(row) for row in members}))
        x_label = "sparsity (%)" if unstructured else "N:M (N of each M weights kept)"
        if lines:
            found.append(plots.Panel(_title(key), x_label, tuple(lines), ticks))
    if found:
        counts = sorted({row["n"] for row in rows})
        if counts == [1]:
            note = "n = 1 seed, so the spread is not known; easy tasks first"
        else:
            seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            note = f"mean over n = {seeds} seeds, bands: ± standard deviation; easy tasks first"
        plots.panels(found, "relative performance (% of dense)", 100.0, note, path)


def _tick(row: Row) -> tuple[float, str]:
    level, name = _level(row)
    return 100 * level, name


def _line(label: str, own: list[Row]) -> plots.Line:
    difficulty = own[0]["difficulty"]
    name = label if difficulty is None else f"{label}, difficulty {_percent(difficulty)}"
    spreads = [row["sd_relative_drop"] for row in own]
    return plots.Line(
        name,
        (0.0, *(100 * row["sparsity"] for row in own)),
        (100.0, *(100 * row["mean_relative"] for row in own)),
        (None, *(None if s is None else 100 * s for s in spreads)),
    )
