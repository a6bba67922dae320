"""What a regime holds has the same bits after any training; what it frees moves."""

import pytest
import torch

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import masks, patterns
from jdna_cli.sparsity.regimes import REGIMES, Constraint, start_

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0, fused=True),
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
}


def model_and_masks(sparsity=0.6):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.Tanh(), torch.nn.Linear(16, 12))
    weights = dict(model.named_parameters())
    names = ["0.weight", "2.weight"]

    def scored():
        return [patterns.Scored(n, weights[n].detach(), 1) for n in names]

    return model, weights, dict(patterns.unstructured(scored, sparsity, "global"))


def train(model, optimizer, steps=12, constraint=None, clip=None):
    torch.manual_seed(1)
    for _ in range(steps):
        loss = model(torch.randn(32, 24)).square().sum()
        loss.backward()
        if clip:
            constraint.clear_gradients()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("name", REGIMES)
def test_held_weights_keep_their_bits_and_free_ones_move(name, optimiser, clip, decay):
    model, weights, found = model_and_masks()
    regime = REGIMES[name]
    applied = found if regime.needs_mask else {}
    before = {n: w.detach().clone() for n, w in weights.items()}
    start_({n: weights[n] for n in applied}, applied, regime, seed=3)
    started = {n: w.detach().clone() for n, w in weights.items()}
    constraint = Constraint(weights, applied, regime)
    optimizer = OPTIMISERS[optimiser](weights.values())
    constraint.attach(optimizer, decay)
    train(model, optimizer, constraint=constraint, clip=clip)
    constraint.verify(12)

    for n, mask in found.items():
        kept = mask.unpacked()
        small = ~kept
        now = weights[n].detach()
        if name in ("sparse", "sparse-to-dense"):
            assert not started[n][small].any()
        elif name == "reinit":
            assert torch.equal(started[n][small].sort().values, before[n][small].sort().values)
            assert not torch.equal(started[n][small], before[n][small])
        else:
            assert torch.equal(started[n], before[n])
        assert torch.equal(started[n][kept], before[n][kept])
        held = {"sparse": small, "dense-frozen": small, "large-frozen": kept}.get(name)
        if held is None:
            held = torch.zeros_like(kept)
        assert torch.equal(now[held].view(torch.int32), started[n][held].view(torch.int32))
        assert bool((now[~held] != started[n][~held]).float().mean() > 0.99)
    for n in ("0.bias", "2.bias"):
        assert not torch.equal(weights[n].detach(), before[n])


def test_held_weights_do_not_count_in_the_norm_that_clips():
    model, weights, found = model_and_masks()
    constraint = Constraint(weights, found, REGIMES["dense-frozen"])
    model(torch.randn(32, 24)).square().sum().backward()
    free = [w.grad * found[n].unpacked() if n in found else w.grad for n, w in weights.items()]
    expected = torch.stack([g.norm() for g in free]).norm()
    constraint.clear_gradients()
    assert torch.nn.utils.clip_grad_norm_(weights.values(), 1.0) == pytest.approx(float(expected))


def test_weight_decay_of_free_weights_is_that_of_adamw():
    model, weights, _ = model_and_masks()
    twin, twins, _ = model_and_masks()
    optimizer = torch.optim.AdamW(weights.values(), lr=0.01, weight_decay=0.0)
    Constraint(weights, {}, REGIMES["dense"]).attach(optimizer, 0.1)
    groups = [
        {"params": [w for w in twins.values() if w.ndim >= 2], "weight_decay": 0.1},
        {"params": [w for w in twins.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    train(model, optimizer)
    train(twin, torch.optim.AdamW(groups, lr=0.01))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, twins[name])


def test_the_proof_notices_a_single_changed_bit():
    _, weights, found = model_and_masks()
    constraint = Constraint(weights, found, REGIMES["dense-frozen"])
    constraint.verify(0)
    place = (~found["0.weight"].unpacked()).nonzero()[0]
    with torch.no_grad():
        weights["0.weight"].view(torch.int32)[tuple(place)] ^= 1
    with pytest.raises(JdnaError, match=r"0\.weight.*step 5"):
        constraint.verify(5)


def test_masks_on_memory_cost_an_eighth_of_a_byte_per_weight():
    mask = masks.pack(torch.rand(1000, 1000) > 0.5)
    assert mask.bits.nbytes == 125_000
