"""The commands as a user meets them: one screen of help, one line of error, one object of JSON."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jdna_cli.cli.commands import evaluate, finetune, interpolate, prune
from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, PruneSpec
from tests.cli.conftest import LEARN
from tests.conftest import QUICK
from tests.tasks.test_tasks import GOOD, write

HEAVY = ("torch", "transformers", "datasets", "accelerate", "sklearn", "matplotlib")


# --------------------------------------------------------------------------------- errors, exit 2


def no_model(folder):
    (folder / "config.json").unlink()


def no_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def trailing(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def giant_header(folder):
    file = folder / "model.safetensors"
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])


def remote_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")


def config_is_no_json(folder):
    (folder / "config.json").write_text("{")


def index_outside(folder):
    index = {"weight_map": {"a": "../../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_model, "is no model: it has no config.json"),
        (no_safetensors, "has no model.safetensors; pickle files are read with --allow"),
        (truncated, "model.safetensors is damaged or truncated"),
        (empty, "model.safetensors is damaged or truncated"),
        (trailing, "model.safetensors is damaged or truncated"),
        (giant_header, "model.safetensors is damaged or truncated"),
        (remote_code, "config.json"),
        (config_is_no_json, "config.json"),
        (index_outside, "names files outside its folder"),
    ],
)
def test_a_bad_model_is_one_line(jdna, bert, damage, message):
    damage(bert)
    for command in (("prune", bert, "--sparsity", 0.5), ("finetune", bert, *QUICK)):
        found = jdna(*command, code=2)
        assert message in found.err
        one_line(found)
    assert jdna("runs", "list", "--json").json == {"runs": []}


def one_line(found):
    assert found.err.startswith("jdna: ")
    assert found.err.count("\n") == 1
    assert "Traceback" not in found.err
    assert not found.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("prune", "MODEL", "--sparsity", "1.2"), "Input should be less than 1, got 1.2"),
        (("prune", "MODEL", "--sparsity", "half"), "--sparsity"),
        (("prune", "MODEL"), "give either --sparsity"),
        (("prune", "MODEL", "--pattern", "3:7"), "has 32 inputs, which groups of 7 do not divide"),
        (("prune", "MODEL", "--pattern", "2:4", "--scope", "row"), "--scope"),
        (("prune", "MODEL", "--sparsity", "0", "--criterion", "magnitud"), "mean 'magnitude'"),
        (("prune", "MODEL", "--sparsity", "0.5", "--include", "nothing*"), "no prunable weights"),
        (("prune", "./nowhere", "--sparsity", "0.5"), "no such folder"),
        (("prune", "run:7", "--sparsity", "0.5"), "there is no run 7"),
        (("prune", "run:x", "--sparsity", "0.5"), "a run is named run:ID"),
        (("prune", "no/such-model", "--sparsity", "0.5"), "no such folder, and the hub"),
        (("finetune", "MODEL", "--task", "livin"), "unknown task 'livin': did you mean 'living'"),
        (("finetune", "MODEL", *QUICK, "--regime", "sparse"), "sparse needs pruned weights"),
        (("finetune", "MODEL", *QUICK, "--regime", "dense", "--sparsity", ".5"), "prunes nothing"),
        (("finetune", "MODEL", *QUICK, "--regime", "frozen"), "'frozen' is none of dense, sparse"),
        (("finetune", "MODEL", *QUICK, "--epochs", "0"), "--epochs"),
        (("finetune", "MODEL", *QUICK, "--data-fraction", "1.5"), "--data-fraction"),
        (("finetune", "MODEL", *QUICK, "--data-dir", "/nowhere"), "/nowhere is no folder"),
        (("finetune", "MODEL", *QUICK, "--mixed-precision", "fp8"), "--mixed-precision"),
        (("eval", "MODEL", "--task", "living"), "has no head for task 'living'"),
        (("eval", "MODEL", "--task", "living", "--split", "dev"), "it has train, validation, test"),
        (("interpolate", "MODEL", "MODEL", "--task", "living"), "has no head for task"),
        (("report",), "nothing has been run there yet"),
        (("report", "dropp"), "did you mean 'drop'"),
        (("report", "--plot", "x.gif"), "--plot: x.gif must end in .png"),
        (("runs", "show", "9"), "nothing has been run yet"),
        (("nonsense",), "No such command"),
        (("prune", "MODEL", "--sparcity", "0.5"), "--sparcity"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_and_leaves_nothing(jdna, bert, args, message):
    found = jdna(*(bert if arg == "MODEL" else arg for arg in args), code=2)
    assert message in found.err
    one_line(found)
    rows = jdna.home.is_dir() and jdna("runs", "list", "--json").json["runs"]
    assert not rows
    assert not [
        p for p in jdna.home.glob("*") if not p.name.startswith(("jdna.db", ".database", ".owners"))
    ]


def test_a_wrong_request_in_json_is_still_one_object(jdna, bert):
    found = jdna("prune", bert, "--sparsity", 1.2, "--json", code=2)
    assert found.json["error"]["exit_code"] == 2
    assert "--sparsity" in found.json["error"]["message"]


def test_a_task_folder_that_lacks_a_column_is_refused_before_anything_runs(jdna, bert, tmp_path):
    write(tmp_path / "data" / "rte", [GOOD])
    write(
        tmp_path / "data" / "rte",
        [{k: v for k, v in GOOD.items() if k != "sentence2"}],
        "validation",
    )
    found = jdna("finetune", bert, "--task", "rte", "--data-dir", tmp_path / "data", code=2)
    one_line(found)
    assert "column 'sentence2' is missing" in found.err
    assert "the row has sentence1, label, idx" in found.err


@pytest.mark.parametrize("home", ["/proc/nowhere/home", "/dev/null/home"])
def test_a_home_that_cannot_be_written_is_refused(jdna, bert, home):
    one_line(jdna("prune", bert, "--sparsity", 0.5, "--home", home, code=2))


def test_a_read_only_home_is_refused(jdna, bert, tmp_path):
    home = tmp_path / "locked"
    home.mkdir(mode=0o555)
    if os.access(home, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert "read-only" in jdna("prune", bert, "--sparsity", 0.5, "--home", home, code=2).err


def test_nan_in_the_weights_names_the_tensor(jdna, bert):
    tensors = load_file(bert / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][3, 4] = float("nan")
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})
    found = jdna("prune", bert, "--sparsity", 0.5, code=1)
    assert "'encoder.layer.0.output.dense.weight' holds NaN" in found.err
    assert jdna("runs", "show", 1, "--json").json["run"]["status"] == "failed"
    assert not (jdna.home / "1").exists()


def test_missing_weights_are_refused_not_made_up(jdna, bert):
    tensors = load_file(bert / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})
    found = jdna("finetune", bert, *QUICK, code=2)
    lost = "'bert.encoder.layer.0.output.dense.weight'"
    assert f"is not whole: it lacks 1 of its weights, {lost} first" in found.err


def test_a_pickle_is_never_opened(jdna, bert, tmp_path):
    import pickle

    canary = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (canary,))

    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(), 2))
    (bert / "training_args.bin").write_bytes(pickle.dumps(Bomb(), 2))
    jdna("prune", bert, "--sparsity", 0.5)
    (bert / "model.safetensors").unlink()
    jdna("prune", bert, "--sparsity", 0.6, code=2)
    assert not canary.exists()
    assert not list((jdna.home / "1").glob("*.bin"))
    told = jdna("prune", bert, "--sparsity", 0.6, "--allow-pickle", code=2).err
    assert "pytorch_model.bin: not tensors alone, or damaged" in told
    assert not canary.exists()
    assert not list((jdna.home / ".converted").iterdir())


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_weights_are_converted_once_where_that_is_allowed(jdna, tiny, tmp_path, shards):
    rows = [{"text": "There is a dog behind the house."}] * 9
    write(tmp_path / "data" / "wikitext2", rows, "validation")
    lm = ("--task", "wikitext2", "--max-length", 16, "--data-dir", tmp_path / "data")
    plain = jdna("eval", tiny("llama"), *lm, "--json").json["metrics"]
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "pickled"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for i in range(shards):
        own = {name: tensors[name] for j, name in enumerate(sorted(tensors)) if j % shards == i}
        number = f"-{i + 1:05}-of-{shards:05}" if shards > 1 else ""
        torch.save(own, folder / f"pytorch_model{number}.bin")
    told = jdna("eval", folder, *lm, code=2).err
    assert "pickle files are read with --allow-pickle alone" in told
    found = jdna("eval", folder, *lm, "--allow-pickle", "--json").json["metrics"]
    assert found == plain
    jdna("prune", folder, "--sparsity", 0.5)
    assert len(list((jdna.home / ".converted").iterdir())) == 1
    assert sorted(p.suffix for p in folder.iterdir()).count(".safetensors") == 0


# --------------------------------------------------------------------------- start-up and options


LOOKING = [("--help",), ("report",), ("runs", "list"), ("tasks", "list")]
ANSWERED = [
    ("finetune", "MODEL", "--sparsity", "0.8", *map(str, LEARN), "--seed", "1"),
    ("prune", "MODEL", "--sparsity", "0.8", "--json"),
]


@pytest.mark.parametrize("args", LOOKING + ANSWERED)
def test_looking_and_answering_from_the_database_import_nothing_heavy(
    tiny, animals, measured, args
):
    args = [str(tiny("bert")) if arg == "MODEL" else arg for arg in args]
    code = (
        "import sys\nfrom jdna_cli.cli.app import app\n"
        f"try: app({[*args]!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "JDNA_HOME": str(measured), "JDNA_DATA": str(animals)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("function", "spec"),
    [
        (prune.prune, PruneSpec),
        (finetune.finetune, FinetuneSpec),
        (evaluate.evaluate, EvalSpec),
        (interpolate.interpolate, InterpolateSpec),
    ],
)
def test_every_field_of_a_spec_has_a_flag_with_the_same_default(function, spec):
    parameters = inspect.signature(function).parameters
    # Left out, these are taken from the model's fine-tuning, the task, or the criterion.
    inherited = {"max_length", "regime", "scope"}
    inherited |= {"mixed_precision", "split"} if spec is not FinetuneSpec else set()
    for name, field in spec.model_fields.items():
        default = parameters[name].default
        if not field.is_required() and name not in inherited:
            assert (default or None) == (field.default or None), name


def test_without_a_terminal_there_are_no_control_characters(measured, bert):
    environment = {**os.environ, "JDNA_HOME": str(measured)}
    command = [sys.executable, "-m", "jdna_cli", "prune", str(bert), "--sparsity", "0.1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", done.stdout + done.stderr)


def test_closed_streams_lead_to_nowhere_and_not_into_files(jdna, bert, tmp_path):
    """Else the next file has their number, and is written into."""
    own = f"{sys.executable} -m jdna_cli prune {bert} --sparsity 0.5 --home {tmp_path}/closed"
    assert subprocess.run(f"{own} <&- >&- 2>&-", shell=True, check=False).returncode == 0
    jdna("prune", bert, "--sparsity", 0.5)
    for name in ("model.safetensors", "mask.safetensors"):
        expected = (jdna.home / "1" / name).read_bytes()
        assert (tmp_path / "closed" / "1" / name).read_bytes() == expected
    assert "1 of 1 runs as they were written" in jdna("runs", "verify", "--home",
                                                      tmp_path / "closed").out  # fmt: skip


def test_a_folder_that_is_gone_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    command = f"cd {tmp_path}/gone && rmdir ../gone && {sys.executable} -m jdna_cli runs list"
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path.cwd())})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "jdna: the folder that this was started in is gone\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prune", "½", "--sparsity", "0.5"), "no name that the hub could have"),
        (("report", "--seed", "9" * 40), "larger than a database can hold"),
        (("interpolate", "run:1", "run:1", "--task", "living", "--points", "9" * 40), "--points"),
    ],
)
def test_odd_values_are_one_line(jdna, bert, words, told):
    jdna("prune", bert, "--sparsity", 0.5)
    found = jdna(*words, code=2)
    assert told in found.err.splitlines()[-1]
