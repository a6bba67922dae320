"""What a search may be asked: half a grid by default, and nothing that makes no sense."""

import pytest

from jdna_cli.advising.choice import by_halving, by_posterior
from jdna_cli.advising.question import Level, question
from jdna_cli.errors import RequestError


def asked(**changes):
    plain = {"trains": True, "tolerance": 0.01, "seeds": 3, "precision": 0.05, "budget": None,
             "patterns": None}  # fmt: skip
    return question({"model": "m", "task": "t"}, **{**plain, **changes})


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_it_costs_half_of_nine_sparsities_at_most(seeds):
    assert asked(seeds=seeds).budget.runs <= 9 * seeds / 2


@pytest.mark.parametrize(
    ("text", "runs", "seconds"),
    [("12 runs", 12, None), ("12", 12, None), ("30m", None, 1800), ("1.5h", None, 5400),
     ("90 s", None, 90)],
)  # fmt: skip
def test_a_budget_is_runs_or_time(text, runs, seconds):
    found = asked(budget=text).budget
    assert (found.runs, found.seconds) == (runs, seconds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": "0 runs"}, "give 4 at least"),
        ({"budget": "0m"}, "nothing can be run"),
        ({"budget": "soon"}, "30m"),
        ({"budget": "2.5 runs"}, "12 runs"),
        ({"tolerance": 0.0}, "more than 0"),
        ({"precision": 0.0}, "as 5%"),
        ({"patterns": "8:4"}, "1 ≤ N < M"),
        ({"patterns": "2:4,4:8"}, "as much as each other"),
        ({"patterns": ""}, "N:M"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, words):
    with pytest.raises(RequestError, match=words):
        asked(**changes)


def test_patterns_are_all_of_an_m_or_those_named():
    assert [x.pattern for x in asked(patterns="4").levels] == ["3:4", "2:4", "1:4"]
    assert [x.pattern for x in asked(patterns="1:8,6:8").levels] == ["6:8", "1:8"]


def test_the_next_run_is_at_the_median_and_several_share_the_quantiles():
    import numpy as np

    samples, levels = np.linspace(0.4, 0.6, 1001), asked().levels
    assert by_posterior(samples, levels, [], 1) == Level(0.5)
    first = by_posterior(samples, levels, [], 2)
    second = by_posterior(samples, levels, [first], 2)
    assert sorted([first.sparsity, second.sparsity]) == [0.47, 0.53]
    # A level with no seed left is not asked again: the nearest is.
    free = [level for level in levels if level != Level(0.5)]
    assert by_posterior(samples, free, [], 1).sparsity in (0.49, 0.51)
    assert by_posterior(np.full(100, 0.5), [Level(0.9)], [], 1) is None


def test_of_patterns_the_one_in_doubt_is_next():
    import numpy as np

    levels = asked(patterns="8").levels
    samples = np.concatenate([np.full(60, 0.3), np.full(40, 0.55)])  # 6:8 holds, 4:8 perhaps
    assert by_posterior(samples, levels, [], 1).pattern in ("5:8", "4:8")
    assert by_posterior(np.full(100, 0.3), levels, [], 1) is None


def test_a_bracket_is_halved_until_it_is_narrow():
    levels = asked().levels
    assert by_halving((0.2, 0.6), 0.02, levels) == Level(0.4)
    assert by_halving((0.2, 0.22), 0.02, levels) is None
