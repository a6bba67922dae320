"""Pruned and rounded in one request, or one after the other: what was zero stays zero."""

import pytest
import torch
from transformers import AutoModel

from jdna_cli.sparsity import masks, quantization
from tests.pipelines.test_variants import SMALL, weights

CALIBRATED = ("--calibration", "living", "--calibration-samples", 6, "--calibration-length", 16)
WAYS = {
    "magnitude": (),
    "by layer": ("--scope", "layer"),
    "random": ("--criterion", "random"),
    "wanda": ("--criterion", "wanda", *CALIBRATED),
    "wanda, compensated": ("--criterion", "wanda", "--rounding", "gptq", *CALIBRATED),
    "compensated": ("--rounding", "gptq", *CALIBRATED),
    "gradient, compensated": ("--criterion", "gradient", "--rounding", "gptq", *CALIBRATED),
    "sparsegpt": ("--criterion", "sparsegpt", *CALIBRATED),
}
GRIDS = [
    ("bert", ("--quantize", 4)),
    ("gpt2", ("--quantize", 3, "--asymmetric", "--group-size", 8)),
]


def check(folder, pruned):
    """Exactly `pruned` of the weights were taken, and all that is left is on its grid."""
    kept, grids = masks.load(folder / "mask.safetensors"), quantization.load(
        folder / "grid.safetensors"
    )  # fmt: skip
    assert kept.keys() == grids.keys()
    own = weights(folder)
    assert sum(mask.total - mask.kept for mask in kept.values()) == pruned
    for name, mask in kept.items():
        assert not own[name][~mask.unpacked()].any()
        assert torch.equal(grids[name].rounded(own[name]), own[name])
    return sum(int((own[name] == 0).sum()) for name in kept)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("amount", [("--sparsity", 0.5), ("--pattern", "2:4")], ids=["50%", "2:4"])
@pytest.mark.parametrize(("family", "grid"), GRIDS)
def test_counts_are_exact_and_zeros_stay(jdna, tiny, family, amount, way, grid):
    if amount[0] == "--pattern" and way[:1] == ("--scope",):
        pytest.skip("N:M has no scope")
    found = jdna("prune", tiny(family), *amount, *way, *grid, "--json").json
    run, pruning = found["run"], found["pruning"]
    removed = round(0.5 * pruning["prunable"])
    zeros = check(jdna.home / "1", removed)
    assert found["metrics"]["removed"] == removed
    assert pruning["pruned"] == zeros >= removed
    assert run["sparsity"] == 0.5
    assert run["sparsity_reached"] == zeros / pruning["prunable"]
    pattern = "2:4" if amount[0] == "--pattern" else "unstructured"
    assert (run["bits"], run["pattern"]) == (grid[1], pattern)
    assert run["quantization"].startswith(f"{grid[1]} bits")
    model = AutoModel.from_pretrained(jdna.home / "1")
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_magnitude_and_nearest_are_one_after_the_other(jdna, bert):
    """No other weights go than without rounding, and they are rounded as if they had been alone."""
    jdna("prune", bert, "--pattern", "2:4")
    jdna("prune", "run:1", "--quantize", 4)
    found = jdna("prune", bert, "--pattern", "2:4", "--quantize", 4, "--json").json["run"]
    steps, at_once = weights(jdna.home / "2"), weights(jdna.home / "3")
    assert all(torch.equal(steps[name], at_once[name]) for name in steps)
    assert found["bits_per_weight"] < 4
    said = jdna("runs", "show", 2, "--json").json["run"]
    assert said["prunable"] == "after [2:4 magnitude]"
    assert said["bits_per_weight"] == found["bits_per_weight"]


def test_rounding_makes_good_within_what_an_earlier_pruning_left(jdna, tiny):
    jdna("prune", tiny("gpt2"), "--sparsity", 0.6)
    before = masks.load(jdna.home / "1" / "mask.safetensors")
    for number, way in (
        (2, ("--quantize", 4, "--rounding", "gptq", *CALIBRATED)),
        (3, ("--sparsity", 0.3, "--criterion", "sparsegpt", *CALIBRATED)),
    ):
        jdna("prune", "run:1", *way)
        own = weights(jdna.home / str(number))
        for name, mask in before.items():
            assert not own[name][~mask.unpacked()].any()
            kept = masks.load(jdna.home / str(number) / "mask.safetensors")[name]
            assert not (kept.unpacked() & ~mask.unpacked()).any()


@pytest.mark.parametrize(("regime", "on_grid"), [("quantized", True), ("sparse", False)])
def test_training_keeps_zeros_and_where_it_says_so_the_grid(jdna, bert, regime, on_grid):
    taken = ("--sparsity", 0.5, "--quantize", 3)
    asked = ("--regime", regime) if regime == "sparse" else ()
    found = jdna("finetune", bert, *taken, *asked, *SMALL, "--lr", 0.01, "--json").json
    assert found["run"]["regime"] == regime
    before, after = weights(jdna.home / "1"), weights(jdna.home / "2")
    grids = quantization.load(jdna.home / "1" / "grid.safetensors")
    moved = 0
    for name, mask in masks.load(jdna.home / "1" / "mask.safetensors").items():
        now = after[f"bert.{name}"]
        assert not now[~mask.unpacked()].any()
        assert torch.equal(grids[name].rounded(now), now) == on_grid
        moved += int((now != before[name]).sum())
    assert moved > 0
    again = jdna("eval", "run:2", "--task", "living", "--json").json
    assert again["metrics"]["loss"] == pytest.approx(found["metrics"]["loss"], rel=1e-6)
    refused = jdna("finetune", "run:1", "--regime", "dense-frozen", *SMALL, code=2).err
    assert "not for weights that are pruned and rounded: quantized, sparse" in refused


def test_reports_tell_rounded_weights_from_others(jdna, bert):
    for rounding in ((), ("--quantize", 4), ("--quantize", 2)):
        for amount in (0.3, 0.6):
            jdna("finetune", bert, "--sparsity", amount, *rounding, *SMALL)
            jdna("prune", bert, "--sparsity", amount, *rounding, "--packed")
    jdna("finetune", bert, *SMALL)
    drops = jdna("report", "drop").out
    for words in ("unstructured, 4 bits symmetric per channel", "unstructured, 2 bits"):
        assert words in drops
    assert drops.count("30%") == 3
    shown = jdna("report", "tradeoff").out
    order = [
        shown.index(words)
        for words in (
            "60% magnitude, 2 bits",
            "30% magnitude, 2 bits",
            "60% magnitude, 4 bits",
            "30% magnitude, 4 bits",
        )
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--sparsity", 0.5, "--pattern", "2:4", "--quantize", 4), "give either --sparsity S"),
        (("--quantize", 4, "--criterion", "wanda", *CALIBRATED), "it chooses none: add --sparsity"),
        (("--sparsity", 0.5, "--rounding", "gptq"), "--rounding: goes with --quantize alone"),
        (("--sparsity", 0.5, "--quantize", 9), "less than or equal to 8"),
        (("--pattern", "2:4", "--quantize", 4, "--group-size", 7), "groups of 7 do not divide"),
        ((), "give either --sparsity S (0 ≤ S < 1) or --pattern N:M, or --quantize BITS, or both"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(jdna, bert, args, message):
    refused = jdna("prune", bert, *args, code=2).err
    assert message in refused
    assert len(refused.strip().splitlines()) == 1
