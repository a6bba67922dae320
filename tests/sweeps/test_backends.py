"""Cells that other machines run are recorded here, each once, as if they had been run here."""

import multiprocessing.util
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from jdna_cli.store.ledger import Ledger
from jdna_cli.sweeps import cells, experiment, run_cell
from jdna_cli.sweeps.backends import remote
from tests.sweeps.test_sweeps import rows, write

LINE = """
[[levels]]
sparsity = [0.3, 0.6]
[[then]]
command = "interpolate"
points = 3
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Homes of other machines lie below the test's folder."""
    (tmp_path / "elsewhere").mkdir()
    multiprocessing.util.get_temp_dir()  # it remembers its folder: not the one of this test
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    tempfile.tempdir = None


def once(jdna):
    query = ("SELECT fingerprint, COUNT(*) FROM run GROUP BY fingerprint HAVING COUNT(*) > 1 "
             "OR MIN(status) <> 'finished'")  # fmt: skip
    assert jdna("db", "query", query, "--json").json["rows"] == []


def test_what_is_handed_over_is_recorded_as_if_it_had_been_run_here(jdna, tmp_path, bert):
    file = write(tmp_path / "trial.toml", bert, rest=LINE)
    found = cells.of(experiment.read(file))
    here = tmp_path / "here"
    jdna("sweep", file, "--home", here, "--workers", 1)
    expected = rows(jdna, here)
    where = run_cell.SweepSettings(str(jdna.home), None, None, False, str(file))
    ledger = Ledger(jdna.home)
    state = remote.State.begin(found, {}, ledger, "none", 0)
    for cell in reversed(found):
        handed = remote.perform(where, remote.chain_of(state, cell), False)
        runs = remote.adopt(ledger, handed, served=False)
        assert set(runs) == {one.key for one in handed}
    ledger.close()
    assert rows(jdna) == expected
    once(jdna)
    barriers = "SELECT task, barrier, first_loss FROM loss_barrier ORDER BY barrier"
    one, two = (
        jdna("db", "query", barriers, "--json", "--home", h).json for h in (here, jdna.home)
    )
    assert one["rows"] == two["rows"]
    ends = "kind = 'interpolate' AND parent IS NOT NULL AND other IS NOT NULL"
    linked = jdna("db", "query", f"SELECT COUNT(*) FROM run WHERE {ends}", "--json").json["rows"]
    assert linked == [[2]]
    assert jdna("sweep", file, "--dry-run", "--json").json["waiting"] == {}


@pytest.mark.long
def test_a_ray_cluster_that_loses_a_node_records_every_cell_once(jdna, tmp_path, bert, monkeypatch):
    pytest.importorskip("ray")
    short = tempfile.mkdtemp(prefix="jr-", dir="/tmp")  # the path of a socket is short
    monkeypatch.setenv("RAY_TMPDIR", short)
    from ray.cluster_utils import Cluster

    file = write(tmp_path / "trial.toml", bert, head="seeds = [1, 2, 3]")
    here = tmp_path / "here"
    jdna("sweep", file, "--home", here, "--workers", 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    lost = threading.Event()

    def lose() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(jdna.home.glob("[0-9]*")):
            time.sleep(0.2)
        cluster.remove_node(second, allow_graceful=False)
        lost.set()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        done = jdna("sweep", file, "--engine", "ray", "--address", cluster.address, "--json").json
    finally:
        thread.join()
        cluster.shutdown()
        shutil.rmtree(short, ignore_errors=True)
    assert lost.is_set()
    assert done["failed"] == []
    assert rows(jdna) == rows(jdna, here)
    once(jdna)


@pytest.mark.long
def test_jobs_of_submitits_local_executor_are_recorded(jdna, tmp_path, bert):
    pytest.importorskip("submitit")
    file = write(tmp_path / "trial.toml", bert, rest="[[levels]]\nsparsity = 0.5")
    slurm = ("--engine", "slurm", "--slurm-cluster", "local")
    done = jdna("sweep", file, *slurm, "--json").json
    assert (done["run"], done["failed"]) == (3, [])
    once(jdna)
    assert jdna("sweep", file, *slurm, "--json").json["recorded_before"] == 3
    broken = write(tmp_path / "broken.toml", bert, axes="lr = [1e18]", rest="")
    broken.write_text(broken.read_text().replace("lr = 1e-3\n", ""))
    found = jdna("sweep", broken, *slurm, "--retries", 0, code=1)
    assert "is not finite at step" in found.out


def test_an_engine_that_is_not_there_is_one_line(jdna, tmp_path, bert):
    file = write(tmp_path / "trial.toml", bert)
    code = ("import sys; sys.modules['ray'] = None; sys.modules['submitit'] = None; "
            "from jdna_cli.cli.app import main; main()")  # fmt: skip
    for engine in ("ray", "slurm"):
        done = subprocess.run(
            [sys.executable, "-c", code, "sweep", file, "--engine", engine, "--home", jdna.home],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"--engine {engine} needs the extra `{engine}`" in done.stderr
