"""Performance over sparsity, line by line: the table and the figure that most reports share.

A report says what its lines are (tasks, shares of the data, regimes, criteria, …), and what tells
its tables apart; levels of sparsity, N:M or bits are the columns, and the axis of the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jdna_cli.reports import cells, chance, labels, predictions
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section, sparkline
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

# What tells tables apart that compare something within one task.
WITHIN_A_TASK = ("model", "_family", "split", "regime", "criterion", "scope", "allocation",
                 "prunable", "bits", "calibration", "schedule", "teacher")  # fmt: skip
INTERVAL = "± half the width of the 95 % interval over seeds (Student's t)"


def over_examples(rows: Sequence[Row]) -> str:
    """What a star says: over how many examples the interval of a single seed is."""
    counts = sorted({row["examples"] for row in rows if row["interval_over"] == "examples"})
    many = "–".join(f"{n:,}" for n in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    what = "windows" if all(row["metric"] in LOWER_IS_BETTER for row in rows) else "examples"
    return (
        f"*: one seed; the interval is over its {many} {what} (paired bootstrap) and says nothing "
        "of other seeds."
    )


@dataclass(frozen=True)
class Comparison:
    """What stands beside what."""

    title: str
    line: Callable[[Row], str]
    # Columns whose values tell tables apart, besides what is taken (unstructured, N:M, …).
    apart: tuple[str, ...]
    least: int = 1  # lines that a table needs
    belongs: Callable[[Row], bool] = lambda row: True
    difficulty: bool = False  # whether lines are tasks, and have one
    without: tuple[str, ...] = ()  # fields of the request that lines differ in
    among: str | None = None  # a column that some line of each table has

    @property
    def first(self) -> str:
        """What the first column is called."""
        return "task" if self.difficulty else self.title.split()[0].lower()

    def rows(self, source: Source) -> list[Row]:
        """All cells that belong, easy tasks and levels first."""
        rows = [row for row in labels.labelled(source, self.without) if self.belongs(row)]
        if self.among is not None:
            asked = {(r["model"], r["_family"]) for r in rows if r[self.among] is not None}
            rows = [row for row in rows if (row["model"], row["_family"]) in asked]
        answers = predictions.of(source)
        for row in rows:
            row["_at_chance"] = cells.plain(row) and chance.at_chance(row, answers)
        return rows

    def sections(self, rows: Sequence[Row]) -> list[Section]:
        """One table for each group that has lines enough; else of the dense runs alone."""
        return _sections(rows, self) or _dense_sections(rows, self)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Relative performance against what is taken, a line for each line of the table."""
        return _figure(rows, self)


def condition(
    title: str, column: str, line: Callable[[Row], str], *, whole: bool = False
) -> Comparison:
    """Levels of what makes a task harder, side by side; `whole`: its absence is one of them."""
    return Comparison(
        title,
        line,
        WITHIN_A_TASK,
        least=2,
        belongs=lambda row: whole or row[column] is not None,
        without=(column,),
        among=column if whole else None,
    )


def _groups(rows: Sequence[Row], how: Comparison) -> dict[tuple[Any, ...], list[Row]]:
    """All cells but plain dense ones, table by table."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if cells.plain(row) or not how.belongs(row):
            continue
        key = [row[name] for name in how.apart]
        if cells.levels_of(row) == "bits" and "bits" in how.apart:
            key[how.apart.index("bits")] = None  # the columns of the table
        found.setdefault((*key, cells.kind_of(row)), []).append(row)
    kept = {key: own for key, own in found.items() if len({how.line(r) for r in own}) >= how.least}
    return dict(sorted(kept.items(), key=lambda item: tuple(str(x) for x in item[0])))


def _title(how: Comparison, rows: list[Row]) -> str:
    first = rows[0]
    parts = [first["_name"]] if "model" in how.apart else []
    parts += [first["label"]] if "_family" in how.apart else []
    free = [name for name in cells.PRUNING_COLUMNS if name not in how.apart and name != "sparsity"]
    parts.append(cells.way(first, [name for name in free if name != "pattern"]))
    return f"{how.title} · {' · '.join(part for part in parts if part)}"


def _lines(rows: Sequence[Row], how: Comparison) -> dict[tuple[Any, ...], list[Row]]:
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault((how.line(row), row["split"], row["recipe"]), []).append(row)
    return lines


def _sections(rows: Sequence[Row], how: Comparison) -> list[Section]:
    """One table for each group, a row for each line, a column for each level."""
    dense = {(r["model"], r["recipe"], r["split"]): r for r in rows if cells.plain(r)}
    return [_section(own, how, dense) for own in _groups(rows, how).values()]


def _dense_sections(rows: Sequence[Row], how: Comparison) -> list[Section]:
    """What is known before anything was pruned."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in filter(cells.plain, rows):
        key = tuple(row[name] for name in how.apart if name in ("model", "_family", "split"))
        found.setdefault(key, []).append(row)
    return [_dense_section(own, how) for own in found.values()
            if len({how.line(row) for row in own}) >= how.least]  # fmt: skip


