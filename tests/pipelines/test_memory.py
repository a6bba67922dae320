"""What a dry run says of memory is counted from the files, and leaves nothing behind."""

import pytest
from safetensors.torch import load_file

from tests import toys


def plan(jdna, *args):
    needs = jdna(*args, "--dry-run", "--json").json["memory"]
    return {(need["what"], need["where"]): need["bytes"] for need in needs}


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_weights_gradients_and_moments_are_counted(jdna, families, tmp_path, family):
    data = toys.write(tmp_path / "data", train=12, validation=6)
    folder = families(family)
    count = sum(t.numel() for t in load_file(folder / "model.safetensors").values())
    found = plan(jdna, "finetune", folder, "--task", "rte", "--data-dir", data)
    assert found["weights", "memory"] == found["gradients", "memory"] == 4 * count
    assert found["moments of AdamW", "memory"] == 8 * count
    assert found["the model", "disk"] == 4 * count
    if family == "llama":
        found = plan(jdna, "eval", folder, "--task", "arc_easy", "--data-dir", data,
                     "--dtype", "bfloat16")  # fmt: skip
        assert found["weights", "memory"] == 2 * count
    assert jdna("runs", "list", "--json").json["runs"] == []


def test_a_calibrated_pruning_says_what_its_samples_and_products_take(jdna, families, tmp_path):
    data = toys.write(tmp_path / "data", train=12, validation=6)
    folder = families("llama")
    args = ("prune", folder, "--pattern", "2:4", "--criterion", "sparsegpt", "--calibration",
            "arc_easy", "--calibration-samples", 4, "--calibration-length", 64,
            "--data-dir", data)  # fmt: skip
    found = plan(jdna, *args)
    assert found["samples between blocks, 256 tokens", "memory"] == 256 * 32 * 4
    said = jdna(*args, "--dry-run")
    assert "in all: " in said.out + said.err
    chosen = jdna(*args, "--dry-run", "--json").json["prunable"]
    assert found["finished blocks, until the run is done", "disk"] == 4 * chosen
    assert jdna("runs", "list", "--json").json["runs"] == []


def test_what_is_wrong_is_refused_before_memory_is_told(jdna, families):
    error = jdna("finetune", families("llama"), "--task", "rte", "--sparsity", 2, "--dry-run",
                 code=2).err  # fmt: skip
    assert "--sparsity" in error
    assert "the harness does not say" in jdna(
        "eval", families("llama"), "--harness", "arc_easy", "--dry-run", code=2
    ).err  # fmt: skip
