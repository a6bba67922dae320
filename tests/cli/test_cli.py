"""The commands as a user meets them: one screen of help, one line of error, one object of JSON."""

import csv
import inspect
import io
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
from tests.conftest import QUICK
from tests.tasks.test_tasks import GOOD, write

LEARN = ("--task", "sst2", "--epochs", 6, "--lr", 2e-3)
HEAVY = ("torch", "transformers", "datasets", "accelerate", "sklearn", "matplotlib")


@pytest.fixture(scope="module")
def measured(tiny, animals, tmp_path_factory):
    """A home with a dense and a sparse fine-tuning of two seeds."""
    from tests.conftest import run_jdna

    home = tmp_path_factory.mktemp("home")
    for seed in (1, 2):
        for pruned in ((), ("--sparsity", 0.8), ("--pattern", "1:8")):
            found = run_jdna(
                "finetune", tiny("bert"), *pruned, *LEARN, "--data-dir", animals, "--seed", seed,
                "--home", home,
            )  # fmt: skip
            assert found.code == 0, found.err
    return home


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
    assert "lacks 1 of its weights, 'bert.encoder.layer.0.output.dense.weight' first" in found.err


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


# ----------------------------------------------------------------- eval, interpolate, report, looks


@pytest.fixture
def line(jdna, measured, animals):
    """Options of a command on what was measured."""
    return ("--task", "sst2", "--home", measured, "--data-dir", animals, "--json")


def test_eval_repeats_what_fine_tuning_measured(jdna, measured, line):
    told = jdna("runs", "show", 1, "--home", measured, "--json").json["metrics"]
    found = jdna("eval", "run:1", *line).json
    assert told["accuracy"] > 0.65  # learned
    assert found["metrics"]["accuracy"] == told["accuracy"]
    assert found["metrics"]["loss"] == pytest.approx(told["loss"], rel=1e-6)
    other = jdna("eval", "run:1", "--split", "train", *line)
    assert other.json["run"]["seed"] == 1
    query = "SELECT COUNT(*) FROM performance WHERE split = 'validation'"
    assert jdna("db", "query", query, "--home", measured, "--json").json["rows"] == [[6]]


def test_a_line_ends_where_eval_says_and_a_model_with_itself_has_no_barrier(jdna, measured, line):
    args = line
    found = jdna("interpolate", "run:1", "run:3", "--points", 5, *args).json
    ends = [jdna("eval", f"run:{n}", *args).json["metrics"] for n in (1, 3)]
    for point, end in zip((found["points"][0], found["points"][-1]), ends, strict=True):
        assert point["loss"] == end["loss"]
        assert point["score"] == end["accuracy"]
    assert [p["alpha"] for p in found["points"]] == [0, 0.25, 0.5, 0.75, 1]
    chord = [
        p["loss"] - ((1 - p["alpha"]) * ends[0]["loss"] + p["alpha"] * ends[1]["loss"])
        for p in found["points"]
    ]
    assert found["barrier"] == pytest.approx(max(chord))
    view = jdna("db", "query", "SELECT barrier FROM loss_barrier", "--home", measured, "--json")
    assert view.json["rows"][0][0] == pytest.approx(found["barrier"])
    same = jdna("interpolate", "run:1", "run:1", "--points", 3, *args).json
    assert len({p["loss"] for p in same["points"]}) == 1
    assert same["barrier"] == 0


def test_models_that_do_not_match_have_no_line(jdna, measured, line, bert):
    config = json.loads((bert / "config.json").read_text())
    config["num_hidden_layers"] = 1
    (bert / "config.json").write_text(json.dumps(config))
    number = jdna("finetune", bert, *line, "--epochs", 1).json["run"]["id"]
    found = jdna("interpolate", "run:1", f"run:{number}", *line, code=2)
    assert "num_hidden_layers is 2 and 1" in found.err
    jdna("runs", "rm", number, "--home", measured)
    wrong = jdna("interpolate", "run:1", "run:3", "--task", "larger", "--home", measured, code=2)
    assert "was fine-tuned on 'sst2'" in wrong.err


def test_labels_that_a_model_numbers_otherwise_are_matched_by_name(jdna, measured, line, tmp_path):
    import shutil

    swapped = tmp_path / "swapped"
    shutil.copytree(measured / "1", swapped)
    config = json.loads((swapped / "config.json").read_text())
    config |= {
        "id2label": {"0": "POSITIVE", "1": "NEGATIVE"},
        "label2id": {"POSITIVE": 0, "NEGATIVE": 1},
    }
    (swapped / "config.json").write_text(json.dumps(config))
    tensors = load_file(swapped / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, swapped / "model.safetensors", metadata={"format": "pt"})
    expected = jdna("eval", "run:1", *line).json["metrics"]
    assert jdna("eval", swapped, *line).json["metrics"] == pytest.approx(expected)


