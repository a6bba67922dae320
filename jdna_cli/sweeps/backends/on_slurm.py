"""The Slurm engine: cells as jobs, through submitit, which submits them again when preempted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.sweeps.backends.remote import Result, attempt
from jdna_cli.sweeps.cells import Cell
from jdna_cli.sweeps.run_cell import SweepSettings

POLL_SECONDS = 0.5


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
        self._running: list[tuple[Any, Cell]] = []

    def submit(
        self, cell: Cell, where: SweepSettings, chain: list[Cell], with_models: bool
    ) -> None:
        """Hand a cell over."""
        self._running.append((self._executor.submit(Task(), where, chain, with_models), cell))

    def ended(self) -> list[tuple[Cell, Result | Exception]]:
        """Cells that have ended."""
        done = [(job, cell) for job, cell in self._running if job.done()]
        if not done:
            time.sleep(POLL_SECONDS)
        self._running = [own for own in self._running if own not in done]
        found: list[tuple[Cell, Result | Exception]] = []
        for job, cell in done:
            error = job.exception()
            found.append((cell, job.result() if error is None else error))
        return found

    def cancel(self) -> None:
        """Let go of what has not ended."""
        for job, _ in self._running:
            job.cancel()