def _dense_section(rows: list[Row], how: Comparison) -> Section:
    table = [
        [
            how.line(row),
            row["metric"],
            *([cells.percent(row["difficulty"])] if how.difficulty else []),
            dense_score(row),
            str(row["n"]),
        ]
        for row in rows
    ]
    notes = [
        "Nothing was pruned yet: `jdna finetune MODEL --task T --sparsity 0.5`, or `jdna eval` of "
        "a pruned model, makes a drop."
    ]
    if any(row["_at_chance"] for row in rows):
        notes.append(guessing(rows))
    columns = (how.first, "metric", *(("difficulty",) if how.difficulty else ()), "dense", "seeds")
    parts = [rows[0]["_name"]] if "model" in how.apart else []
    parts += [rows[0]["label"]] if "_family" in how.apart else []
    title = f"{how.title} · {' · '.join(parts)} · dense runs only"
    return Section(title, columns, table, tuple(notes))


def _section(rows: list[Row], how: Comparison, dense: dict[Any, Row]) -> Section:
    levels = sorted({cells.level(row) for row in rows})
    table: list[list[str]] = []
    heat: list[list[float | None]] = []
    unmatched, alone = 0, False
    bases: list[Row] = []
    for (label, split, recipe), there in _lines(rows, how).items():
        by_level = {cells.level(row): row for row in there}
        unmatched += sum(row["mean_relative"] is None for row in there)
        alone = alone or any(row["n"] == 1 and row["ci_low"] is None for row in there)
        seeds = sorted({row["n"] for row in there})
        # Difficulty is the dense runs' own: a pruned cell may have been run on fewer seeds.
        base = dense.get((there[0]["model"], recipe, split), there[0])
        bases.append(base)
        table.append(
            [
                label,
                there[0]["metric"],
                *([cells.percent(base["difficulty"])] if how.difficulty else []),
                dense_score(base),
                "–".join(str(n) for n in (seeds if len(seeds) < 2 else (seeds[0], seeds[-1]))),
                sparkline([by_level[x]["mean_relative"] if x in by_level else None
                           for x in levels]),
                *(cell(by_level.get(x)) for x in levels),
            ]
        )  # fmt: skip
        heat.append([_heat(by_level.get(x)) for x in levels])
        if there[0]["metric"] in LOWER_IS_BETTER:
            scores = [cells.score(r["metric"], r["score"]) if (r := by_level.get(x)) else ""
                      for x in levels]  # fmt: skip
            unsaid = [""] * (len(table[-1]) - len(levels) - 1)
            table.append([f"→ {there[0]['metric']}", *unsaid, *scores])
            heat.append([None] * len(levels))
    notes = [f"Drop in % of the dense score, {INTERVAL}; curve: relative performance, 0 to 100 %."]
    if any(row["metric"] in LOWER_IS_BETTER for row in rows):
        notes.append("→: the perplexity itself; its drop is 1 − dense / pruned.")
    if any(row["sample"] for row in rows):
        notes.append("Drawn: that many examples were measured, chosen at random by the seed.")
    if weak := [row for row in bases if row["_at_chance"]]:
        notes.append(guessing(weak))
    if how.difficulty:
        notes.append("Tasks from easy to hard by (human − dense) / human.")
    if any(row["interval_over"] == "examples" for row in rows):
        notes.append(over_examples(rows))
    if any("rule " in row["label"] for row in rows):
        notes.append(
            "Rule: how prompts are put and answers read (docs/correctness.md); what has the lower "
            "number is to be run again, to be compared with the rest."
        )
    if alone:
        notes.append("One seed without saved answers has no interval.")
    if unmatched:
        notes.append(
            f"{unmatched} cells (×) have no dense run with a score above 0 to compare with."
        )
    fixed = (how.first, "metric", *(("difficulty",) if how.difficulty else ()), "dense", "seeds",
             "curve")  # fmt: skip
    columns = (*fixed, *(name for _, name in levels))
    return Section(_title(how, rows), columns, table, tuple(notes), len(fixed), tuple(heat))