def test_the_report_agrees_with_arithmetic_by_hand(jdna, measured):
    query = "SELECT seed, pattern, score FROM performance WHERE split = 'validation'"
    rows = jdna("db", "query", query, "--home", measured, "--json").json["rows"]
    score = {(seed, pattern): value for seed, pattern, value in rows}
    drops = [1 - score[s, "unstructured"] / score[s, None] for s in (1, 2)]
    mean = sum(drops) / 2
    spread = (sum((d - mean) ** 2 for d in drops)) ** 0.5
    report = jdna("report", "--home", measured, "--json").json
    (cell,) = (
        r for r in report["rows"] if r["pattern"] == "unstructured" and r["split"] == "validation"
    )
    assert cell["mean_relative_drop"] == pytest.approx(mean)
    assert cell["sd_relative_drop"] == pytest.approx(spread)
    assert cell["n"] == 2
    text = jdna("report", "--home", measured).out
    shown = f"{100 * mean:.1f} ± {100 * spread:.1f}".replace("-", "−").replace("−0.0 ", "0.0 ")
    assert shown in text
    assert all(abs(drop) > 0 for drop in drops)
    assert "80%" in text
    assert "1:8" in text


def test_reports_in_every_form(jdna, measured, tmp_path):
    for form in ("table", "markdown", "latex", "csv", "json"):
        out = jdna("report", "--home", measured, "--format", form).out
        assert "sst2" in out
        assert "\x1b" not in out
    latex = jdna("report", "--home", measured, "--format", "latex").out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"80\%" in latex
    text = jdna("report", "--home", measured, "--format", "csv").out
    lines = list(csv.DictReader(io.StringIO(text)))
    rows = jdna("report", "--home", measured, "--json").json["rows"]
    for line, row in zip(lines, rows, strict=True):
        assert line.keys() == row.keys()
        assert float(line["score"]) == row["score"]
    for suffix in ("png", "svg", "pdf"):
        plots = [tmp_path / f"{i}.{suffix}" for i in range(2)]
        for plot in plots:
            jdna("report", "--home", measured, "--plot", plot)
        assert plots[0].read_bytes() == plots[1].read_bytes()
        assert plots[0].stat().st_size > 2000


def test_lists_and_details(jdna, measured):
    assert "1:8" in jdna("runs", "list", "--home", measured).out
    only = jdna("runs", "list", "--home", measured, "--status", "failed", "--json").json
    assert only == {"runs": []}
    shown = jdna("runs", "show", 3, "--home", measured).out
    assert "zeros: 13,926 of 17,408 prunable weights" in shown
    assert "made from run 2" in shown
    tasks = jdna("tasks", "list", "--json").json["tasks"]
    assert {"rte", "living", "larger"} <= {task["name"] for task in tasks}
    assert "Nangia" in jdna("tasks", "show", "rte").out
    assert jdna("db", "path", "--home", measured).out.strip() == str(measured / "jdna.db")
    assert jdna("doctor", "--home", measured, "--json").json["checks"]
    assert jdna("--version").out.startswith("jdna 0.")


def test_names_are_data_in_every_form(jdna, bert):
    hostile = bert.rename(bert.with_name(r"=cmd & <b>\input{x} [red]"))
    jdna("finetune", hostile, *QUICK)
    jdna("finetune", hostile, "--sparsity", 0.5, *QUICK)
    assert "[red]" in jdna("report").out
    assert "&lt;b>" in jdna("report", "--format", "markdown").out
    latex = jdna("report", "--format", "latex").out
    assert r"\input{x}" not in latex
    assert r"\textbackslash{}input\{x\}" in latex


def test_a_run_is_not_repeated_but_when_forced(jdna, bert):
    first = jdna("finetune", bert, *QUICK, "--json").json
    again = jdna("finetune", bert, *QUICK, "--eval-batch-size", 7, "--json").json
    assert again["run"]["cached"]
    assert again["metrics"] == first["metrics"]
    forced = jdna("finetune", bert, *QUICK, "--force", "--json").json
    assert forced["run"]["id"] == 2
    speed = "train/examples_per_second"
    assert {k: v for k, v in forced["metrics"].items() if k != speed} == {
        k: v for k, v in first["metrics"].items() if k != speed
    }


def test_files_that_the_user_placed_stay(jdna, bert, tmp_path):
    jdna("prune", bert, "--sparsity", 0.5, "--out", tmp_path / "mine")
    assert "its files stay" in jdna("runs", "rm", 1).out
    assert (tmp_path / "mine" / "model.safetensors").is_file()


def test_a_launcher_of_several_processes_is_refused(jdna, bert, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    one_line(jdna("prune", bert, "--sparsity", 0.5, code=2))
    one_line(jdna("eval", bert, "--task", "living", code=2))
    assert not jdna.home.exists()


def test_mixed_precision_is_part_of_the_answer(jdna, bert):
    jdna("finetune", bert, *QUICK)
    found = jdna("finetune", bert, *QUICK, "--mixed-precision", "bf16", "--json").json
    assert not found["run"]["cached"]
    assert {t.dtype for t in load_file(jdna.home / "2" / "model.safetensors").values()} == {
        torch.float32
    }


@pytest.mark.slow
def test_real_data_is_used_in_place_of_the_hub(jdna, minilm, shared_data):
    found = jdna(
        "finetune", minilm, "--task", "rte", "--sparsity", 0.5, "--data-dir", shared_data,
        "--max-train-samples", 64, "--epochs", 1, "--max-length", 48, "--mixed-precision", "bf16",
        "--json",
    ).json  # fmt: skip
    assert found["run"]["task"] == "rte"
    assert found["run"]["sparsity_reached"] == 0.5
    assert 0 < found["metrics"]["accuracy"] < 1
