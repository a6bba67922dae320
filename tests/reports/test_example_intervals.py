"""What the examples say: intervals of a single seed, replicates that are one, dense at chance."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import simulated
from jdna_cli.reports import cells, hypothesis, labels, predictions, statistics
from jdna_cli.reports import chance as reports_chance
from jdna_cli.reports.query import Filters, source_of
from tests.conftest import run_jdna

COUNT = 200


def answers(share, seed):
    """Right and wrong answers to COUNT examples, a share of them right."""
    return np.random.default_rng(seed).permutation(np.arange(COUNT) < round(share * COUNT))


def recorded(home, runs):
    """Runs with their answers: columns of a run, and which examples it got right."""
    rows = [{**row, "score": float(right.mean())} for row, right in runs]
    simulated.record(home, rows)
    for number, (_, right) in enumerate(runs, 1):
        (home / str(number)).mkdir()
        lines = (
            json.dumps({"id": str(i), "accuracy": float(hit)}) + "\n" for i, hit in enumerate(right)
        )
        (home / str(number) / "predictions-validation.jsonl").write_text("".join(lines))
    return home


def source(home):
    return source_of(f"sqlite:///{home}/jdna.db", home, Filters())


CELL = {"model": "m", "task": "t", "kind": "eval", "chance": 0.25}


def test_a_single_seed_has_the_paired_bootstrap_over_its_examples(tmp_path):
    dense, pruned = answers(0.8, 1), answers(0.6, 2)
    home = recorded(
        tmp_path / "home",
        [(simulated.dense(**CELL), dense), ({**CELL, "sparsity": 0.5}, pruned)],
    )
    (row,) = (row for row in cells.load(source(home)) if row["sparsity"] == 0.5)
    assert row["n"] == 1
    assert row["interval_over"] == "examples"
    assert row["sd_relative_drop"] is None
    other = stats.bootstrap(
        (dense.astype(float), pruned.astype(float)), lambda a, b: 1 - b.mean() / a.mean(),
        paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=3,
    ).confidence_interval  # fmt: skip
    assert row["ci_low"] == pytest.approx(other.low, abs=0.015)
    assert row["ci_high"] == pytest.approx(other.high, abs=0.015)
    told = run_jdna("report", "drop", "--home", home).out
    half = 50 * (row["ci_high"] - row["ci_low"])
    assert f"25.0 ± {half:.1f}*" in told
    assert "says nothing of other seeds" in " ".join(told.split())


def test_replicates_with_the_same_answers_are_one(tmp_path):
    dense, pruned = answers(0.8, 1), answers(0.6, 2)
    runs = [(simulated.dense(**CELL, seed=seed), dense) for seed in (1, 2, 3)]
    runs += [({**CELL, "sparsity": 0.5, "seed": seed}, pruned) for seed in (1, 2, 3)]
    # The same number of right answers, but other ones: another measurement.
    runs += [({**CELL, "sparsity": 0.7, "seed": seed}, answers(0.6, seed)) for seed in (1, 2, 3)]
    rows = {row["sparsity"]: row for row in cells.load(source(recorded(tmp_path / "home", runs)))}
    assert (rows[0.0]["n"], rows[0.5]["n"], rows[0.7]["n"]) == (1, 1, 3)
    assert rows[0.5]["interval_over"] == "examples"
    assert rows[0.5]["ci_low"] < rows[0.5]["mean_relative_drop"] < rows[0.5]["ci_high"]
    assert rows[0.7]["interval_over"] == "seeds"


def test_without_saved_answers_a_single_seed_has_no_interval(tmp_path):
    rows = [simulated.dense(**CELL, score=0.8), {**CELL, "sparsity": 0.5, "score": 0.6}]
    home = simulated.record(tmp_path / "home", rows)
    (row,) = (row for row in cells.load(source(home)) if row["sparsity"] == 0.5)
    assert (row["ci_low"], row["interval_over"]) == (None, None)


@pytest.mark.parametrize(
    ("share", "chance", "guessing"),
    [
        (0.10, 0.0, False),  # a closed book: a tenth of exact answers cannot be guessed
        (0.0, 0.0, True),
        (0.70, 0.684, True),  # the larger class alone gives as much
        (0.80, 0.684, False),
        (0.55, 0.5, True),  # 110 of 200: within what coins do
        (0.60, 0.5, False),
        (0.30, 0.5, True),  # worse than guessing has learnt nothing either
    ],
)
def test_a_dense_score_is_at_chance_where_its_interval_reaches_it(
    tmp_path, share, chance, guessing
):
    cell = {**CELL, "chance": chance}
    runs = [
        (simulated.dense(**cell), answers(share, 1)),
        ({**cell, "sparsity": 0.5}, answers(0, 2)),
    ]
    found = source(recorded(tmp_path / "home", runs))
    rows = [row for row in labels.labelled(found) if row["dense_score"] is not None]
    assert {reports_chance.at_chance(row, predictions.of(found)) for row in rows} == {guessing}
    told = run_jdna("report", "--home", tmp_path / "home").out
    assert (f" ({100 * share:.1f}) " in told) == guessing
    assert ("does no better than guessing" in told) == guessing


def test_drops_over_examples_cover_at_their_rate():
    generator, hits, times = np.random.default_rng(4), 0, 200
    for _ in range(times):
        dense = (generator.random(300) < 0.8).astype(float)
        lost = generator.random(300) < 0.25
        found = statistics.paired(dense, np.where(lost, 0.0, dense), lambda a, b: 1 - b / a)
        hits += found.low <= 0.25 <= found.high
    assert hits / times > 0.9


def windows(home, losses):
    """Runs with the log-likelihoods of their windows, 10 tokens each."""
    cell = {**CELL, "task": "text", "metric": "perplexity", "chance": None}
    rows = [simulated.dense(**cell), {**cell, "sparsity": 0.5}]
    rows = [{**r, "score": float(np.exp(x.mean()))} for r, x in zip(rows, losses, strict=True)]
    simulated.record(home, rows)
    for number, own in enumerate(losses, 1):
        (home / str(number)).mkdir()
        rows = ({"id": str(i), "negative_log_likelihood": 10 * x, "tokens": 10}
                for i, x in enumerate(own))  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (home / str(number) / "predictions-validation.jsonl").write_text(text)
    return home


def test_a_perplexity_has_the_paired_bootstrap_over_its_windows(tmp_path):
    generator = np.random.default_rng(7)
    dense = generator.normal(3, 0.4, 80)
    pruned = dense + generator.normal(0.5, 0.1, 80)
    home = windows(tmp_path / "home", [dense, pruned])
    (row,) = (row for row in cells.load(source(home)) if row["sparsity"] == 0.5)
    assert row["mean_relative_drop"] == pytest.approx(1 - np.exp((dense - pruned).mean()))
    assert (row["interval_over"], row["examples"]) == ("examples", 80)
    other = stats.bootstrap(
        (dense - pruned,), lambda x: 1 - np.exp(x.mean()),
        vectorized=False, method="percentile", n_resamples=4000, rng=3,
    ).confidence_interval  # fmt: skip
    assert row["ci_low"] == pytest.approx(other.low, abs=0.002)
    assert row["ci_high"] == pytest.approx(other.high, abs=0.002)
    told = run_jdna("report", "drop", "--home", home).out
    assert f"{np.exp(pruned.mean()):.1f}" in told
    assert "80 windows" in " ".join(told.split())
    args = ("report", "compare", "--run", 1, "--run", 2, "--home", home, "--format", "json")
    (compared,) = json.loads(run_jdna(*args).out)
    apart = np.exp(pruned.mean()) - np.exp(dense.mean())
    assert compared["difference"] == pytest.approx(apart)
    assert compared["ci_low"] < apart < compared["ci_high"]
    assert compared["ci_high"] - compared["ci_low"] < apart  # the windows are paired
    assert compared["mcnemar_p"] is None


def test_an_interval_of_one_point_is_seen(tmp_path):
    runs = [
        (simulated.dense(**CELL), answers(0.8, 1)),
        ({**CELL, "sparsity": 0.5}, answers(0.6, 2)),
    ]
    home = recorded(tmp_path / "home", runs)
    for args in (("compare", "--run", 1, "--run", 2), ("drop",)):
        file = tmp_path / f"{args[0]}.svg"
        found = run_jdna("report", *args, "--home", home, "--plot", file)
        assert found.code == 0, found.err
        assert "LineCollection" in file.read_text(), "a bar with ends"


def test_thresholds_and_advice_of_single_seeds_rest_on_their_examples(tmp_path):
    runs = []
    for options, lost in ((2, 0.1), (4, 0.5)):
        cell = {**CELL, "options": options, "recipe": f"options-{options}"}
        runs.append((simulated.dense(**cell), answers(0.9, options)))
        for level in (0.3, 0.5, 0.7):
            runs.append(({**cell, "sparsity": level}, answers(0.9 * (1 - lost * level), options)))
    home = recorded(tmp_path / "home", runs)
    (one,) = hypothesis.judge(source(home))
    assert set(one.thresholds) == {"2 options", "4 options"}
    for critical, low, high in one.thresholds.values():
        assert low <= critical <= high
    rows = json.loads(run_jdna("report", "advise", "--home", home, "--json").out)["rows"]
    assert {row["interval_over"] for row in rows} == {"examples"}
    assert {row["resampled"] for row in rows} == {"200 examples"}
    told = run_jdna("report", "verdict", "--home", home).out
    assert "with one seed it is not known" not in told
