"""`verdict`: is the hypothesis borne out by the selected runs, and what is missing to be sure?"""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, difficulty_trends, hypothesis, verdict_words
from jdna_cli.reports.hypothesis import Comparison, Test
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "What the tests say"
EMPTY = (
    "nothing to judge yet: prune and fine-tune two tasks alike, or one task at two levels of a "
    "condition, each beside its dense run"
)


def rows(source: Source) -> list[Row]:
    """One row per comparison and sparsity, and one over all sparsities (`sparsity` empty)."""
    rows = []
    for one in hypothesis.judge(source):
        tests: list[Test | None] = [*one.tests, *([one.overall] if one.overall else [])]
        for test in tests or [None]:
            rows.append(_row(one, test))
    return rows


def _row(comparison: Comparison, test: Test | None) -> Row:
    kept = ("model", "regime", "criterion", "scope", "allocation", "prunable", "calibration",
            "schedule", "teacher")  # fmt: skip
    row: Row = {"comparison": comparison.title, "axis": comparison.axis}
    row |= {name: comparison.row[name] for name in kept}
    row["task"] = None if comparison.axis == "difficulty" else comparison.row["task"]
    row["level"] = None if test is None or test.level is None else comparison.names[test.level]
    trend = test.trend if test else None
    row |= {
        "lines": len(comparison.lines),
        "statistic": trend.value if trend else None,
        "p_rising": trend.rising if trend else None,
        "p_falling": trend.falling if trend else None,
        "p_two_sided": trend.two_sided if trend else None,
        "p_adjusted": test.adjusted if test else None,
        "least_p": min(1.0, 2 * trend.least) if trend else None,
        "violations": test.against if test else None,
        "pairs": test.pairs if test else None,
        "interaction": comparison.interaction.value if comparison.interaction else None,
        "interaction_p": comparison.interaction.two_sided if comparison.interaction else None,
        "decision": comparison.decision,
        "missing": "; ".join(comparison.missing),
        "_one": comparison,
        "_test": test,
    }
    return row


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """The comparisons behind the rows."""
    return list({id(row["_one"]): row["_one"] for row in rows}.values())


def sections(rows: Sequence[Row]) -> list[Section]:
    """The answer with all comparisons; then each comparison by sparsity."""
    found = comparisons(rows)
    if not found:
        return []
    table = [
        [
            one.title,
            one.decision,
            str(len(one.lines)),
            _number(one.overall.trend.value if one.overall else None),
            _p(one.overall.trend.p(_direction(one)) if one.overall else None),
            _p(one.overall.adjusted if one.overall else None),
            _share(one.overall),
            _number(one.interaction.value if one.interaction else None),
            _p(one.interaction.two_sided if one.interaction else None),
        ]
        for one in found
    ]
    columns = ("comparison", "verdict", "lines", "trend", "p", "p adjusted", "violations",
               "interaction", "p of it")  # fmt: skip
    notes = (
        "Lines: tasks of rising difficulty, or levels of a condition. Trend: Spearman's rank "
        "correlation of difficulty and drop over all shared sparsities (across tasks), Page's "
        "mean correlation or Jonckheere and Terpstra's share of pairs (within a task; 0.5: none), "
        "or, where nothing was trained, the change of the drop from level to level, on resampled "
        f"examples. p: {_p_in_words(found[0])} Violations: pairs of which the harder one dropped "
        "less. Interaction: correlation of difficulty and the slope of drop over sparsity.",
    )
    untested = [
        f"Not tested: {one.title}: {'; '.join(one.missing)}." for one in found if not one.lines
    ]
    told = (*notes, *untested)
    answer = Section(verdict_words.sentence(found), columns, table, told, fixed=2)
    return [answer, *(_each(one) for one in found if one.lines)]


def _direction(comparison: Comparison) -> str:
    return comparison.stated.direction if comparison.stated else "either"


def _p_in_words(comparison: Comparison) -> str:
    stated = comparison.stated
    sides = {"rising": "that drops rise from easy to hard", "falling": "that drops fall"}
    told = sides.get(_direction(comparison), "two-sided")
    holm = stated is None or stated.correction == "holm"
    adjusted = "; adjusted for the number of comparisons (Holm)" if holm else ", not adjusted"
    return f"{told}{', as stated before the runs' if stated else ''}{adjusted}."


def _each(comparison: Comparison) -> Section:
    """A comparison, sparsity by sparsity, with what is missing to be sure."""
    levels = [test for test in comparison.tests if test.level is not None]
    drops = {test.level: test for test in levels}
    table = []
    for level in sorted(comparison.names):
        test = drops.get(level)
        own = [line for line in comparison.lines if level in line.drops]
        table.append(
            [
                comparison.names[level],
                str(len(own)),
                _number(test.trend.value if test else None),
                _p(test.trend.p(_direction(comparison)) if test else None),
                _p(test.adjusted if test else None),
                _share(test),
                _end(own, level, hard=False),
                _end(own, level, hard=True),
            ]
        )
    columns = ("taken", "lines", "trend", "p", "p adjusted", "violations", "easiest drops",
               "hardest drops")  # fmt: skip
    notes = [text for text in (verdict_words.one_threshold(comparison),) if text]
    notes += [f"Missing to be sure: {'; '.join(comparison.missing)}."] if comparison.missing else []
    return Section(comparison.title, columns, table, tuple(notes))


def _end(lines: Sequence[difficulty_trends.Line], level: float, *, hard: bool) -> str:
    if not lines:
        return ""
    line = (max if hard else min)(lines, key=lambda one: one.order)
    return f"{cells.percent(line.mean(level))} ({line.label})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(test: Test | None) -> str:
    return f"{test.against} of {test.pairs}" if test and test.pairs else ""


def figure(rows: Sequence[Row]) -> Figure:
    """Mean drop against difficulty, a line per sparsity, a panel per comparison."""
    panels = []
    for one in comparisons(rows):
        lines = []
        for level in sorted(one.names):
            own = sorted(
                (line for line in one.lines if level in line.drops), key=lambda line: line.order
            )
            if own:
                # Within a task levels have an order, and no distance.
                places = {id(line): float(i) for i, line in enumerate(
                    sorted(one.lines, key=lambda line: line.order))}  # fmt: skip
                ranks = one.axis != "difficulty"
                x = tuple(places[id(line)] if ranks else 100 * line.order for line in own)
                y = tuple(100 * line.mean(level) for line in own)
                lines.append(Line(one.names[level], x, y, (None,) * len(x)))
        ticks: tuple[tuple[float, str], ...] = ()
        if one.axis != "difficulty":
            ordered = sorted(one.lines, key=lambda line: line.order)
            ticks = tuple((float(i), line.label) for i, line in enumerate(ordered))
        x_label = "difficulty (% of the human score)" if one.axis == "difficulty" else one.axis
        if lines:
            panels.append(Panel(one.title, x_label.replace("_", " "), tuple(lines), ticks))
    note = "mean drop over seeds of each task or level, from easy to hard; a line per sparsity"
    return Figure(tuple(panels), "drop (% of dense)", 0.0, note, "Verdict")
