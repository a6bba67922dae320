"""The Slurm engine: cells as jobs, through submitit, which submits them again when preempted."""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.sweeps.backends.remote import Result, attempt
from jdna_cli.sweeps.cells import Cell
from jdna_cli.sweeps.run_cell import SweepSettings

POLL_SECONDS = 1.0
UNKNOWN_SECONDS = 10.0  # that a job is unknown to Slurm before it counts as lost; files may be late
_ENDED = frozenset(
    "GONE BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY TIMEOUT".split()
)


class Task:
    """One cell as a job; what submitit calls."""

    def __call__(self, where: SweepSettings, chain: list[Cell], with_models: bool) -> Result:
        """Run it."""
        return attempt(where, chain, with_models)

    def checkpoint(self, *args: Any) -> Any:
        """On preemption or time-out: the same again, elsewhere."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *args)


class OnSlurm:
    """Submits cells as jobs."""

    def __init__(
        self, folder: Path, cluster: str | None, minutes: int, memory: float | None, gpus: int
    ) -> None:
        """Set up.

        Args:
            folder: for logs and pickled jobs; all machines must see it.
            cluster: `slurm`, or `local` for processes here; None: Slurm where there is one.
            minutes: that a cell may take.
            memory: GB that a cell needs.
            gpus: that a cell needs.

        Raises:
            RequestError: submitit is not installed, or there is no Slurm.
        """
        try:
            import submitit
        except ModuleNotFoundError:
            raise RequestError(
                "--engine slurm needs the extra `slurm`: pip install 'jdna[slurm]'"
            ) from None
        # Pickled jobs hold the database's address, a password with it.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise RequestError(f"--engine slurm: {error}") from None
        settings: dict[str, Any] = {"timeout_min": minutes, "cpus_per_task": 1, "name": "jdna"}
        if memory is not None:
            settings["mem_gb"] = memory
        if gpus:
            settings["gpus_per_node"] = gpus
        self._executor.update_parameters(**settings)
        self._folder = folder
        self._jobs = _Jobs(folder)
        self._jobs.cancel_orphans()
        self._running: list[tuple[Any, Cell]] = []
        self._missed: dict[str, float] = {}  # jobs that Slurm knows no more, and since when

    def submit(
        self, cell: Cell, where: SweepSettings, chain: list[Cell], with_models: bool
    ) -> None:
        """Hand a cell over."""
        job = self._executor.submit(Task(), where, chain, with_models)
        self._jobs.note(job.job_id)
        self._running.append((job, cell))

    def ended(self) -> list[tuple[Cell, Result | Exception]]:
        """Cells that have ended: by the file that a job leaves, else by what Slurm says of it."""
        found: list[tuple[Cell, Result | Exception]] = []
        left = []
        gone = self._gone()
        for job, cell in self._running:
            if job.paths.result_pickle.exists():
                found.append((cell, _result(job.paths.result_pickle)))
            elif job.job_id in gone:
                what = f"job {job.job_id} has ended and left no result"
                found.append((cell, JdnaError(f"{what}: {job.paths.stderr}")))
            else:
                left.append((job, cell))
        self._running = left
        if not found:
            time.sleep(POLL_SECONDS)
        return found

    def _gone(self) -> set[str]:
        """Jobs that have ended, or that nobody knows any more; one that is requeued is there."""
        if self._executor.cluster != "slurm":  # processes of this machine
            return {job.job_id for job, _ in self._running if job.done()}
        told = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%i %T"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode != 0:
            return set()  # the controller is away: nothing is known
        states = dict(line.split(maxsplit=1) for line in told.stdout.splitlines() if line.strip())
        now = time.monotonic()
        gone = set()
        for job, _ in self._running:
            if states.get(job.job_id, "GONE").strip() not in _ENDED:
                self._missed.pop(job.job_id, None)
            elif now - self._missed.setdefault(job.job_id, now) > UNKNOWN_SECONDS:
                gone.add(job.job_id)
        return gone

    def cancel(self) -> None:
        """Let go of what has not ended."""
        for job, _ in self._running:
            job.cancel()
        self._jobs.close()


def _result(file: Path) -> Result | Exception:
    """What a job left; submitit's own way asks the accounting, which many clusters have not."""
    from submitit.core import utils

    outcome, left = utils.pickle_load(file)
    done: Result | Exception = left if outcome == "success" else JdnaError(str(left))
    return done


class _Jobs:
    """The jobs of one driver, written down so that a later one cancels what a dead one left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"driver-{uuid.uuid4().hex}.jobs"
        self._file.touch()
        self._lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
        self._lock.acquire()

    def note(self, number: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{number}\n")

    def cancel_orphans(self) -> None:
        """Cancel the jobs of drivers that have died: nobody takes their results."""
        for file in self._folder.glob("driver-*.jobs"):
            if file == self._file:
                continue
            lock = FileLock(file.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # it lives
            if numbers := file.read_text().split():
                subprocess.run(["scancel", "--quiet", *numbers], capture_output=True, check=False)
            file.unlink()
            lock.release()
            file.with_suffix(".lock").unlink(missing_ok=True)

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
        self._lock.release()
        self._file.with_suffix(".lock").unlink(missing_ok=True)
