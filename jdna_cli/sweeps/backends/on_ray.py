"""The Ray engine: cells as Ray tasks, on a cluster that is there or one started on the spot."""

from __future__ import annotations

import logging
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.sweeps.backends.remote import Result, attempt
from jdna_cli.sweeps.cells import Cell
from jdna_cli.sweeps.run_cell import SweepSettings

LOST = 5  # workers or nodes that may be lost under one cell; Ray starts it again elsewhere


class OnRay:
    """Submits cells to Ray; retries and lost nodes are Ray's."""

    def __init__(self, address: str | None, per_device: int, memory: float | None) -> None:
        """Join the cluster at `address`, or start one here.

        Args:
            address: as Ray writes it; "auto" finds a running one.
            per_device: cells that share a GPU.
            memory: GB that a cell needs.

        Raises:
            RequestError: Ray is not installed, or no cluster answers there.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise RequestError(
                "--engine ray needs the extra `ray`: pip install 'jdna[ray]'"
            ) from None
        self._ray = ray
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
        except ConnectionError as error:
            raise RequestError(f"--address: {str(error).splitlines()[0]}") from None
        gpus = dict(ray.cluster_resources()).get("GPU", 0)  # type: ignore[no-untyped-call]
        needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 / per_device if gpus else 0}
        if memory is not None:
            needs["memory"] = memory * 1e9
        threads = {"env_vars": {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}}
        self._task = ray.remote(attempt).options(max_retries=LOST, runtime_env=threads, **needs)
        self._running: dict[Any, Cell] = {}

    def submit(
        self, cell: Cell, where: SweepSettings, chain: list[Cell], with_models: bool
    ) -> None:
        """Hand a cell over."""
        self._running[self._task.remote(where, chain, with_models)] = cell

    def ended(self) -> list[tuple[Cell, Result | Exception]]:
        """Cells that have ended."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=0.5)
        found: list[tuple[Cell, Result | Exception]] = []
        for reference in ready:
            cell = self._running.pop(reference)
            try:
                found.append((cell, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                found.append((cell, error))
        return found

    def cancel(self) -> None:
        """Let go of what has not ended."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()
