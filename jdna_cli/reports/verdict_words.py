"""What the comparisons say, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.difficulty import StatedTest
from jdna_cli.reports.hypothesis import AGAINST, BORNE, OPEN, Comparison


def one_threshold(comparison: Comparison) -> str | None:
    """Whether one sparsity would serve all lines, in words; None where nothing is known."""
    found = comparison.thresholds
    if len(found) < 2:
        return None
    least, most = min(found, key=lambda n: found[n][0]), max(found, key=lambda n: found[n][0])
    told = (
        f"critical sparsities (a drop of {comparison.tolerance:.1%}) go from "
        f"{found[least][0]:.0%} ({least}) to {found[most][0]:.0%} ({most})"
    )
    highs = [high for _, _, high in found.values() if high is not None]
    lows = [low for _, low, _ in found.values() if low is not None]
    if len(highs) < len(found):
        if any(line.observed is not None for line in comparison.lines):
            return (
                f"{told}; choose runs by --model, --task or --criterion to learn whether one "
                "threshold would serve all"
            )
        return f"{told}; with one seed it is not known whether one threshold would serve all"
    if max(lows) > min(highs):
        return f"no one threshold serves all: {told}, and their 95 % intervals do not meet"
    return f"one threshold may serve all: {told}, but their 95 % intervals share a value"


def sentence(comparisons: Sequence[Comparison]) -> str:
    """The answer in a sentence or two."""
    if not comparisons:
        return "Nothing to judge: no two tasks, or levels of a task, were pruned alike."
    counts = {
        word: sum(one.decision == word for one in comparisons) for word in (BORNE, AGAINST, OPEN)
    }
    total = len(comparisons)
    of = f"{total} comparison{'' if total == 1 else 's'}"
    if 0 < counts[BORNE] < total and not counts[AGAINST]:
        head = "The hypothesis is borne out in part: drops grow with difficulty where it is decided"
    elif 0 < counts[AGAINST] < total and not counts[BORNE]:
        head = "The hypothesis is contradicted in part: drops shrink where it is decided"
    elif counts[BORNE] and not counts[AGAINST]:
        head = "The hypothesis is borne out: drops grow with difficulty"
    elif counts[AGAINST] and not counts[BORNE]:
        head = "The hypothesis is contradicted: drops shrink as difficulty grows"
    elif counts[BORNE]:
        head = "The evidence is mixed"
    else:
        rising = sum(
            one.overall.trend.value > one.overall.trend.null for one in comparisons if one.overall
        )
        tested = sum(one.overall is not None for one in comparisons)
        if not tested:
            which = "the only comparison" if total == 1 else f"each of {of}"
            return f"Undecided: {which} lacks the tasks, levels or seeds that a test needs."
        which = "the only comparison" if total == 1 else f"none of {of}"
        no = "not " if total == 1 else ""
        return (
            f"Undecided: in {which} the trend of drop over difficulty is {no}clear at "
            f"{_test_in_words(comparisons[0].stated)} (drops grow with difficulty in {rising} of "
            f"the {tested} that could be tested)."
        )
    if total == 1:
        return f"{head} (one comparison; {_test_in_words(comparisons[0].stated)})."
    return (
        f"{head}. Of {of}: borne out in {counts[BORNE]}, contradicted in {counts[AGAINST]}, "
        f"undecided in {counts[OPEN]} ({_test_in_words(comparisons[0].stated)})."
    )


def _test_in_words(stated: StatedTest | None) -> str:
    if stated is None:
        return "5 %, two-sided, adjusted for their number"
    sides = "two-sided" if stated.direction == "either" else "one-sided"
    adjusted = ", adjusted for their number" if stated.correction == "holm" else ""
    return f"{stated.alpha:.0%}, {sides}{adjusted}, as was stated before the runs".replace(
        "%", " %"
    )
