"""On a real Slurm each cell is finished once, whatever becomes of its job and of the driver."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jdna_cli.store import reading
from tests.sweeps import slurm
from tests.sweeps.test_sweeps import rows, write

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not slurm.is_there(), reason="Slurm is not installed, or this is not root"),
]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with slurm.started(tmp_path / "slurm") as file:
        monkeypatch.setenv("SLURM_CONF", str(file))
        yield


def jobs(*states):
    """Numbers of jobs in one of these states."""
    asked = ["squeue", "--me", "--noheader", "--format=%i", f"--states={','.join(states)}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def sweep(jdna, file):
    command = [sys.executable, "-m", "jdna_cli", "sweep", str(file), "--engine", "slurm",
               "--minutes", "10", "--json"]  # fmt: skip
    environment = {**os.environ, "JDNA_HOME": str(jdna.home)}
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)


def once(jdna):
    there = f"sqlite:///{jdna.home}/jdna.db"
    counted = "SELECT status, COUNT(*), COUNT(DISTINCT fingerprint) FROM run GROUP BY status"
    return reading.query(there, counted).rows


def test_cancelled_preempted_and_orphaned_jobs(jdna, tmp_path, bert, cluster):
    pytest.importorskip("submitit")
    file = write(
        tmp_path / "trial.toml", bert, head="seeds = [1, 2]", rest="[[levels]]\nsparsity = 0.5"
    )
    driver = sweep(jdna, file)
    running = until(lambda: jobs("RUNNING"))
    # The driver is killed: its jobs are nobody's, and the next one cancels them.
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver = sweep(jdna, file)
    until(lambda: not set(running) & set(jobs("RUNNING", "PENDING")))
    first = until(lambda: jobs("RUNNING"))
    subprocess.run(["scancel", first[0]], check=True)
    # A job of a higher partition takes both nodes; what it has put out is started again by Slurm.
    until(lambda: jobs("RUNNING"))
    before = len(jobs("RUNNING", "PENDING"))
    subprocess.run(["sbatch", "--partition=high", "--nodes=2", "--output=/dev/null",
                    "--wrap=sleep 3"], check=True, capture_output=True)  # fmt: skip
    time.sleep(6)
    waiting = jobs("PENDING")
    assert len(jobs("RUNNING", "PENDING", "COMPLETING")) <= before + 2  # none is submitted twice
    for number in waiting:
        subprocess.run(["scontrol", "update", f"jobid={number}", "starttime=now"],
                       capture_output=True, check=False)  # fmt: skip
    told, error = driver.communicate(timeout=240)
    assert driver.returncode == 0, error[-3000:]
    assert '"failed": []' in told
    assert once(jdna) == [("finished", 5, 5)]
    here = tmp_path / "here"
    jdna("sweep", file, "--home", here, "--workers", 2)
    assert rows(jdna) == rows(jdna, here)


def test_a_driver_that_is_told_to_stop_takes_its_jobs_along(jdna, tmp_path, bert, cluster):
    pytest.importorskip("submitit")
    driver = sweep(jdna, write(tmp_path / "trial.toml", bert))
    until(lambda: jobs("RUNNING"))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 143
    until(lambda: not jobs("RUNNING", "PENDING"))
