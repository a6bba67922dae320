"""Masks keep exactly what the pattern says, wherever scores compete."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from jdna_cli.sparsity import criteria, patterns
from jdna_cli.sparsity.patterns import Scored
from jdna_cli.sparsity.targets import Target

DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])


def source(*scores, input_dim=1):
    return lambda: [Scored(f"w{i}", score, input_dim) for i, score in enumerate(scores)]


def weights(draw, shape, dtype, coarse):
    torch.manual_seed(draw)
    tensor = torch.randn(shape)
    return (tensor.mul(2).round() if coarse else tensor).to(dtype)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 12),
    width=st.integers(1, 40),
    sparsity=st.floats(0, 0.999),
    scope=st.sampled_from(["global", "layer", "row"]),
    dtype=DTYPES,
    coarse=st.booleans(),
    input_dim=st.sampled_from([0, 1]),
)
@settings(max_examples=200, deadline=None)
def test_counts_are_exact_and_the_largest_stay(
    seed, rows, width, sparsity, scope, dtype, coarse, input_dim
):
    shape = (rows, width) if input_dim == 1 else (width, rows)
    score = [weights(seed + i, shape, dtype, coarse) for i in range(2)]
    masks = dict(patterns.unstructured(source(*score, input_dim=input_dim), sparsity, scope))
    kept = [masks[f"w{i}"].unpacked() for i in range(2)]
    if scope == "global":
        together = torch.cat([x.abs().flatten() for x in score])
        groups = [(together, torch.cat([k.flatten() for k in kept]))]
    elif scope == "layer":
        groups = [(x.abs().flatten(), k.flatten()) for x, k in zip(score, kept, strict=True)]
    else:
        groups = [
            (a, b)
            for x, k in zip(score, kept, strict=True)
            for a, b in zip(x.abs().movedim(input_dim, -1), k.movedim(input_dim, -1), strict=True)
        ]
    for values, stays in groups:
        gone = values[~stays]
        assert gone.numel() == round(sparsity * values.numel())
        if gone.numel() and stays.any():
            assert values[stays].min() >= gone.max()
    assert all(int(k.sum()) == masks[f"w{i}"].kept for i, k in enumerate(kept))


def naive_n_of_m(row, n, m):
    """Keep the N largest of each group; of equals the earlier. Slow and obvious."""
    kept = torch.zeros(len(row), dtype=torch.bool)
    for start in range(0, len(row), m):
        order = sorted(range(m), key=lambda i: (-float(row[start + i]), i))
        for i in order[:n]:
            kept[start + i] = True
    return kept


@given(
    seed=st.integers(0, 10_000),
    m=st.integers(2, 16),
    groups=st.integers(1, 5),
    rows=st.integers(1, 6),
    dtype=DTYPES,
    coarse=st.booleans(),
    input_dim=st.sampled_from([0, 1]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_n_of_m_equals_the_naive_rule(seed, m, groups, rows, dtype, coarse, input_dim, data):
    n = data.draw(st.integers(1, m - 1))
    score = weights(seed, (rows, groups * m), dtype, coarse)
    stored = score if input_dim == 1 else score.T.contiguous()
    mask = dict(patterns.n_of_m(source(stored, input_dim=input_dim), n, m))["w0"].unpacked()
    mask = mask if input_dim == 1 else mask.T
    expected = torch.stack([naive_n_of_m(row.abs().float(), n, m) for row in score])
    assert torch.equal(mask, expected)


def test_one_ranking_serves_every_n():
    score = torch.randn(64, 64)
    ranks = patterns.rank_in_groups(Scored("w", score, 1), 8)
    masks = [patterns.keep_n(ranks, n, 1).unpacked() for n in range(1, 8)]
    for n, mask in enumerate(masks, 1):
        assert torch.equal(mask, dict(patterns.n_of_m(source(score), n, 8))["w0"].unpacked())
    assert all(bool((a <= b).all()) for a, b in zip(masks, masks[1:], strict=False))


def test_two_of_four_agrees_with_torch_ao():
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
    ours = dict(patterns.n_of_m(source(model[0].weight.detach().clone()), 2, 4))["w0"].unpacked()
    sparsifier = WeightNormSparsifier(1.0, (1, 4), 2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    sparsifier.squash_mask()
    assert torch.equal(ours, model[0].weight != 0)


@pytest.mark.parametrize("sparsity", [i / 10 for i in range(10)])
def test_global_magnitude_agrees_with_torch(sparsity):
    torch.manual_seed(3)
    layers = [torch.nn.Linear(50, 40), torch.nn.Linear(40, 70)]
    score = [layer.weight.detach().clone() for layer in layers]
    masks = dict(patterns.unstructured(source(*score), sparsity, "global"))
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers], torch_prune.L1Unstructured, amount=sparsity
    )
    for i, layer in enumerate(layers):
        assert torch.equal(masks[f"w{i}"].unpacked(), layer.weight_mask.bool())


def test_masks_of_rising_sparsity_are_nested():
    score = torch.randn(100, 100).bfloat16()
    for scope in ("global", "layer", "row"):
        masks = [
            dict(patterns.unstructured(source(score), s / 20, scope))["w0"].unpacked()
            for s in range(20)
        ]
        assert all(bool((b <= a).all()) for a, b in zip(masks, masks[1:], strict=False))


@pytest.mark.parametrize("name", criteria.names())
def test_every_criterion_scores_every_weight_without_touching_it(name):
    weight = torch.randn(16, 32)
    before = weight.clone()
    inputs, gradients = torch.randn(50, 32), torch.randn(9, 16, 32)
    statistics = criteria.Statistics(
        "layer.weight", input_norm=inputs.norm(dim=0), gram=inputs.T @ inputs,
        gradient=gradients.mean(0), squared_gradient=gradients.square().mean(0),
    )  # fmt: skip
    criterion = criteria.load(name)
    if criterion.score is None:
        pruned, again = (criterion.prune_layer(weight, statistics, Target(0.5)) for _ in range(2))
        assert int((pruned.weight == 0).sum()) == 256
        assert torch.equal(pruned.weight != 0, pruned.kept)
        assert torch.equal(pruned.weight, again.weight)
    else:
        score = criterion.score(weight, statistics)
        assert score.shape == weight.shape
        assert torch.isfinite(score).all()
        assert torch.equal(score, criterion.score(weight, statistics))
    assert torch.equal(weight, before)


def test_random_scores_are_uniform_in_order_and_those_of_a_piece_are_those_of_the_whole():
    criterion = criteria.load("random")
    weight = torch.zeros(3, 700_000)
    known = criteria.Statistics("w", seed=3)
    score = criterion.score(weight, known)
    assert float((score >= 0).float().mean()) == 1
    piece = criterion.score(weight.view(-1)[1 << 20 :], replace(known, offset=1 << 20))
    assert torch.equal(score.view(-1)[1 << 20 :], piece)
    mask = dict(patterns.unstructured(source(score), 0.5, "global"))["w0"].unpacked()
    # Of 2.1 million fair coins each thousand has 500 heads, give or take six deviations.
    heads = mask.view(-1, 1000).sum(1)
    assert abs(heads.double().mean() - 500) < 1e-9
    assert float((heads.double() - 500).abs().max()) < 6 * 16
    assert float(heads.double().std()) == pytest.approx(15.8, rel=0.1)
    other = criterion.score(weight, replace(known, seed=4))
    same = dict(patterns.unstructured(source(other), 0.5, "global"))["w0"].unpacked()
    assert float((mask == same).double().mean()) == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_do_not_depend_on_how_wide_keys_are_compared(monkeypatch, dtype):
    score = weights(3, (9, 40), dtype, coarse=True)
    found = []
    for widens in (False, True):
        monkeypatch.setattr(patterns, "_widens", lambda widens=widens: widens)
        scored = patterns.Scored("w", score, 1)
        found.append(patterns.alone(scored, Target(0.3), "row").unpacked())
    assert torch.equal(*found)
    assert (~found[1]).sum(1).tolist() == [12] * 9
    for row, kept in zip(score.abs(), found[1], strict=True):
        assert row[kept].min() >= row[~kept].max()
