"""Masks survive the disk bit for bit, and clear weights to exactly nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import masks


@given(shape=st.lists(st.integers(1, 33), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_packing_and_inverting(shape, seed):
    torch.manual_seed(seed)
    kept = torch.rand(shape) > 0.5
    mask = masks.pack(kept)
    assert torch.equal(mask.unpacked(), kept)
    assert mask.kept == int(kept.sum())
    assert mask.bits.nbytes == (kept.numel() + 7) // 8
    assert torch.equal(mask.inverted().unpacked(), ~kept)


def test_what_is_saved_is_read_back(tmp_path):
    found = {"a.weight": masks.pack(torch.rand(7, 9) > 0.3), "b": masks.pack(torch.ones(4) > 2)}
    masks.save(found, tmp_path / "mask.safetensors")
    read = masks.load(tmp_path / "mask.safetensors")
    assert list(read) == list(found)
    for name, mask in found.items():
        assert torch.equal(read[name].unpacked(), mask.unpacked())
        assert read[name].kept == mask.kept


def test_a_damaged_mask_is_refused(tmp_path):
    path = tmp_path / "mask.safetensors"
    masks.save({"a": masks.pack(torch.ones(100) > 0)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(JdnaError, match="cannot be read as a mask"):
        masks.load(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cleared_weights_are_plus_zero_and_the_rest_keeps_its_bits(dtype):
    n = 300_001
    torch.manual_seed(0)
    tensor = torch.randn(n).to(dtype)
    tensor[::5] = float("inf")
    tensor[1::5] = float("nan")
    tensor[2::5] = -0.0
    before = tensor.clone()
    kept = torch.rand(n) > 0.5
    masks.clear_(tensor, masks.pack(kept))
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(tensor.view(bits)[kept], before.view(bits)[kept])
    assert bool((tensor.view(bits)[~kept] == 0).all())


def test_the_eraser_of_other_devices_does_what_the_packed_one_does():
    kept = torch.rand(40, 30) > 0.5
    mask = masks.pack(kept)
    ours, meta = torch.randn(40, 30), torch.empty(40, 30, device="meta")
    masks.mask_applier(ours, mask)(ours)
    assert torch.equal(ours != 0, kept)
    masks.mask_applier(meta, mask)(meta)  # the path of devices without packed multiplication runs
    assert meta.shape == mask.shape


@given(st.data())
def test_a_digest_tells_of_any_one_bit_that_differs(data):
    dtype, bits = data.draw(st.sampled_from([(torch.float32, 32), (torch.bfloat16, 16)]))
    width = {16: torch.int16, 32: torch.int32}[bits]
    one = torch.randn(data.draw(st.integers(1, 300)), generator=torch.manual_seed(0)).to(dtype)
    place, bit = data.draw(st.integers(0, len(one) - 1)), data.draw(st.integers(0, bits - 1))
    other = one.clone()
    assert masks.digest(one, other) == 0
    other.view(width)[place] ^= torch.tensor(1 << bit if bit < bits - 1 else -(1 << bit))
    assert masks.digest(one, other) != 0
    assert masks.digest(one, torch.zeros_like(one)) != masks.digest(other, torch.zeros_like(one))
