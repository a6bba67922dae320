"""SparseGPT and GPTQ are their papers' equations; selection's ties never change a count."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import compensation, criteria, quantization
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.sparsity.quantization import Grid
from jdna_cli.sparsity.targets import Target


def layer(seed=0, out=12, width=16, tokens=60):
    torch.manual_seed(seed)
    inputs = torch.randn(tokens, width) @ torch.randn(width, width)
    return torch.randn(out, width), inputs, inputs.T @ inputs


def damped(gram):
    hessian = gram.double().clone()
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    return hessian


def surgeon(weight, gram, settle, block):
    """Optimal brain surgeon from left to right, with the inverse of the free columns' Hessian anew
    at each column: the equations, without factorisation or blocks. `block` columns are chosen at
    a time, by scores from the weights as they are before the first of them."""
    w, hessian = weight.double().clone(), damped(gram)
    kept = torch.ones_like(w, dtype=torch.bool)
    width = w.shape[1]
    for start in range(0, width, block):
        diagonals = [torch.linalg.inv(hessian[j:, j:])[0, 0] for j in range(start, start + block)]
        settle.choose(w, kept, start, torch.stack(diagonals))
        for j in range(start, start + block):
            inverse = torch.linalg.inv(hessian[j:, j:])
            new = settle.value(w, kept, j)
            error = (w[:, j] - new) / inverse[0, 0]
            w[:, j:] -= error[:, None] * inverse[0]
            w[:, j] = new
    return w, kept


class Unstructured:
    def __init__(self, sparsity):
        self.sparsity = sparsity

    def choose(self, w, kept, start, diagonals):
        rows, end = w.shape[0], start + len(diagonals)
        part = w[:, start:end].square() / diagonals
        count = round(self.sparsity * rows * end) - round(self.sparsity * rows * start)
        flat = torch.ones(part.numel(), dtype=torch.bool)
        flat[part.flatten().argsort(stable=True)[:count]] = False
        kept[:, start:end] = flat.view_as(part)

    def value(self, w, kept, j):
        return torch.where(kept[:, j], w[:, j], 0.0)


class Rounding:
    """Rounds each column, where another rule keeps it."""

    def __init__(self, grid, choice=None):
        self.grid, self.choice = grid, choice

    def choose(self, w, kept, start, diagonals):
        grid, size = self.grid, self.grid.group_size or w.shape[1]
        if start % size == 0:
            own = w[:, start : start + size].float()
            self.scale = quantization.fit(own, Grid(grid.bits, grid.asymmetric), torch.float32)
        if self.choice is not None:
            self.choice.choose(w, kept, start, diagonals)

    def value(self, w, kept, j):
        own = w[:, j] if self.choice is None else self.choice.value(w, kept, j)
        scales, zeros = (None if x is None else x[:, 0].double() for x in self.scale)
        shift = 0.0 if zeros is None else zeros
        codes = ((own / scales).round() + shift).clamp(self.grid.lowest, self.grid.highest)
        return (codes - shift) * scales


class Groups(Unstructured):
    def __init__(self, n):
        self.n = n

    def choose(self, w, kept, start, diagonals):
        part = w[:, start : start + len(diagonals)].square() / diagonals
        lowest = part.argsort(dim=1, descending=True, stable=True)[:, self.n :]
        kept[:, start : start + len(diagonals)].scatter_(1, lowest, False)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_unstructured_sparsegpt_is_its_equations(monkeypatch, seed, sparsity):
    weight, _, gram = layer(seed)
    monkeypatch.setattr(compensation.sweep, "__defaults__", (4,))
    found = criteria.load("sparsegpt").prune_layer(
        weight, Statistics("w", gram=gram), Target(sparsity)
    )
    expected, kept = surgeon(weight, gram, Unstructured(sparsity), 4)
    assert torch.equal(found.kept, kept)
    torch.testing.assert_close(found.weight.double(), expected, rtol=1e-3, atol=1e-4)
    assert int((~found.kept).sum()) == round(sparsity * weight.numel())
    assert not found.weight[~found.kept].any()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 8)])
def test_sparsegpt_in_groups_is_its_equations(n, m):
    weight, _, gram = layer(3)
    found = criteria.load("sparsegpt").prune_layer(
        weight, Statistics("w", gram=gram), Target(None, (n, m))
    )
    expected, kept = surgeon(weight, gram, Groups(n), m)
    assert torch.equal(found.kept, kept)
    torch.testing.assert_close(found.weight.double(), expected, rtol=1e-3, atol=1e-4)
    assert bool((found.kept.view(-1, m).sum(1) == n).all())


def test_for_one_row_and_a_diagonal_hessian_nothing_moves():
    weight = torch.tensor([[3.0, 1.0, -2.0, 0.5]])
    gram = torch.diag(torch.tensor([1.0, 100.0, 1.0, 1.0]))
    found = criteria.load("sparsegpt").prune_layer(weight, Statistics("w", gram=gram), Target(0.5))
    # Scores w²·h: 9, 100, 4, 0.25.
    assert found.weight.tolist() == [[3.0, 1.0, 0.0, 0.0]]


def test_the_layer_comes_closer_to_its_output_than_with_the_same_mask_alone():
    weight, inputs, gram = layer(1, 40, 32, 300)
    found = criteria.load("sparsegpt").prune_layer(weight, Statistics("w", gram=gram), Target(0.6))

    def error(w):
        return float(((w - weight) @ inputs.T).norm())

    assert error(found.weight) < 0.9 * error(weight * found.kept)
    # Never better than the least squares solution for that mask.
    best = torch.zeros_like(weight)
    for row in range(len(weight)):
        own = found.kept[row]
        target = inputs @ weight[row]
        best[row, own] = torch.linalg.lstsq(inputs[:, own], target[:, None]).solution[:, 0]
    assert error(best) <= error(found.weight) * 1.0001


@pytest.mark.parametrize(
    "grid", [Grid(4), Grid(3, True), Grid(4, group_size=4), Grid(2, True, group_size=8)]
)
def test_gptq_is_its_equations(grid):
    weight, _, gram = layer(5)
    found = quantization.compensated(weight, compensation.factor(gram, "w"), grid, "w")
    expected, _ = surgeon(weight, gram, Rounding(grid), grid.group_size or 1)
    torch.testing.assert_close(found.decoded().double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("grid", [Grid(4), Grid(3, True), Grid(4, group_size=8)])
@pytest.mark.parametrize("target", [Target(None, (2, 4)), Target(None, (5, 8))])
def test_sparsegpt_and_rounding_at_once_are_their_equations(grid, target):
    weight, _, gram = layer(6)
    found = criteria.load("sparsegpt").prune_layer(weight, Statistics("w", gram=gram), target, grid)
    n, m = target.groups
    expected, kept = surgeon(weight, gram, Rounding(grid, Groups(n)), m)
    assert torch.equal(found.kept, kept)
    decoded = found.quantized.decoded()
    torch.testing.assert_close(decoded.double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(decoded, found.weight)
    assert not decoded[~found.kept].any()


@pytest.mark.parametrize("grid", [Grid(4), Grid(3, True), Grid(4, True, group_size=8)])
def test_what_was_zero_stays_zero_whatever_is_made_good(grid):
    weight, inputs, gram = layer(7)
    weight[torch.rand(weight.shape) < 0.4] = 0.0
    zero, known = weight == 0, Statistics("w", gram=gram)
    rounded = quantization.compensated(weight, compensation.factor(gram, "w"), grid, "w").decoded()
    assert not rounded[zero].any()
    plain = quantization.nearest(weight, grid, "w").decoded()
    assert float(((rounded - weight) @ inputs.T).norm()) < float(
        ((plain - weight) @ inputs.T).norm()
    )
    for target in (Target(0.5), Target(0.2), Target(None, (2, 4))):
        found = criteria.load("sparsegpt").prune_layer(weight, known, target)
        assert not found.weight[zero].any()
        assert int((~found.kept).sum()) == round(target.share * weight.numel())


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 9), groups=st.integers(1, 40),
    sparsity=st.floats(0, 0.99), coarse=st.booleans(), dead=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_with_ties_and_dead_inputs(seed, rows, groups, sparsity, coarse, dead):
    torch.manual_seed(seed)
    weight = torch.randn(rows, groups * 4)
    weight = weight.round() if coarse else weight
    inputs = torch.randn(30, groups * 4)
    if dead:
        inputs[:, ::3] = 0
    statistics = Statistics("w", gram=inputs.T @ inputs)
    criterion = criteria.load("sparsegpt")
    found = criterion.prune_layer(weight, statistics, Target(sparsity))
    assert int((~found.kept).sum()) == round(sparsity * weight.numel())
    assert torch.isfinite(found.weight).all()
    grouped = criterion.prune_layer(weight, statistics, Target(None, (2, 4)))
    assert bool((grouped.kept.view(-1, 4).sum(1) == 2).all())


def test_damping_is_raised_where_it_must_be_and_told():
    weight = torch.randn(4, 6)
    gram = torch.ones(6, 6) * 1e3
    gram[0, 0] -= 150  # indefinite
    found = criteria.load("sparsegpt").prune_layer(weight, Statistics("w", gram=gram), Target(0.5))
    assert found.damping > compensation.DAMPING
    with pytest.raises(JdnaError, match="'w' is not positive definite"):
        compensation.factor(-gram * 1e12, "w")
    with pytest.raises(JdnaError, match="activations of 'w' are not finite"):
        compensation.factor(gram * float("nan"), "w")


def test_a_weight_that_is_not_finite_is_refused_by_name():
    weight, _, gram = layer()
    weight[2, 3] = float("nan")
    with pytest.raises(JdnaError, match="'w' holds NaN"):
        criteria.load("sparsegpt").prune_layer(weight, Statistics("w", gram=gram), Target(0.5))
    with pytest.raises(JdnaError, match="'w' holds NaN"):
        quantization.nearest(weight, Grid(4), "w")
