"""How much each tensor loses: together what was asked, and as the sources say."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdna_cli.errors import RequestError
from jdna_cli.sparsity import allocation
from jdna_cli.sparsity.targets import DENSE, Target

SHAPES = st.dictionaries(
    st.sampled_from([f"layer.{i}.weight" for i in range(12)]),
    st.tuples(st.integers(1, 8).map(lambda n: 8 * n), st.integers(1, 8).map(lambda n: 8 * n)),
    min_size=1,
)
SPARSITY = st.floats(0, 0.98)


def sizes_of(shapes):
    return {name: math.prod(shape) for name, shape in shapes.items()}


@given(SHAPES, SPARSITY)
def test_erk_loses_exactly_what_was_asked_and_density_follows_the_widths(shapes, sparsity):
    sizes = sizes_of(shapes)
    targets = allocation.exactly(allocation.erk(shapes, sparsity), sizes, sparsity)
    counts = {name: round(t.sparsity * sizes[name]) for name, t in targets.items()}
    assert sum(counts.values()) == round(sparsity * sum(sizes.values()))
    shares = allocation.erk(shapes, sparsity)
    scales = {
        round((1 - shares[name]) / (sum(shape) / sizes[name]), 6)
        for name, shape in shapes.items()
        if shares[name] > 0
    }
    assert len(scales) <= 1  # one factor for all that are not dense
    assert all(0 <= share < 1 for share in shares.values())


@given(SHAPES, st.integers(1, 7))
def test_a_mixture_of_patterns_keeps_at_most_what_was_asked_and_nearly_that(shapes, n):
    sizes = sizes_of(shapes)
    shares = allocation.erk(shapes, 1 - n / 8)
    targets = allocation.groups(shares, sizes, n, 8)
    kept = sum(sizes[name] * (1 - t.share) for name, t in targets.items())
    asked = n / 8 * sum(sizes.values())
    least = sum(sizes.values()) / 8  # one of each eight stays in any tensor
    assert kept <= max(asked, least) + 1e-6
    if n > 1:
        assert kept > asked - max(sizes.values())
    for target in targets.values():
        assert target == DENSE or 1 <= target.groups[0] < 8


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 1000)), min_size=1, max_size=12),
    st.floats(0.1, 0.9),
)
def test_owl_spares_blocks_with_outliers_and_keeps_the_total(blocks, sparsity):
    outliers, sizes = [x for x, _ in blocks], [n for _, n in blocks]
    found = allocation.owl(outliers, sizes, sparsity)
    lost = sum(s * n for s, n in zip(found, sizes, strict=True))
    assert lost == pytest.approx(sparsity * sum(sizes), rel=1e-9, abs=1e-6)
    order = sorted(range(len(blocks)), key=lambda i: outliers[i])
    assert all(
        found[a] >= found[b] - 1e-12 for a, b in zip(order, order[1:], strict=False)
    )  # the more outliers, the less goes
    if 0.2 <= sparsity <= 0.8:
        assert max(found) - min(found) <= 2 * allocation.REACH + 1e-9


def test_owl_is_its_papers_formula_for_blocks_of_one_size():
    ratios, reach = [0.01, 0.04, 0.02, 0.09], allocation.REACH
    scaled = [2 * reach * (x - min(ratios)) / (max(ratios) - min(ratios)) for x in ratios]
    mean = sum(scaled) / len(scaled)
    expected = [1 - (x - mean + 1 - 0.7) for x in scaled]
    assert allocation.owl(ratios, [64] * 4, 0.7) == pytest.approx(expected)


def file(tmp_path, text, name="a.toml"):
    path = tmp_path / name
    path.write_text(text)
    return allocation.read(str(path))


SIX = {f"h.{i}.w[0]": (8, 16) for i in range(6)}


def test_the_first_pattern_that_matches_counts_and_the_rest_makes_up_the_total(tmp_path):
    said = file(tmp_path, '"h.0.*" = "dense"\n"h.1.*" = "2:4"\n"h.[01].*" = 0.9\n"h.2.*" = 0.25\n')
    targets = said.targets(SIX, 0.5, None)
    assert targets["h.0.w[0]"] == DENSE
    assert targets["h.1.w[0]"] == Target(None, (2, 4))
    assert targets["h.2.w[0]"] == Target(0.25)
    lost = sum(round(t.share * 128) for t in targets.values())
    assert lost == round(0.5 * 6 * 128)


@given(
    st.lists(st.one_of(st.floats(0, 0.99), st.sampled_from(["2:4", "1:8"])), min_size=6, max_size=6)
)
def test_what_is_written_is_read_back_as_it_was(tmp_path_factory, values):
    targets = {
        name: Target(None, tuple(map(int, v.split(":")))) if isinstance(v, str) else Target(v)
        for name, v in zip(SIX, values, strict=True)
    }
    text = allocation.write(targets, "about\nit")
    said = file(tmp_path_factory.mktemp("written"), text)
    total = sum(t.share for t in targets.values()) / 6
    assert said.targets(SIX, total, None) == targets


def test_rows_of_a_report_are_an_allocation(tmp_path):
    rows = [["tensor", "sparsity", "more"], *([name, "0.5", ""] for name in SIX)]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    said = file(tmp_path, text.getvalue(), "layers.csv")
    as_json = json.dumps({"rows": [{"tensor": name, "sparsity": 0.5} for name in SIX]})
    assert said.targets(SIX, 0.5, None) == dict.fromkeys(SIX, Target(0.5))
    assert file(tmp_path, as_json, "layers.json").identity == said.identity


@pytest.mark.parametrize(
    ("text", "sparsity", "words"),
    [
        ('"nothing.*" = 0.5', 0.5, "'nothing.*' matches none of the 6 prunable tensors"),
        ('"*" = 0.3', 0.5, "takes 0.3000 of all weights, and --sparsity says 0.5"),
        ('"h.[0-4].*" = "dense"', 0.5, "cannot reach --sparsity 0.5"),
        ('"h.[0-4].*" = 0.9', 0.5, "lose 0.7500 at least"),
        ('"*" = 1.0', 0.5, "give a sparsity (0 ≤ S < 1)"),
        ('"*" = true', 0.5, "give a sparsity"),
        ('"*" = "much"', 0.5, "give a sparsity"),
        ('"*" = "4:2"', 0.5, "1 ≤ N < M"),
        ('"*" = [0.5]', 0.5, "give a sparsity"),
        ("", 0.5, "names no tensor"),
        ("=", 0.5, "line 1"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_one_line(tmp_path, text, sparsity, words):
    with pytest.raises(RequestError) as refused:
        file(tmp_path, text).targets(SIX, sparsity, None)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rises_without_noise_are_as_they_were():
    rises = {(f"h.{i}", kind): 0.1 * i + k for i in range(4) for k, kind in enumerate("qkv", 1)}
    rises["h.1", "q"] += 0.7
    assert allocation.without_noise(rises) == pytest.approx(rises)


def test_rises_of_noise_alone_become_what_block_and_kind_say():
    generator = np.random.default_rng(1)
    true = {(f"h.{i}", kind): 0.002 * k for i in range(30) for k, kind in enumerate("abcdefg")}
    seen = {unit: r + generator.normal(0, 0.01) for unit, r in true.items()}
    found = allocation.without_noise(seen)
    off = {name: math.sqrt(sum((x[u] - true[u]) ** 2 for u in true) / len(true))
           for name, x in (("seen", seen), ("found", found))}  # fmt: skip
    assert off["found"] < 0.7 * off["seen"]
    assert sum(found.values()) == pytest.approx(sum(seen.values()))
