"""Packed files, and models that are larger than memory."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.pipelines.test_variants import SMALL, bits, weights

# --------------------------------------------------------------------------------- packed, time


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize(
    "way",
    [
        ("--sparsity", 0.6), ("--pattern", "2:4"), ("--quantize", 4), ("--sparsity", 0.01),
        ("--pattern", "2:4", "--quantize", 4),
        ("--sparsity", 0.1, "--quantize", 3, "--asymmetric", "--group-size", 8),
    ],
)  # fmt: skip
def test_packed_files_are_read_back_bit_for_bit(jdna, tiny, family, way):
    plain = jdna("prune", tiny(family), *way, "--json").json
    packed = jdna("prune", tiny(family), *way, "--packed", "--json").json
    assert packed["run"]["id"] == 2
    assert packed["run"]["fingerprint"] == plain["run"]["fingerprint"]
    assert packed["pruning"] == plain["pruning"]
    for again, number in ((("--packed",), 2), ((), 1)):
        assert jdna("prune", tiny(family), *way, *again, "--json").json["run"]["id"] == number
    file = jdna.home / "2" / "packed-model.safetensors"
    assert packed["metrics"]["bytes"] == file.stat().st_size
    assert packed["metrics"]["dense_bytes"] == (tiny(family) / "model.safetensors").stat().st_size
    header = int.from_bytes(file.read_bytes()[:8], "little") + 8
    stored = load_file(tiny(family) / "model.safetensors")
    names = [layer["name"] for layer in plain["pruning"]["layers"]]
    rest = sum(t.numel() * t.element_size() for n, t in stored.items() if n not in names)
    count = plain["pruning"]["prunable"]
    expected = packed["run"]["bits_per_weight"] * count / 8
    assert file.stat().st_size - header - rest == pytest.approx(expected, abs=len(names) * 4)
    # Whatever reads a model reads this one.
    tuned = [jdna("finetune", f"run:{i}", *SMALL, "--json").json for i in (1, 2)]
    assert tuned[0]["metrics"]["loss"] == tuned[1]["metrics"]["loss"]
    (folder,) = (jdna.home / ".unpacked").iterdir()
    a, b = weights(jdna.home / "1"), weights(folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(bits(a[n]), bits(b[n])) for n in a)
    raw = bytearray(file.read_bytes())
    file.write_bytes(raw[:-9])
    assert "is not what the run wrote" in jdna("prune", "run:2", "--sparsity", 0.9, code=2).err


def test_latency_and_throughput_are_measured_when_asked(jdna, bert):
    jdna("finetune", bert, *SMALL)
    without = jdna("eval", "run:1", "--task", "living", "--json").json
    timed = jdna("eval", "run:1", "--task", "living", "--time", "--json").json
    assert "latency_ms" not in str(without["metrics"])
    found = timed["metrics"]
    assert (
        0 < found["time/latency_ms_p10"] <= found["time/latency_ms"] <= found["time/latency_ms_p90"]
    )
    assert found["time/throughput"] > 0
    assert found["accuracy"] == without["metrics"]["accuracy"]
    assert timed["run"]["fingerprint"] == without["run"]["fingerprint"]
    assert jdna("eval", "run:1", "--task", "living", "--time", "--json").json["run"]["cached"]
    asked = ("eval", "run:1", "--task", "living", "--kernels", "semi-structured")
    message = jdna(*asked, code=2).err
    assert ("need a GPU" in message) != torch.cuda.is_available()


@pytest.mark.gpu
def test_on_a_gpu_semi_structured_kernels_agree_with_dense_ones(jdna, tmp_path, tokenizer):
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    folder = tmp_path / "wide"
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    jdna("finetune", folder, "--pattern", "2:4", *SMALL)
    dense = jdna("eval", "run:2", "--task", "living", "--dtype", "bfloat16", "--json").json
    sparse = jdna("eval", "run:2", "--task", "living", "--dtype", "bfloat16", "--time",
                  "--kernels", "semi-structured", "--json").json  # fmt: skip
    assert sparse["metrics"]["time/kernel_difference"] < 0.1
    assert sparse["metrics"]["accuracy"] == pytest.approx(dense["metrics"]["accuracy"], abs=0.05)


# ------------------------------------------------------------------------ larger than memory


def llama_shaped(folder, hidden, layers, shards, dtype=torch.bfloat16):
    """A sharded checkpoint of random weights, made shard by shard."""
    from benchmarks import checkpoint

    return checkpoint.make(folder, hidden=hidden, layers=layers, shards=shards, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("--sparsity", "0.5"), ("--pattern", "2:4")])
@pytest.mark.long
def test_memory_does_not_grow_with_the_checkpoint(tmp_path, asked):
    """Resident memory beyond the start, of a model of 8 and of one of 32 blocks of 8 MB."""
    code = """
