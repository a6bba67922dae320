"""A sweep does every cell once, whatever dies on the way, and says what failed."""

import multiprocessing.util
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from jdna_cli.errors import RequestError
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.store import reading
from jdna_cli.store.ledger import Ledger
from jdna_cli.sweeps import cells, experiment, run_cell
from jdna_cli.sweeps.backends import local
from tests import toys
from tests.conftest import QUICK
from tests.pipelines.test_finetune import bits, quiet, spec_for, training_for

RECIPE = """
task = "living"
epochs = 1
lr = 1e-3
max_train_samples = 64
batch_size = 16
max_length = 32
"""


def write(path, model, *, head="", fixed="", axes="", rest="[[levels]]\nsparsity = [0.3, 0.6]"):
    lines = [f'title = "A trial"\n{head}\n[fixed]\nmodel = "{model}"', RECIPE, fixed]
    path.write_text("\n".join([*lines, f"[axes]\n{axes}" if axes else "", rest]))
    return path


@pytest.fixture
def trial(tmp_path, bert):
    return write(tmp_path / "trial.toml", bert, head="seeds = [1, 2]")


def rows(jdna, home=None):
    """What the sweep measured, without the numbers of its runs."""
    query = ("SELECT task, sparsity, pattern, regime, seed, score, relative FROM performance "
             "ORDER BY 1, 2, 3, 4, 5")  # fmt: skip
    where = ("--home", home) if home else ()
    return jdna("db", "query", query, "--json", *where).json["rows"]


@pytest.mark.parametrize("name", experiment.names())
def test_every_experiment_that_comes_with_jdna_has_cells_that_are_right(name):
    asked = experiment.find(name)
    found = cells.of(asked)
    assert found
    assert len({cell.key for cell in found}) == len(found)
    known = {cell.key for cell in found}
    place = {cell.key: i for i, cell in enumerate(found)}
    for cell in found:
        assert set(cell.needs) <= known
        assert all(place[need] < place[cell.key] for need in cell.needs)
    if name.endswith("/paper") and asked.command == "finetune":
        assert any(not cells.taken(cell.values) for cell in found if cell.kind == "finetune")


def test_each_of_the_papers_figures_has_both_forms():
    names = experiment.names()
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) >= 16
    assert {f"{top}/paper" for top in tops} <= set(names)
    assert len([name for name in names if name.endswith("/small")]) >= 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fixed": "epoch = 3"},
            r"line 13: \[fixed\] unknown setting 'epoch': did you mean 'epochs'",
        ),
        ({"axes": "task = 3"}, "axes"),
        ({"rest": "[[levels]]\nsparsity = [0.3, 1.2]"}, r"--sparsity: Input should be less than 1"),
        ({"rest": "[[levels]]\nsparsity = 0.3\n[[then]]\ncommand = 'finetune'"}, "line 17: then"),
        ({"head": "seed = [1]"}, "line 2: seed: Extra inputs"),
        ({"fixed": "seed = 3"}, r"seeds stand in `seeds"),
        ({"head": "dense = false", "rest": ""}, "there are no cells"),
        ({"rest": "[[levels]\n"}, "line"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, jdna, changes, message):
    write(tmp_path / "trial.toml", "m", **changes)
    with pytest.raises(RequestError, match=message):
        cells.of(experiment.read(tmp_path / "trial.toml"))
    found = jdna("sweep", tmp_path / "trial.toml", code=2)
    assert len(found.err.strip().splitlines()) == 1


