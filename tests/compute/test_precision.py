"""What `auto` stands for, and what is said where a type is slow.

One CPU shows both kinds: ONEDNN_MAX_CPU_ISA takes the instructions for bfloat16 away from torch.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jdna_cli.compute import precision
from jdna_cli.compute.precision import Rates
from jdna_cli.specs import EvalSpec, FinetuneSpec
from jdna_cli.sweeps import cells, experiment

AVX2 = Rates(float32=132, bfloat16=1.3, float16=1.4)
AMX = Rates(float32=140, bfloat16=700, float16=3)
EVEN = Rates(float32=130, bfloat16=140, float16=130)
SLOW = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
QUICK = ("--task", "living", "--max-train-samples", 32, "--epochs", 1, "--max-length", 16)


@pytest.mark.parametrize(
    ("device", "rates", "bfloat16", "expected"),
    [
        ("cpu", AVX2, False, "no"),
        ("cpu", AMX, False, "bf16"),
        ("cpu", EVEN, False, "no"),
        ("cuda", None, True, "bf16"),
        ("cuda", None, False, "fp16"),
        ("mps", None, True, "bf16"),
        ("mps", None, False, "no"),
    ],
)
def test_auto_is_what_the_device_is_faster_in(device, rates, bfloat16, expected):
    assert precision.precision_on(device, rates, bfloat16) == expected


@pytest.mark.parametrize(
    ("device", "stored", "rates", "expected"),
    [
        ("cpu", "bfloat16", AVX2, "float32"),
        ("cpu", "bfloat16", AMX, "bfloat16"),
        ("cpu", "float16", AMX, "float32"),
        ("cpu", "float32", AVX2, "float32"),
        ("cuda", "bfloat16", None, "bfloat16"),
    ],
)
def test_weights_are_held_in_their_own_type_unless_it_is_slow(device, stored, rates, expected):
    assert precision.dtype_on(device, stored, rates) == expected


def test_rates_are_measured_and_auto_takes_the_faster_here():
    here = precision.rates()
    assert min(here.float32, here.bfloat16, here.float16) > 0
    chosen = precision.TYPES[precision.automatic()]
    other = "bfloat16" if chosen == "float32" else "float32"
    assert here.slowdown(chosen) <= precision.WORTH * here.slowdown(other)


SEVERAL = """
import json, sys
from tests.conftest import run_jdna
found = [run_jdna(*words, "--json") for words in json.load(sys.stdin)]
print(json.dumps([{"code": r.code, "out": r.out, "err": r.err} for r in found]))
"""


def on_slow_cpu(home, *commands):
    """Commands on this CPU without its instructions for bfloat16: what each gave, and said."""
    asked = [[*map(str, words), "--home", str(home)] for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL], input=json.dumps(asked), text=True, check=True,
        capture_output=True, env={**os.environ, **SLOW}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert [one["code"] for one in found] == [0] * len(found), found
    return [(json.loads(one["out"]), one["err"]) for one in found]


@pytest.mark.long
def test_where_bfloat16_is_slow_auto_is_float32_and_asking_for_it_is_warned_of(bert, tmp_path):
    tuned = ("finetune", bert, *QUICK)
    auto, plain, half, shown = on_slow_cpu(
        tmp_path / "home", (*tuned, "--mixed-precision", "auto"), tuned,
        (*tuned, "--mixed-precision", "bf16"), ("runs", "show", 1),
    )  # fmt: skip
    assert "slower" not in auto[1]
    assert plain[0]["run"]["cached"]
    assert plain[0]["run"]["id"] == auto[0]["run"]["id"] == 1
    assert not half[0]["run"]["cached"]
    (line,) = [line for line in half[1].splitlines() if "slower" in line]
    assert "--mixed-precision bf16: this CPU multiplies bfloat16" in line
    assert shown[0]["spec"]["mixed_precision"] == "no"


@pytest.mark.long
def test_a_bfloat16_checkpoint_is_loaded_as_float32_where_that_is_faster(jdna, bert, tmp_path):
    half = tmp_path / "half"
    own = Path(jdna("finetune", bert, *QUICK, "--json").json["run"]["artifact"])
    half.mkdir()
    for file in own.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, half)
    tensors = load_file(own / "model.safetensors")
    save_file(
        {name: tensor.bfloat16() for name, tensor in tensors.items()},
        half / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    measured = ("eval", half, "--task", "living", "--dtype")
    auto, plain = on_slow_cpu(tmp_path / "other", (*measured, "auto"), (*measured, "bfloat16"))
    assert auto[0]["run"]["dtype"] == "float32"
    assert "slower" not in auto[1]
    assert plain[0]["run"]["dtype"] == "bfloat16"
    assert "--dtype bfloat16: this CPU multiplies bfloat16" in plain[1]


def test_fp16_on_a_cpu_computes_in_fp16(jdna, bert):
    whole = jdna("finetune", bert, *QUICK, "--json").json
    half = jdna("finetune", bert, *QUICK, "--mixed-precision", "fp16", "--json")
    assert "--mixed-precision fp16: this CPU multiplies float16" in half.err
    assert half.json["metrics"]["loss"] != whole["metrics"]["loss"]
    assert half.json["metrics"]["loss"] == pytest.approx(whole["metrics"]["loss"], abs=0.05)


@pytest.mark.parametrize("chosen", ["no", "bf16"])
def test_a_sweep_is_computed_in_one_precision(chosen):
    asked = experiment.find("cross-task/small")
    assert experiment.says_auto(asked)
    settled = experiment.with_precision(asked, chosen)
    assert not experiment.says_auto(settled)
    trained = [cell for cell in cells.of(settled) if cell.kind == "finetune"]
    assert {cell.values["mixed_precision"] for cell in trained} == {chosen}


def test_no_shipped_experiment_for_small_machines_asks_for_a_type_that_may_be_slow():
    for name in experiment.names():
        if name.endswith("/small"):
            asked = experiment.find(name)
            assert asked.fixed.get("mixed_precision", "no") in ("no", "auto")
            assert asked.fixed.get("dtype", "float32") in ("float32", "auto")


def test_specs_hold_concrete_precisions_alone():
    for kind in (FinetuneSpec, EvalSpec):
        values = kind.model_fields["mixed_precision"].annotation.__args__
        assert set(values) == {"no", "bf16", "fp16"}


def test_the_measurement_leaves_torchs_threads_as_they_were():
    before = torch.get_num_threads()
    precision.rates.cache_clear()
    precision.rates()
    assert torch.get_num_threads() == before