import sys
from pathlib import Path
from jdna_cli.pipelines import prune as pruning
from jdna_cli.run_context import RunContext
from jdna_cli.specs import ModelSource, PruneSpec
import torch
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
torch.set_num_threads(1)
folder, target, flag, value, *rest = sys.argv[1:]
more = {"criterion": rest[1]} if rest else {}
name = flag.removeprefix("--")
spec = PruneSpec(model=folder, **{name: float(value) if name == "sparsity" else value}, **more)
place = RunContext(Path(target), None, Path(target))
pruning.plan_of(spec, ModelSource("m", Path(folder), "m"))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = peak()
found = pruning.prune(spec, ModelSource("m", Path(folder), "m"), place)
assert found.pruned == round(0.5 * found.prunable), (found.pruned, found.prunable)
print(peak() - before)
"""
    grown = []
    for layers in (8, 32):
        folder = llama_shaped(tmp_path / f"model-{layers}", 512, layers, 4)
        done = subprocess.run(
            [sys.executable, "-c", code, folder, tmp_path / f"out-{layers}", *asked],
            capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        grown.append(int(done.stdout.split()[-1]) / 1024)
    largest = 512 * 1408 * 2 / 2**20
    assert max(grown) < 16 * largest + 24, grown
    assert grown[1] < grown[0] + 8, grown


def test_a_disk_that_fills_leaves_nothing_under_the_final_name(jdna, tmp_path):
    folder = llama_shaped(tmp_path / "model", 256, 4, 2)
    jdna("runs", "list", "--home", tmp_path / "home", code=2)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    done = subprocess.run(
        [sys.executable, "-m", "jdna_cli", "prune", folder, "--sparsity", "0.5"],
        env={**os.environ, "JDNA_HOME": str(jdna.home)}, preexec_fn=limit, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "could not be written: File too large" in done.stderr
    assert not list(jdna.home.glob("[0-9]*"))
    assert not list(jdna.home.glob(".*part*"))
    (row,) = jdna("runs", "list", "--json").json["runs"]
    assert row["status"] == "failed"


def test_shards_are_pruned_as_one_model_over_all_of_them(jdna, tmp_path):
    folder = llama_shaped(tmp_path / "model", 64, 6, 5)
    found = jdna("prune", folder, "--sparsity", 0.37, "--json").json["pruning"]
    before, after = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        before |= load_file(file)
        after |= load_file(jdna.home / "1" / file.name)
    names = [layer["name"] for layer in found["layers"]]
    flat = np.concatenate([before[n].abs().float().numpy().ravel() for n in names])
    gone = np.zeros(flat.size, dtype=bool)
    gone[np.argsort(flat, kind="stable")[: round(0.37 * flat.size)]] = True
    theirs = np.concatenate([(after[n] == 0).numpy().ravel() for n in names])
    assert (theirs == (gone | (flat == 0))).all()
    assert all(torch.equal(before[n], after[n]) for n in before if n not in names)
    index = "model.safetensors.index.json"
    assert (jdna.home / "1" / index).read_bytes() == (folder / index).read_bytes()
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        jdna.home / "1", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert model.dtype == torch.bfloat16
    packed = jdna("prune", folder, "--sparsity", 0.37, "--packed", "--json").json["run"]["id"]
    jdna("prune", f"run:{packed}", "--sparsity", 0.5)
    (unpacked,) = (jdna.home / ".unpacked").iterdir()
    for file in sorted(folder.glob("*.safetensors")):
        own = load_file(unpacked / file.name)
        assert all(torch.equal(own[n], after[n]) for n in own)
