"""Every command gives on a GPU what it gives on the CPU: `pytest -m gpu`, where there is one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from jdna_cli.pruning.calibration import Activations
from jdna_cli.sparsity import compensation, quantization
from jdna_cli.sparsity.quantization import Grid
from jdna_cli.sparsity.regimes import REGIMES
from tests import toys
from tests.conftest import QUICK, run_jdna

pytestmark = pytest.mark.gpu


@pytest.fixture
def both(tmp_path):
    """`both(...)`: what a command line prints on the GPU and on the CPU, each with its home."""

    def run(*args):
        line = [str(arg) for arg in (*args, "--json")]
        found = run_jdna(*line, "--home", tmp_path / "gpu")
        assert found.code == 0, found.err
        done = subprocess.run(
            [sys.executable, "-m", "jdna_cli", *line, "--home", str(tmp_path / "cpu")],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        there, here = found.json, json.loads(done.stdout)
        assert here["run"]["device"].startswith("cpu")
        assert not there["run"]["device"].startswith("cpu")
        return there, here

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("data"))


CALIBRATED = {
    "wanda": ("--criterion", "wanda", "--pattern", "2:4"),
    "sparsegpt": ("--criterion", "sparsegpt", "--sparsity", 0.5),
    "gradient": ("--criterion", "gradient", "--sparsity", 0.5),
    "fisher": ("--criterion", "fisher", "--sparsity", 0.5, "--scope", "layer"),
    "gptq": ("--quantize", 4, "--rounding", "gptq"),
}


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
@pytest.mark.parametrize("way", CALIBRATED)
def test_the_same_weights_are_chosen(both, families, data, tmp_path, way, family):
    calibration = ("--calibration", "rte", "--calibration-samples", 16, "--data-dir", data)
    there, here = both("prune", families(family), *CALIBRATED[way], *calibration)
    assert there["pruning"]["prunable"] == here["pruning"]["prunable"]
    a, b = (load_file(tmp_path / home / "1" / "model.safetensors") for home in ("gpu", "cpu"))
    assert a.keys() == b.keys()
    differ = sum(int(((a[name] == 0) != (b[name] == 0)).sum()) for name in a)
    # Sums of another order: values that are equal to the last digits may change places.
    assert differ <= 0.01 * there["pruning"]["prunable"]
    if way in ("wanda", "gradient", "fisher"):
        assert there["pruning"]["pruned"] == here["pruning"]["pruned"]


@pytest.mark.parametrize("regime", [n for n, r in REGIMES.items() if r.needs != "bits"])
def test_a_regime_trains_alike_and_holds_what_it_holds(both, bert, tmp_path, regime):
    asked = () if regime == "dense" else ("--sparsity", 0.5)
    there, here = both("finetune", bert, "--regime", regime, *asked, *QUICK)
    assert there["metrics"]["loss"] == pytest.approx(here["metrics"]["loss"], rel=0.02)
    assert there["run"]["sparsity_reached"] == here["run"]["sparsity_reached"]


@pytest.mark.parametrize("kind", toys.KINDS)
def test_every_kind_of_task_is_trained_and_measured(both, families, data, kind):
    task = ("--task", toys.KINDS[kind], "--data-dir", data)
    pair = ("--pairs", "en-de") if kind == "translation" else ()
    recipe = ("--max-train-samples", 16, "--epochs", 1, "--batch-size", 4, "--max-length", 64)
    there, here = both("finetune", families("llama"), *task, *pair, *recipe)
    assert there["metrics"]["loss"] == pytest.approx(here["metrics"]["loss"], rel=0.02)


def test_a_line_between_two_models_is_measured_alike(both, bert):
    for seed in (1, 2):
        both("finetune", bert, *QUICK, "--seed", seed)
    there, here = both("interpolate", "run:1", "run:2", "--task", "living", "--points", 3)
    assert there["metrics"] == pytest.approx(here["metrics"], rel=0.05, abs=0.02)


def test_iterative_rounds_reach_the_exact_sparsity(both, bert, tmp_path):
    asked = ("--sparsity", 0.5, "--schedule", "iterative", "--schedule-rounds", 3)
    there, here = both("finetune", bert, *asked, *QUICK)
    assert there["run"]["sparsity_reached"] == here["run"]["sparsity_reached"]


CHOICES = {
    "2:4": lambda weight: compensation.NOfM(weight, 2, 4),
    "50 %": lambda weight: compensation.Share(weight, 0.5),
    "4 bits": compensation.Choice,
}


@pytest.mark.parametrize("rule", [*CHOICES, "2:4 and 4 bits"])
def test_columns_whose_steps_are_recorded_are_settled_alike(monkeypatch, rule):
    torch.manual_seed(0)
    inputs = torch.randn(3000, 1000) @ torch.randn(1000, 1000)
    weight, gram = torch.randn(96, 1000), inputs.T @ inputs
    weight[torch.rand_like(weight) < 0.1] = 0
    grid = Grid(4, group_size=40) if "bits" in rule else None

    def settled(device):
        own = weight.to(device)
        factor = compensation.factor(gram.to(device), "w")
        choice = CHOICES[rule.partition(" and ")[0]](own)
        asked = choice if grid is None else quantization.OntoGrid(own, grid, choice)
        changed = compensation.sweep(own, factor, asked, "w")
        assert grid is None or torch.equal(asked.result().decoded(), changed)
        return changed.cpu(), choice.kept().cpu()

    here, recorded = settled("cpu"), settled("cuda")
    monkeypatch.setattr(compensation, "WORTH_RECORDING", 10**9)
    step_by_step = settled("cuda")
    assert all(map(torch.equal, recorded, step_by_step))
    assert float((recorded[1] != here[1]).float().mean()) < 0.01
    assert float((recorded[0] - here[0]).norm() / here[0].norm()) < 0.1


def test_16_bit_inputs_are_multiplied_as_exactly_as_float32_ones():
    inputs = torch.randn(4000, 300, device="cuda").bfloat16()
    seen = Activations(products=True)
    for part in inputs.split(1000):
        seen.see("w", part)
    known = seen.told("w", "w", 1, 0, 4).gram
    expected = inputs.double().T @ inputs.double()
    assert float((known - expected).norm() / expected.norm()) < 1e-5
