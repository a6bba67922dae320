"""What the commands measure, list, and answer from the database."""

import csv
import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

# ----------------------------------------------------------------- eval, interpolate, report, looks
from tests.cli.test_cli import one_line
from tests.conftest import QUICK


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