def test_a_sweep_from_an_empty_home_to_its_report(jdna, trial):
    plan = jdna("sweep", trial, "--dry-run", "--json").json
    assert (plan["cells"], plan["recorded"]) == (8, 0)
    assert plan["waiting"] == {"prune": 2, "finetune": 6}
    assert (plan["seconds"], plan["cells_of_unknown_time"]) == (None, 8)
    done = jdna("sweep", trial, "--workers", 2)
    assert "8 cells run, 0 from the database, 0 failed" in done.out
    assert "Performance drop" in done.out
    table = rows(jdna)
    assert len(table) == 6
    # The same figures as the commands one by one.
    settings = RECIPE.replace("_", "-").replace(" = ", " ").replace('"', "").split()
    flags = [f"--{word}" if i % 2 == 0 else word for i, word in enumerate(settings)]
    args = ("finetune", trial.parent / "TinyBERT", *flags, "--seed", 1)
    for extra in ((), ("--sparsity", 0.6)):
        assert jdna(*args, *extra, "--json").json["run"]["cached"]
    again = jdna("sweep", trial, "--json").json
    assert (again["run"], again["recorded_before"], again["failed"]) == (0, 8, [])
    after = jdna("sweep", trial, "--dry-run", "--json").json
    assert (after["recorded"], after["waiting"], after["seconds"]) == (8, {}, 0)
    # No model is kept, everything else is.
    for number in range(1, 9):
        folder = jdna.home / str(number)
        assert not (folder / "model.safetensors").exists()
        assert (folder / "metrics.jsonl").is_file()
    assert "its model was not kept" in jdna("eval", "run:3", "--task", "living", code=2).err


@pytest.mark.long
def test_the_last_models_are_kept_where_that_is_asked(jdna, tmp_path, bert, monkeypatch):
    # Where the name of the temporary folder is too long for a socket.
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: "/tmp/" + 100 * "x")
    assert local._processes().get_start_method() == "spawn"
    file = write(tmp_path / "trial.toml", bert, rest="[[levels]]\nsparsity = 0.5")
    mine = jdna("prune", bert, "--sparsity", 0.9, "--json").json["run"]["id"]
    jdna("sweep", file, "--workers", 1, "--keep", "last")
    found = jdna("runs", "list", "--json").json["runs"]
    with_model = {
        run["kind"] for run in found if (jdna.home / str(run["id"]) / "model.safetensors").exists()
        and run["id"] != mine
    }  # fmt: skip
    assert with_model == {"finetune"}
    assert (jdna.home / str(mine) / "model.safetensors").is_file()


@pytest.mark.long
def test_a_line_and_a_measurement_after_each_cell(jdna, tmp_path, bert):
    rest = """
[[levels]]
sparsity = 0.5
[[ways]]
regime = ["sparse", "dense-frozen"]
[[ways]]
regime = "sparse"
teacher = "dense"
[[then]]
command = "interpolate"
points = 3
[[then]]
command = "eval"
time = true
"""
    file = write(tmp_path / "trial.toml", bert, rest=rest)
    found = jdna("sweep", file, "--workers", 2, "--json").json
    assert found["failed"] == []
    kinds = [run["kind"] for run in jdna("runs", "list", "--json").json["runs"]]
    assert {k: kinds.count(k) for k in kinds} == {
        "prune": 1, "finetune": 4, "eval": 4, "interpolate": 3,
    }  # fmt: skip
    taught = jdna("db", "query", "SELECT dense_run_id, teacher FROM performance WHERE teacher IS "
                  "NOT NULL", "--json").json["rows"]  # fmt: skip
    assert all(row[0] is not None and "dense" in row[1] for row in taught)
    barriers = jdna("db", "query", "SELECT COUNT(*) FROM loss_barrier", "--json").json["rows"]
    assert barriers == [[3]]
    # Models are gone, and all that was measured of them is known.
    assert jdna("sweep", file, "--dry-run", "--json").json["waiting"] == {}


def test_a_model_that_was_not_written_is_made_when_a_later_sweep_measures_it(jdna, tmp_path, bert):
    levels = "[[levels]]\nsparsity = 0.5"
    before = write(tmp_path / "before.toml", bert, rest=levels)
    jdna("sweep", before, "--workers", 1)
    first = rows(jdna)
    then = levels + '\n[[then]]\ncommand = "eval"\ntime = true'
    after = write(tmp_path / "after.toml", bert, rest=then)
    plan = jdna("sweep", after, "--dry-run", "--json").json
    assert plan["waiting"] == {"prune": 1, "finetune": 2, "eval": 2}
    found = jdna("sweep", after, "--workers", 1, "--json").json
    assert (found["failed"], found["run"]) == ([], 5)
    assert [row for row in rows(jdna) if row in first] == first
    assert jdna("sweep", after, "--dry-run", "--json").json["waiting"] == {}


