"""The posterior of a crossing: what it must say whatever the curve is."""

import numpy as np
import pytest

from benchmarks import advice
from jdna_cli.reports.critical_sparsity import Observed, posterior

DENSE = (0.900, 0.904, 0.896)


def after(drops, dense=DENSE):
    """Runs of one seed that scatter a little, with these drops."""
    return Observed(dense, {s: (0.9 * (1 - d),) for s, d in drops.items()})


def test_the_same_runs_give_the_same_bits():
    one, two = (posterior(after({0.3: 0.0, 0.6: 0.1}), 0.02) for _ in range(2))
    assert (one.samples == two.samples).all()


def test_a_cliff_may_be_anywhere_between_what_held_and_what_broke():
    found = posterior(after({0.2: 0.0, 0.4: 0.0, 0.6: 0.4, 0.8: 0.4}), 0.01)
    middle, low, high = found.interval()
    assert 0.36 < low < 0.44
    assert 0.56 < high < 0.62
    assert 0.4 < middle < 0.6


def test_where_nothing_breaks_the_crossing_lies_above_all_that_was_measured():
    _, low, high = posterior(after({0.3: 0.0, 0.6: 0.0, 0.9: 0.001}), 0.05).interval()
    assert low > 0.85
    assert high > 1.0


def test_where_all_is_broken_it_lies_below_all_that_was_measured():
    _, _, high = posterior(after({0.1: 0.3, 0.5: 0.4}), 0.01).interval()
    assert high < 0.12


def test_more_noise_makes_it_less_sure():
    drops = {0.3: 0.0, 0.5: 0.01, 0.6: 0.03, 0.7: 0.06}
    quiet, loud = (
        posterior(after(drops, dense), 0.02).interval()
        for dense in ((0.9, 0.9005, 0.8995), (0.9, 0.93, 0.87))
    )
    assert quiet[2] - quiet[1] < loud[2] - loud[1]


def test_a_mean_of_scores_counts_as_their_share_of_dense_alone():
    """Scores in other units are the same curve."""
    drops = {0.3: 0.0, 0.6: 0.05}
    one = posterior(after(drops), 0.02)
    scaled = Observed(tuple(50 * x for x in DENSE), {s: (45 * (1 - d),) for s, d in drops.items()})
    assert one.interval() == pytest.approx(posterior(scaled, 0.02).interval(), abs=0.02)


@pytest.mark.slow
def test_intervals_cover_a_known_crossing_on_a_grid():
    """A small part of `python -m benchmarks advice`, which has the figures."""
    found = [advice.on_a_grid(seed, 0.02)[0] for seed in range(30)]
    assert np.mean([one.covered for one in found]) >= 0.85
