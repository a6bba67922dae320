"""The selection removes exactly the k smallest magnitudes, ties by position, like a stable sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import selection

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def removed(tensors, k):
    def source():
        return [(str(i), t) for i, t in enumerate(tensors)]

    cut = selection.cutoff(source, k)
    ties, found = cut.ties, []
    for tensor in tensors:
        bits, kept, ties = selection.kept(tensor, selection.Cutoff(cut.key, ties))
        flags = np.unpackbits(bits, count=tensor.numel()).astype(bool)
        assert kept == flags.sum()
        found.append(~flags)
    return np.concatenate(found)


def by_sorting(tensors, k):
    flat = np.concatenate([t.abs().double().flatten().numpy() for t in tensors])
    found = np.zeros(flat.size, dtype=bool)
    found[np.argsort(flat, kind="stable")[:k]] = True
    return found


# Few values, so that ties, zeros, denormals and infinities meet.
VALUES = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 3e-39, -3e-39, 1e-7, 6e4, float("inf"), -float("inf"), 2.5]
)


@given(
    parts=st.lists(st.lists(VALUES, min_size=1, max_size=40), min_size=1, max_size=4),
    share=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=300, deadline=None)
def test_any_values_of_any_dtype_are_ranked_as_by_a_stable_sort(parts, share, dtype):
    tensors = [torch.tensor(part).to(dtype) for part in parts]
    k = round(share * sum(t.numel() for t in tensors))
    assert (removed(tensors, k) == by_sorting(tensors, k)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.5, 0.9, 0.9999, 1.0])
def test_many_weights_over_several_blocks(dtype, sparsity):
    torch.manual_seed(0)
    tensors = [torch.randn(700, 701).mul(0.02).to(dtype), torch.zeros(17), torch.randn(333_333)]
    tensors = [t.to(dtype) for t in tensors]
    k = round(sparsity * sum(t.numel() for t in tensors))
    assert (removed(tensors, k) == by_sorting(tensors, k)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_that_misleads_costs_time_not_the_answer(dtype):
    """All small values stand where the even sample looks, or none of them does."""
    torch.manual_seed(1)
    stride = max(1, 1_000_000 // selection.SAMPLE) | 1
    seen = torch.randn(1_000_000).abs() + 1
    seen[::stride] = 1e-3
    unseen = torch.randn(1_000_000).abs() + 1
    unseen[1::stride] = 1e-3
    for tensor in (seen.to(dtype), unseen.to(dtype)):
        k = 1_000_000 // stride // 2
        assert (removed([tensor], k) == by_sorting([tensor], k)).all()


@pytest.mark.parametrize("kept_bins", [1 << 12, 0])
def test_more_candidates_than_there_is_room_for(monkeypatch, kept_bins):
    monkeypatch.setattr(selection, "GATHER", 0)
    monkeypatch.setattr(selection, "KEPT_BINS", kept_bins)
    torch.manual_seed(2)
    tensor = torch.randint(-3, 4, (200_000,)).to(torch.bfloat16) / 8 + torch.randn(200_000) * 1e-4
    for dtype in DTYPES:
        assert (removed([tensor.to(dtype)], 70_001) == by_sorting([tensor.to(dtype)], 70_001)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", ["like", "unlike", "nothing"])
def test_parts_that_are_looked_at_first_never_decide(monkeypatch, dtype, sample):
    torch.manual_seed(3)
    tensors = [torch.randn(300, 301).mul(0.02 * (i + 1)).to(dtype) for i in range(5)]
    part = {"like": [t[::7].contiguous() for t in tensors], "unlike": [tensors[0][:2] * 1e-3]}
    chosen = part.get(sample, [tensors[0][:0]])
    for gather in (selection.GATHER, 1000):
        monkeypatch.setattr(selection, "GATHER", gather)
        k = 200_123
        cut = selection.cutoff(
            lambda: ((str(i), t) for i, t in enumerate(tensors)), k,
            sample=lambda: (("part", t) for t in chosen),
        )  # fmt: skip
        gone = [
            ~np.unpackbits(selection.kept(t, selection.Cutoff(cut.key, share))[0], count=t.numel())
            .astype(bool) for t, share in zip(tensors, cut.shares, strict=True)
        ]  # fmt: skip
        assert (np.concatenate(gone) == by_sorting(tensors, k)).all()


def test_a_transposed_weight_is_read_in_its_own_order():
    weight = torch.randn(30, 20).T
    assert (removed([weight], 123) == by_sorting([weight.contiguous()], 123)).all()


@pytest.mark.parametrize("k", [0, 3])
def test_nan_is_refused_by_name(k):
    weight = torch.tensor([1.0, float("nan"), 2.0, 3.0])
    with pytest.raises(JdnaError, match=r"'encoder\.weight' holds NaN"):
        selection.cutoff(lambda: [("encoder.weight", weight)], k)


def test_dtypes_do_not_mix():
    mixed = [("a", torch.ones(3)), ("b", torch.ones(3, dtype=torch.float16))]
    with pytest.raises(JdnaError, match="several dtypes"):
        selection.cutoff(lambda: mixed, 2)