def test_one_failing_cell_is_told_and_the_rest_goes_on(jdna, tmp_path, bert):
    file = write(tmp_path / "trial.toml", bert, axes="lr = [1e-3, 1e18]",
                 rest="[[levels]]\nsparsity = 0.5")  # fmt: skip
    text = file.read_text().replace("lr = 1e-3\n", "")
    file.write_text(text)
    found = jdna("sweep", file, "--workers", 1, "--keep", "all", code=1)
    assert "2 failed" in found.out
    assert len(list(jdna.home.glob("*/model.safetensors"))) == 3
    assert "is not finite at step" in found.out
    assert "2 cells failed; the same command tries them again" in found.err
    runs = jdna("runs", "list", "--json").json["runs"]
    assert sorted(run["status"] for run in runs) == ["failed", "failed"] + ["finished"] * 3
    told = jdna("sweep", file, "--workers", 1, "--json", code=1)
    assert len(told.json["failed"]) == 2
    assert len(jdna("runs", "list", "--json").json["runs"]) == 5, "no new rows for new tries"


@pytest.mark.parametrize(
    ("axes", "levels", "told"),
    [
        ('task = ["living", "wikitext2"]', "sparsity = 0.5",
         "finetune · wikitext2 · dense · seed 41: task 'wikitext2' (language-modelling) needs a "
         "decoder"),
        ("", 'pattern = ["2:4", "3:7"]', "prune · 3:7: --pattern: "),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_met_is_told_before_any_is_run(
    jdna, tmp_path, bert, axes, levels, told
):
    file = write(tmp_path / "trial.toml", bert, axes=axes, rest=f"[[levels]]\n{levels}")
    name = axes.partition(" ")[0]
    lines = file.read_text().splitlines()
    kept = [line for line in lines if line == axes or line.partition(" ")[0] != name]
    file.write_text("\n".join(kept))
    for rest in (("--dry-run",), ()):
        found = jdna("sweep", file, *rest, "--workers", 1, code=2)
        assert told in found.err, found.err
    assert jdna("runs", "list", "--json").json["runs"] == []


def start(jdna_home, file, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "jdna_cli", "sweep", str(file), "--workers", "2", *args],
        env={**os.environ, "JDNA_HOME": str(jdna_home)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def workers_of(process):
    """Processes that were forked by the server of forks."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        servers = {c.pid for c in children if c.ppid() == process.pid}
        return [c for c in children if c.ppid() in servers]
    except psutil.NoSuchProcess:
        return []


DEATHS = 12


@pytest.mark.slow
@pytest.mark.long
def test_murdered_workers_change_nothing(jdna, tmp_path, bert):
    """Workers are killed at random; the table is that of a sweep that was left alone."""
    file = write(
        tmp_path / "trial.toml", bert, head="seeds = [1, 2, 3, 4]",
        fixed="checkpoint_every = 2", rest="[[levels]]\nsparsity = [0.2, 0.4, 0.6, 0.8]",
    )  # fmt: skip
    jdna("sweep", file, "--workers", 2)
    expected = rows(jdna)
    assert len(expected) == 20
    home, draw, killed, rounds = tmp_path / "killed", random.Random(0), 0, 0
    while killed < DEATHS:
        process = start(home, file)
        rounds += 1
        while process.poll() is None:
            time.sleep(draw.uniform(0.1, 0.6))
            for worker in draw.sample(found := workers_of(process), min(1, len(found))):
                # One that has not begun to work yet does not count.
                busy = time.time() - worker.create_time() > 0.3
                if busy and killed < DEATHS:
                    worker.kill()
                    killed += 1
        process.wait()
        if killed < DEATHS:
            # It ended first: take away what it found, and go on killing.
            for name in ("jdna.db", "jdna.db-wal", "jdna.db-shm"):
                (home / name).unlink(missing_ok=True)
    while start(home, file).wait() != 0 and rounds < 8:
        rounds += 1
    assert rows(jdna, home) == expected
    query = ("SELECT fingerprint, COUNT(*) FROM run WHERE status = 'finished' "
             "GROUP BY fingerprint HAVING COUNT(*) > 1")  # fmt: skip
    assert jdna("db", "query", query, "--json", "--home", home).json["rows"] == []


@pytest.mark.slow
@pytest.mark.long
def test_two_sweeps_in_one_home_run_each_cell_once(jdna, tmp_path, bert):
    """Cells that both want are one's work and both's result; no model goes that the other needs."""
    file = write(tmp_path / "trial.toml", bert, head="seeds = [1, 2]")
    command = [sys.executable, "-m", "jdna_cli", "sweep", str(file), "--workers", "1"]
    environment = {**os.environ, "JDNA_HOME": str(jdna.home)}
    sweeps = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    told = [sweep.communicate(timeout=280)[0].decode() for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], told
    there = f"sqlite:///{jdna.home}/jdna.db"
    counted = "SELECT status, COUNT(*), COUNT(DISTINCT fingerprint) FROM run GROUP BY status"
    assert reading.query(there, counted).rows == [("finished", 8, 8)]
    assert reading.query(there, "SELECT COUNT(*) FROM hold").rows == [(0,)]
    assert reading.query(there, "SELECT COUNT(*) FROM owner").rows == [(0,)]
    assert not list(jdna.home.glob("[0-9]*/model.safetensors"))  # --keep none


def test_a_model_that_another_took_away_is_made_again(jdna, bert):
    """A cell that was planned on a pruned model finds it gone."""
    ledger = Ledger(jdna.home)
    workspace = OpenWorkspace(ledger)
    made = run_cell.run(workspace, "prune", {"model": str(bert), "sparsity": 0.5})
    before = load_file(made.folder / "model.safetensors")
    run_cell.mark(ledger, made.folder, "a sweep")
    ledger.hold(made.run.id)
    other = Ledger(jdna.home)
    assert run_cell.release(other, made.run.id, made.folder) == 0  # it is held
    assert run_cell.release(ledger, made.run.id, made.folder) > 0
    values = {"model": f"run:{made.run.id}", "task": "living", "epochs": 1, "max_train_samples": 32}
    tuned = run_cell.run(workspace, "finetune", values)
    again = ledger.get(tuned.run.parent)
    assert (again.kind, again.fingerprint) == ("prune", made.run.fingerprint)
    assert again.id != made.run.id
    after = load_file(ledger.folder(again) / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    for one in (ledger, other):
        one.close()


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(jdna, tmp_path, bert):
    file = write(tmp_path / "trial.toml", bert, fixed="checkpoint_every = 1",
                 head="seeds = [1, 2, 3]")  # fmt: skip
    process = start(jdna.home, file)
    line = process.stderr.readline()
    while "finetune" not in line and process.poll() is None:
        line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; the same command goes on" in err
    statuses = {run["status"] for run in jdna("runs", "list", "--json").json["runs"]}
    assert "running" not in statuses
    again = jdna("sweep", file, "--workers", 2, "--json").json
    assert again["failed"] == []
    assert again["recorded_before"] > 0
    assert len(rows(jdna)) == 9


@pytest.mark.long
def test_a_whole_tree_that_is_killed_goes_on_where_it_was(jdna, tmp_path, bert):
    file = write(tmp_path / "trial.toml", bert, head="seeds = [1, 2, 3]")
    process = start(jdna.home, file)
    line = process.stderr.readline()
    while "finetune" not in line and process.poll() is None:
        line = process.stderr.readline()
    for victim in [*workers_of(process), psutil.Process(process.pid)]:
        victim.kill()
    process.communicate(timeout=60)
    again = jdna("sweep", file, "--workers", 2, "--json").json
    assert again["failed"] == []
    assert again["recorded_before"] > 0
    assert len(rows(jdna)) == 9
    assert not list(jdna.home.glob(".work-*"))


def test_cells_are_command_lines_for_any_scheduler(jdna, trial):
    lines = jdna("sweep", trial, "--commands").out.splitlines()
    assert len(lines) == 8
    import shlex

    for line in lines:
        words = shlex.split(line)
        assert words[0] == "jdna"
        jdna(*words[1:])
    assert jdna("sweep", trial, "--dry-run", "--json").json["recorded"] == 8


def test_a_sweep_that_will_not_fit_is_refused_before_it_starts(jdna, trial, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    found = jdna("sweep", trial, "--keep", "all", code=2)
    assert "the sweep's models may need" in found.err
    assert not list(jdna.home.glob("[0-9]*"))


@pytest.mark.parametrize("limit", [3, 0])
def test_a_batch_that_does_not_fit_is_halved_to_the_same_update(tiny, tmp_path, limit):
    """A device that has room for `limit` examples at a time."""
    spec = spec_for(tiny("bert"), epochs=1, batch_size=8)
    whole, _, one = training_for(tiny("bert"), spec, 40)
    parted, _, other = training_for(tiny("bert"), spec, 40)
    for model in (one, other):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    refused = []

    def small(module, args, kwargs):
        if len(kwargs["input_ids"]) > limit:
            refused.append(len(kwargs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory")

    other.register_forward_pre_hook(small, with_kwargs=True)
    if limit == 0:
        with pytest.raises(Exception, match="out of memory at step 1, even one example"):
            parted.run(quiet(tmp_path), lambda *_: [])
        return
    whole.run(quiet(tmp_path), lambda *_: [])
    parted.run(quiet(tmp_path), lambda *_: [])
    assert refused == [8, 4]
    assert parted.parts == 4
    theirs = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-3, atol=2e-5)


def test_out_of_memory_is_recorded(jdna, bert, monkeypatch):
    from jdna_cli.training.gradients import Gradients

    real = Gradients._loss

    def small(self, indices):
        if len(indices) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, indices)

    monkeypatch.setattr(Gradients, "_loss", small)
    found = jdna("finetune", bert, *QUICK, "--json").json["run"]
    assert found["remark"] == "out of memory: batches of 8, 2 times accumulated"
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert all(torch.isfinite(t).all() for t in after.values())
    assert bits(after["bert.pooler.dense.weight"]).any()


def test_settings_of_one_task_are_its_alone_and_the_plan_says_how_sure_it_will_be(jdna, tmp_path):
    data = toys.write(tmp_path / "data", train=24, validation=16)
    text = (
        'title = "own"\ncommand = "eval"\n[fixed]\nmodel = "tiny-writer"\n'
        '[axes]\ntask = ["arc_easy", "wikitext2"]\n[task.arc_easy]\nlimit = 9\n'
        "[task.wikitext2]\nmax_length = 64\n[[levels]]\nsparsity = 0.5\n"
    )
    file = tmp_path / "own.toml"
    file.write_text(text)
    found = cells.of(experiment.find(str(file)))
    asked = {(c.values["task"], c.values.get("limit"), c.values.get("max_length"))
             for c in found if c.kind == "eval"}  # fmt: skip
    assert asked == {("arc_easy", 9, None), ("wikitext2", None, 64)}
    told = jdna("sweep", file, "--dry-run", "--data-dir", data)
    assert "arc_easy: 9 examples" in told.err + told.out
    assert "± 32.7 points at most" in told.err + told.out
    file.write_text(text.replace("[task.arc_easy]", "[task.rte]"))
    assert "no cell is of task 'rte'" in jdna("sweep", file, "--dry-run", code=2).err
