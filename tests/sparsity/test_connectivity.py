"""The line between two models is exact at both ends, and its barrier is what the paper defines."""

import pytest
import torch

from jdna_cli.sparsity import connectivity


def tensors(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    return {
        "w": torch.randn(50, 20).to(dtype),
        "b": torch.randn(50).to(dtype),
        "ids": torch.arange(9) + seed,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ends_are_exact_and_the_middle_is_the_mean(dtype):
    a, b = tensors(1, dtype), tensors(2, dtype)
    target = {name: torch.zeros_like(t) for name, t in a.items()}
    for alpha, end in ((0.0, a), (1.0, b), (0.0, a)):
        connectivity.move_(target, a, b, alpha)
        assert all(torch.equal(target[name], end[name]) for name in target)
    connectivity.move_(target, a, b, 0.25)
    expected = 0.75 * a["w"].double() + 0.25 * b["w"].double()
    near = {"rtol": 1e-6, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(target["w"].double(), expected, **near)
    assert torch.equal(target["ids"], a["ids"])


def test_barrier_is_the_highest_rise_above_the_chord():
    assert connectivity.barrier([0, 0.5, 1], [1.0, 3.0, 2.0]) == 1.5
    assert connectivity.barrier([0, 0.5, 1], [1.0, 0.5, 2.0]) == 0.0
    assert connectivity.barrier([0, 0.25, 0.5, 1], [1.0, 1.0, 1.0, 1.0]) == 0.0


def test_the_first_difference_is_named():
    a, b = tensors(1), tensors(2)
    assert connectivity.first_difference(a, b) is None
    assert "'b'" in connectivity.first_difference(a, {k: v for k, v in b.items() if k != "b"})
    b["w"] = torch.randn(50, 21)
    assert "[50, 20] in the first, [50, 21] in the second" in connectivity.first_difference(a, b)
