"""One run over several processes is the run of one process with the same batches."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import transformers
from safetensors.torch import load_file

from jdna_cli.models import tiny_models
from jdna_cli.sparsity import masks
from jdna_cli.training import checkpoints


def without_dropout(name, folder):
    """A tiny model whose draws would differ between processes, if it drew."""
    tiny_models.make(name, folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def still(tmp_path):
    return without_dropout("tiny-encoder-32", tmp_path / "still")


def command_of(*args, processes=2):
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
            "-m", "jdna_cli", *map(str, args)]  # fmt: skip


def environment_of(home, *, sharded):
    return {**os.environ, "JDNA_HOME": str(home), "ACCELERATE_USE_CPU": "true",
            # As `accelerate launch --use_fsdp` sets them.
            "ACCELERATE_USE_FSDP": str(sharded).lower(),
            "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip


def several_processes(home, *args, processes=2, sharded=False):
    environment = environment_of(home, sharded=sharded)
    return subprocess.run(
        command_of(*args, processes=processes),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def agree(one, other, regime):
    """Whether two runs' weights are equal within float error, and held ones to the bit."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=5e-4)
    found, same = (masks.load(folder / "mask.safetensors") for folder in (one, other))
    assert found.keys() == same.keys()
    for name, mask in found.items():
        gone = ~mask.unpacked()
        if regime == "iterative":  # each run's own masks: a weight at the threshold may differ
            gone = ~same[name].unpacked()
            assert same[name].kept == mask.kept
        else:
            assert torch.equal(gone, ~same[name].unpacked())
        now = b[name].view(torch.int32)[gone]
        if regime == "dense-frozen":
            assert torch.equal(now, a[name].view(torch.int32)[gone])
        else:
            assert not now.any()


# 91 examples in batches of 8: the last batch is one that a process has nothing of.
RECIPE = ("--task", "living", "--epochs", 2, "--lr", 1e-3, "--max-train-samples", 89,
          "--batch-size", 8, "--max-length", 32, "--max-grad-norm", 1.0)  # fmt: skip


@pytest.mark.long
def test_two_processes_give_the_weights_of_one(jdna, still):
    # Whole models in the one regime, divided ones in the other; rounds and ties are tested below.
    for regime, one, two, sharded in (("sparse", 2, 3, False), ("dense-frozen", 4, 5, True)):
        args = ("finetune", still, *RECIPE, "--sparsity", 0.5, "--regime", regime)
        alone = jdna(*args, "--json").json
        done = several_processes(jdna.home, *args, "--force", "--json", sharded=sharded)
        assert done.returncode == 0, done.stderr[-2000:]
        together = json.loads(done.stdout)
        assert (alone["run"]["id"], together["run"]["id"]) == (one, two)
        assert together["run"]["fingerprint"] == alone["run"]["fingerprint"]
        assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], abs=2e-3)
        agree(jdna.home / str(one), jdna.home / str(two), regime)
    assert len(jdna("runs", "list", "--json").json["runs"]) == 5


PARTS = """
import torch, transformers
from jdna_cli.compute import distributed as cluster
from jdna_cli.sparsity import masks, shards

cluster.join()
model = transformers.AutoModelForMaskedLM.from_pretrained({folder!r})
before = {{name: p.detach().clone() for name, p in model.named_parameters()}}
cluster.shard(model, torch.device("cpu"))
held = 0
for name, parameter in model.named_parameters():
    own = shards.local(parameter)
    held += own.numel()
    assert torch.equal(own, shards.rows_of(before[name], parameter)), name
    kept = shards.mask_of(masks.pack(before[name] > 0), parameter)
    assert torch.equal(kept.unpacked(), own > 0), name
    assert torch.equal(shards.whole(parameter), before[name]), name
total = sum(p.numel() for p in before.values())
assert abs(held / total - 1 / 3) < 0.02, (held, total)
again = shards.gathered(model.state_dict(keep_vars=True), keep=cluster.is_first())
assert not cluster.is_first() or all(torch.equal(again[n], before[n]) for n in before)
sums = torch.tensor(held)
torch.distributed.all_reduce(sums)
assert sums == total
print("divided")
cluster.shutdown()
"""


@pytest.mark.long
def test_each_process_holds_its_rows_of_weights_and_masks(still, tmp_path):
    script = tmp_path / "parts.py"
    script.write_text(PARTS.format(folder=str(still)))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", str(script)],
        env=environment_of(tmp_path, sharded=True) | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("divided") == 3


@pytest.mark.long
def test_a_divided_model_is_pruned_in_rounds_and_goes_on_with_other_processes(jdna, tmp_path):
    # T5 ties its embeddings; rows of its weights do not divide by three.
    model = without_dropout("tiny-translator", tmp_path / "still")
    args = ("finetune", model, *RECIPE, "--sparsity", 0.5, "--schedule", "iterative",
            "--schedule-rounds", 4, "--dynamics", "--checkpoint-every", 4)  # fmt: skip
    jdna(*args)
    home = tmp_path / "divided"
    process = subprocess.Popen(
        command_of(*args, processes=3),
        env=environment_of(home, sharded=True),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not checkpoints.steps(home / ".work-1") and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert "interrupted at step" in process.stderr.read()
    done = several_processes(home, *args, "--resume", "--json", sharded=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["run"]["id"] == 1
    agree(jdna.home / "1", home / "1", "iterative")
    shown = [jdna("report", "dynamics", "--json", "--home", h).json for h in (jdna.home, home)]
    assert shown[0].keys() == shown[1].keys()


def test_a_wrong_request_lets_all_processes_go(jdna, still):
    done = several_processes(jdna.home, "finetune", still, *RECIPE, "--quantize", 8, sharded=True)
    assert done.returncode != 0
    assert "--regime: quantized rounds whole tensors, and FSDP divides them" in done.stderr


ALONE = [
    ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set"),
    ({"WORLD_SIZE": "2"}, "RANK is not set"),
    ({"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "none of them"),
    ({"WORLD_SIZE": "two"}, "is no number of processes"),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, "each of these processes would do the same"),
    ({"SLURM_STEP_NUM_TASKS": "2"}, "each of these processes would do the same"),
]


@pytest.mark.parametrize(("environment", "message"), ALONE)
def test_one_of_several_does_not_train_alone(jdna, still, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = jdna("finetune", still, *RECIPE, code=2).err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not jdna.home.exists()


def test_only_a_training_uses_several_processes(jdna, still, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = jdna("prune", still, "--sparsity", 0.5, code=2).err
    assert "only finetune uses several processes" in message


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_the_run(jdna, still):
    """Plain torchrun, without a GPU and without accelerate's own settings."""
    command = command_of("finetune", still, *RECIPE[:2], "--epochs", 500, *RECIPE[4:])
    environment = {**environment_of(jdna.home, sharded=False)}
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"):
        del environment[name]
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (second := rank_of(launcher.pid, 1)) or not (jdna.home / ".owners").exists():
            assert time.monotonic() < deadline
            assert launcher.poll() is None, launcher.stderr.read()[-2000:]
            time.sleep(0.2)
        time.sleep(5)  # into its training
        os.kill(second, signal.SIGKILL)
        assert launcher.wait(90) != 0
    finally:
        launcher.kill()
    (run,) = jdna("runs", "list", "--json").json["runs"]
    assert run["status"] in ("failed", "interrupted")


def rank_of(parent, number):
    """The child process that has this rank, if it has started."""
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if child.environ().get("RANK") == str(number):
                return child.pid
    return None
