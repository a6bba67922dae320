"""One run over several processes is the run of one process with the same batches."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file

from jdna_cli.engine import tiny
from jdna_cli.sparsity import masks


@pytest.fixture
def still(tmp_path):
    """A model without dropout, whose draws would differ between processes."""
    folder = tiny.make("tiny-encoder-32", tmp_path / "still")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(folder)
    return folder


def two_processes(home, *args):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m",
               "jdna_cli", *map(str, args)]  # fmt: skip
    environment = {**os.environ, "JDNA_HOME": str(home), "ACCELERATE_USE_CPU": "true",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(jdna, still):
    # 91 examples in batches of 8: the last batch is one that a process has nothing of.
    recipe = ("--task", "living", "--epochs", 2, "--lr", 1e-3, "--max-train-samples", 89,
              "--batch-size", 8, "--max-length", 32, "--max-grad-norm", 1.0)  # fmt: skip
    for regime, one, two in (("sparse", 2, 3), ("dense-frozen", 4, 5)):
        args = ("finetune", still, *recipe, "--sparsity", 0.5, "--regime", regime)
        alone = jdna(*args, "--json").json
        done = two_processes(jdna.home, *args, "--force", "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        together = json.loads(done.stdout)
        assert (alone["run"]["id"], together["run"]["id"]) == (one, two)
        assert together["run"]["fingerprint"] == alone["run"]["fingerprint"]
        assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], abs=2e-3)
        a, b = (load_file(jdna.home / str(i) / "model.safetensors") for i in (one, two))
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=5e-4)
        for name, mask in masks.load(jdna.home / str(two) / "mask.safetensors").items():
            gone = ~mask.unpacked()
            now = b[name].view(torch.int32)[gone]
            if regime == "sparse":
                assert not now.any()
            else:
                assert torch.equal(now, a[name].view(torch.int32)[gone])
    again = two_processes(jdna.home, *args, "--json")
    assert json.loads(again.stdout)["run"]["cached"]
    assert len(jdna("runs", "list", "--json").json["runs"]) == 5


def test_a_wrong_request_lets_all_processes_go(jdna, still):
    done = two_processes(jdna.home, "finetune", still, "--task", "nothing")
    assert done.returncode != 0
    assert "jdna: unknown task 'nothing'" in done.stderr
    done = two_processes(jdna.home, "prune", still, "--sparsity", 0.5)
    assert "only finetune uses several processes" in done.stderr
