"""Each weight is the nearest value of its grid; packed forms come back bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.sparsity import masks, packing, patterns, quantization
from jdna_cli.sparsity.patterns import Scored
from jdna_cli.sparsity.quantization import Grid

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GRIDS = st.builds(
    Grid,
    bits=st.integers(2, 8),
    asymmetric=st.booleans(),
    granularity=st.just("channel"),
    group_size=st.sampled_from([None, 4, 8]),
) | st.builds(Grid, bits=st.integers(2, 8), asymmetric=st.booleans(), granularity=st.just("tensor"))


def naive(weight, grid):
    """Every value of the grid is tried for every weight; the nearest wins."""
    found = torch.empty_like(weight)
    rows = [weight.flatten()] if grid.granularity == "tensor" else list(weight)
    out = [found.flatten()] if grid.granularity == "tensor" else list(found)
    for row, target in zip(rows, out, strict=True):
        size = grid.group_size or len(row)
        for start in range(0, len(row), size):
            group = row[start : start + size]
            if grid.asymmetric:
                low, high = min(0.0, float(group.min())), max(0.0, float(group.max()))
                step = torch.tensor((high - low) / (2**grid.bits - 1)) or torch.tensor(1.0)
                zero = round(-low / float(step))
                values = [(code - zero) * step for code in range(2**grid.bits)]
            else:
                highest = 2 ** (grid.bits - 1) - 1
                step = group.abs().max() / highest
                step = step if step > 0 else torch.tensor(1.0)
                values = [code * step for code in range(-highest, highest + 1)]
            table = torch.stack(values)
            nearest = (group[:, None] - table).abs().argmin(1)
            target[start : start + size] = table[nearest]
    return found if grid.granularity != "tensor" else out[0].view_as(weight)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), groups=st.integers(1, 5), grid=GRIDS)
@settings(max_examples=80, deadline=None)
def test_every_weight_becomes_the_nearest_value(seed, rows, groups, grid):
    torch.manual_seed(seed)
    weight = torch.randn(rows, groups * 8)
    found = quantization.nearest(weight, grid, "w").decoded()
    expected = naive(weight, grid)
    # Halfway between two values either is nearest.
    assert torch.allclose((found - weight).abs(), (expected - weight).abs(), atol=1e-5)


def test_symmetric_channels_agree_with_torch():
    torch.manual_seed(0)
    weight = torch.randn(8, 32)
    scales = weight.abs().amax(1) / 7
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scales, torch.zeros(8, dtype=torch.int32), 0, -7, 7
    )
    torch.testing.assert_close(quantization.nearest(weight, Grid(4), "w").decoded(), theirs)


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 6), groups=st.integers(1, 5), grid=GRIDS,
    dtype=st.sampled_from(DTYPES), input_dim=st.sampled_from([0, 1]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_codes_come_back_bit_for_bit(seed, rows, groups, grid, dtype, input_dim):
    torch.manual_seed(seed)
    weight = torch.randn(rows, groups * 8).to(dtype)
    found = quantization.nearest(weight, grid, "w")
    stored = found.decoded() if input_dim == 1 else found.decoded().T.contiguous()
    packed = packing.pack_codes(found, input_dim)
    assert torch.equal(packing.unpack(packed), stored)
    assert packed.bits == packing.rounded_bits(found, None, weight.numel())
    # As many bits as in the form of codes: one more for each weight, none for those that went.
    kept = torch.rand(stored.shape) < 0.5
    joint = masks.pack(kept)
    pruned = weight * (kept if input_dim == 1 else kept.T)
    found = quantization.nearest(pruned, grid, "w")
    stored = found.decoded() if input_dim == 1 else found.decoded().T.contiguous()
    packed = packing.pack_codes(found, input_dim, joint)
    assert torch.equal(packing.unpack(packed), stored)
    assert not stored[~kept].any()
    assert packed.bits == packing.rounded_bits(found, joint, weight.numel())
    assert packed.bits <= packing.rounded_bits(found, None, weight.numel())


def test_rounding_again_changes_nothing():
    torch.manual_seed(1)
    weight = torch.randn(6, 24)
    for grid in (Grid(3), Grid(4, True, group_size=8), Grid(2, granularity="tensor")):
        found = quantization.nearest(weight, grid, "w")
        rounding = quantization.Rounding(found.scales, found.zeros, grid, 1)
        assert torch.equal(rounding.rounded(found.decoded()), found.decoded())
    assert not quantization.nearest(torch.zeros(4, 8), Grid(4), "w").decoded().any()


def bits(tensor):
    return tensor.view(torch.int32 if tensor.element_size() == 4 else torch.int16)


@given(
    seed=st.integers(0, 1000), shape=st.tuples(st.integers(1, 9), st.integers(1, 30)),
    sparsity=st.floats(0, 0.99), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_bitmasks_come_back_bit_for_bit(seed, shape, sparsity, dtype):
    torch.manual_seed(seed)
    weight = torch.randn(shape).to(dtype)
    weight[0, 0] = -0.0
    ((_, mask),) = patterns.unstructured(lambda: [Scored("w", weight, 1)], sparsity, "layer")
    masks.clear_(weight, mask)
    packed = packing.pack_sparse(weight, mask)
    assert torch.equal(bits(packing.unpack(packed)), bits(weight))
    each = 8 * weight.element_size()
    assert packed.bits == packing.sparse_bits(mask, each) <= each * weight.numel()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 4), (8, 12), (64, 64)])
@pytest.mark.parametrize("input_dim", [0, 1])
def test_two_of_four_comes_back_bit_for_bit(shape, input_dim, dtype):
    torch.manual_seed(2)
    weight = torch.randn(shape).to(dtype)
    weight = weight if input_dim == 1 else weight.T.contiguous()
    ((_, mask),) = patterns.n_of_m(lambda: [Scored("w", weight, input_dim)], 2, 4)
    masks.clear_(weight, mask)
    packed = packing.pack_two_of_four(weight, mask, input_dim)
    assert torch.equal(bits(packing.unpack(packed)), bits(weight))
    each = 8 * weight.element_size()
    assert packed.bits == pytest.approx(weight.numel() * (each / 2 + 1), abs=4)