def dense_score(row: Row) -> str:
    """The dense model's score, in brackets where it does no better than guessing."""
    text = cells.score(row["metric"], row["dense_score"])
    return f"({text})" if row["_at_chance"] else text


def guessing(rows: Sequence[Row]) -> str:
    """What brackets around dense scores say."""
    chances = {cells.score(row["metric"], chance.chance(row)) for row in rows if row["_at_chance"]}
    return (
        f"(…): even the dense model does no better than guessing ({', '.join(sorted(chances))}): "
        "its drop says nothing."
    )


def _heat(row: Row | None) -> float | None:
    if row is None or row["mean_relative_drop"] is None:
        return None
    return min(1.0, max(0.0, float(row["mean_relative_drop"])))


def cell(row: Row | None) -> str:
    """A cell's drop with its interval; × where there is nothing to compare it with."""
    if row is None:
        return ""
    if row["mean_relative_drop"] is None:
        return "×"
    text = f"{100 * row['mean_relative_drop']:.1f}"
    if (half := cells.half(row)) is not None:
        text += f" ± {half:.1f}{'*' if row['interval_over'] == 'examples' else ''}"
    # A rounded nothing has no sign.
    return ("0.0" + text[4:] if text.startswith("-0.0") else text).replace("-", "−")


def _figure(rows: Sequence[Row], how: Comparison) -> Figure:
    """Relative performance against what is taken, a line for each line of the table."""
    panels = []
    for own in _groups(rows, how).values():
        kind = cells.levels_of(own[0])
        unstructured, rounded = kind == "unstructured", kind == "bits"
        lines = []
        for (label, _, _), there in _lines(own, how).items():
            known = sorted((r for r in there if r["mean_relative"] is not None), key=cells.level)
            if known:
                lines.append(_line(label, known, how, rounded=rounded))
        ticks = () if unstructured else tuple(sorted({_tick(row) for row in own}))
        x_label = "sparsity (%)" if unstructured else "N:M (N of each M weights kept)"
        x_label = "bits" if rounded else "no weights taken" if kind == "dense" else x_label
        if lines:
            panels.append(Panel(_title(how, own), x_label, tuple(lines), ticks))
    return Figure(
        tuple(panels), "relative performance (% of dense)", 100.0, seeds_note(rows), how.title
    )


def seeds_note(rows: Sequence[Row]) -> str:
    """Over how many seeds means and bands are."""
    counts = sorted({row["n"] for row in rows})
    if not counts or counts == [1]:
        if any(row["interval_over"] == "examples" for row in rows):
            return "n = 1 seed; bands or bars: 95 % interval over examples (paired bootstrap)"
        return "n = 1 seed, so the spread is not known"
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean over n = {seeds} seeds, bands or bars: 95 % interval (Student's t)"


def _tick(row: Row) -> tuple[float, str]:
    number, name = cells.level(row)
    return (number if cells.levels_of(row) == "bits" else 100 * number), name


def _line(label: str, rows: list[Row], how: Comparison, *, rounded: bool) -> Line:
    difficulty = rows[0]["difficulty"] if how.difficulty else None
    name = label if difficulty is None else f"{label}, difficulty {cells.percent(difficulty)}"
    halves = [cells.half(row) for row in rows]
    ys = [100 * row["mean_relative"] for row in rows]
    # Where nothing is rounded is too far to the left to be shown.
    xs = [cells.level(row)[0] if rounded else 100 * row["sparsity"] for row in rows]
    if not rounded and xs[0] > 0:
        xs, ys, halves = [0.0, *xs], [100.0, *ys], [None, *halves]
    return Line(name, tuple(xs), tuple(ys), tuple(halves))
