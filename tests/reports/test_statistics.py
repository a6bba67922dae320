"""Statistics of reports, against known answers, SciPy, and what they promise in simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.reports import statistics

RATE = 0.95
TIMES = 400
# Three standard deviations of a rate that is estimated from TIMES simulations.
SLACK = 3 * math.sqrt(RATE * (1 - RATE) / TIMES)


@pytest.mark.parametrize("degrees", range(1, 16))
def test_quantiles_are_scipys_to_the_last_bit(degrees):
    expected = scipy.special.stdtrit(degrees, 0.975)
    assert statistics.t_quantile(degrees) == expected
    assert statistics.t_quantile(degrees, 0.9) == scipy.special.stdtrit(degrees, 0.95)


def test_a_mean_has_students_interval():
    values = [0.9, 0.85, 0.88, 0.91]
    found = statistics.mean_interval(values)
    sem = scipy.stats.sem(values)
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=sem)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    alone = statistics.mean_interval([0.5])
    assert (alone.mean, alone.low, alone.high, alone.n) == (0.5, None, None, 1)


def test_intervals_of_means_cover_at_their_rate():
    draws = np.random.default_rng(1).normal(0.3, 0.1, (TIMES, 4))
    found = [statistics.mean_interval(row.tolist()) for row in draws]
    rate = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert abs(rate - RATE) < SLACK


def test_the_paired_bootstrap_covers_at_its_rate():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(TIMES):
        first = (generator.random(200) < 0.8).astype(float)
        flips = generator.random(200) < 0.2
        second = np.where(flips, 1 - first, first)
        found = statistics.paired(first, second, lambda a, b: b - a)
        # Of those right (80 %) a fifth is lost, of the others a fifth is won.
        hits += found.low <= -0.16 + 0.04 <= found.high
    assert abs(hits / TIMES - RATE) < SLACK + 0.02  # a percentile interval is a little short


def test_mcnemar_is_the_binomial_test_of_those_that_differ():
    first = np.array([True] * 12 + [False] * 3 + [True] * 20)
    second = np.array([False] * 12 + [True] * 3 + [True] * 20)
    lost, won, p = statistics.mcnemar(first, second)
    assert (lost, won) == (12, 3)
    assert p == pytest.approx(2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=5))
def test_rank_trends_are_spearmans_with_exact_permutations(drops):
    order, values = np.arange(len(drops), dtype=float), np.array(drops, float)
    each, mean = statistics.rank_trends(order, values)
    if len(set(drops)) == 1:
        assert mean.value == 0
        assert mean.rising == mean.falling == 1
        return
    own = scipy.stats.spearmanr(order, values).statistic
    assert each[0].value == pytest.approx(own)
    everything = [scipy.stats.spearmanr(p, values).statistic
                  for p in itertools.permutations(order)]  # fmt: skip
    assert mean.rising == pytest.approx(np.mean(np.array(everything) >= own - 1e-9))
    assert mean.falling == pytest.approx(np.mean(np.array(everything) <= own + 1e-9))


def test_pages_trend_agrees_with_scipys():
    blocks = np.array([[0.1, 0.2, 0.15, 0.4], [0.0, 0.1, 0.3, 0.2], [0.1, 0.05, 0.2, 0.3]])
    found = statistics.page_trend(blocks)
    expected = scipy.stats.page_trend_test(blocks, method="exact")
    assert found.rising == pytest.approx(expected.pvalue, abs=0.01)
    assert found.value > 0
    assert statistics.page_trend(-blocks).falling == pytest.approx(found.rising, abs=0.01)


def test_jonckheeres_trend_counts_pairs_of_groups():
    groups = [[0.1, 0.2], [0.2, 0.3], [0.25, 0.5]]
    found = statistics.ordered_trend(groups)
    pairs = [(a, b) for i, j in itertools.combinations(range(3), 2)
             for a in groups[i] for b in groups[j]]  # fmt: skip
    assert found.value == pytest.approx(np.mean([(a < b) + 0.5 * (a == b) for a, b in pairs]))

    def share(*shuffled):
        cut = [shuffled[0][k : k + 2] for k in (0, 2, 4)]
        return np.mean([(a < b) + 0.5 * (a == b) for i, j in itertools.combinations(range(3), 2)
                        for a in cut[i] for b in cut[j]])  # fmt: skip

    values = list(itertools.chain(*groups))
    every = np.array([share(p) for p in itertools.permutations(values)])
    assert found.rising == pytest.approx(np.mean(every >= found.value - 1e-9))


def test_few_values_cannot_be_sure():
    assert statistics.rank_trends([1, 2, 3], np.array([0.1, 0.2, 0.3]))[1].least == pytest.approx(
        1 / 6
    )


def test_holm_holds_the_chance_of_one_false_alarm():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    draws = np.random.default_rng(3).random((TIMES, 8))
    rate = np.mean([min(statistics.holm(row.tolist())) <= 0.05 for row in draws])
    assert rate < 0.05 + SLACK


@given(
    st.lists(st.lists(st.floats(0.001, 1), min_size=5, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=5, max_size=5),
)
def test_the_monotone_fit_is_scipys_isotonic_regression(rows, weights):
    found = statistics.monotone(np.array(rows), weights)
    for row, fitted in zip(rows, found, strict=True):
        expected = scipy.optimize.isotonic_regression(row, weights=np.array(weights, float)).x
        assert fitted == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("drops", "critical"),
    [
        ([0.0, 0.0, 0.2, 0.4], 0.4 + 0.2 * 0.05 / 0.2),
        ([0.1, 0.2, 0.3, 0.4], 0.1),  # between nothing and the first level
        ([0.0, 0.01, 0.02, 0.03], 0.8),  # never reached
        ([0.0, 0.2, 0.0, 0.4], 0.2 + 0.2 * 0.05 / 0.1),  # 0.2 and 0 are pooled to 0.1
        ([-0.1, -0.2, -0.1, 0.1], 0.6 + 0.2 * 0.05 / 0.1),
    ],
)
def test_the_critical_sparsity_is_where_the_drop_passes_the_tolerance(drops, critical):
    found = statistics.critical([0.2, 0.4, 0.6, 0.8], np.array([drops]), 0.05)
    assert found == pytest.approx([critical])


def test_a_critical_sparsity_lies_in_its_bracket():
    generator = np.random.default_rng(3)
    levels = [0.2, 0.5, 0.6, 0.9]
    drops = generator.uniform(-0.02, 0.1, (200, 4)).cumsum(axis=1)
    found = statistics.critical(levels, drops, 0.05)
    below, above = statistics.bracket(levels, drops, 0.05)
    assert (below <= found).all()
    assert (found <= above).all()
    assert set(below) <= {0.0, *levels}
    assert set(above) <= {*levels, 1.0}
    nothing = statistics.bracket(levels, np.zeros((1, 4)), 0.05)
    assert (nothing[0][0], nothing[1][0]) == (0.9, 1.0)
