"""The engine that a command was asked to run its cells by."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdna_cli.store.ledger import Ledger
    from jdna_cli.sweeps.backends.local import Share, Watcher
    from jdna_cli.sweeps.backends.remote import Submitter
    from jdna_cli.sweeps.queue import State
    from jdna_cli.sweeps.run_cell import SweepSettings


@dataclass(frozen=True)
class Engine:
    """What runs cells, and what each of them needs."""

    name: str
    divided: list[Share]  # of this machine, for the local engine
    per_device: int = 1
    address: str | None = None
    memory: float | None = None
    minutes: int = 240
    gpus: int = 0
    slurm_cluster: str | None = None

    def run(self, state: State, where: SweepSettings, watcher: Watcher, ledger: Ledger) -> None:
        """Run all that waits, or that is asked for meanwhile.

        Raises:
            InterruptedRunError: a signal asked to stop.
        """
        if self.name == "local":
            from jdna_cli.sweeps.backends import local

            local.run(state, where, watcher, self.divided)
            return
        from jdna_cli.sweeps.backends import remote

        submitter = self._submitter(Path(where.home) / ".slurm")
        # What schedulers print is no result of ours.
        with contextlib.redirect_stdout(sys.stderr):
            remote.run(state, where, watcher, submitter, ledger)

    def _submitter(self, folder: Path) -> Submitter:
        if self.name == "ray":
            from jdna_cli.sweeps.backends.on_ray import OnRay

            return OnRay(self.address, self.per_device, self.memory)
        from jdna_cli.sweeps.backends.on_slurm import OnSlurm

        return OnSlurm(folder, self.slurm_cluster, self.minutes, self.memory, self.gpus)
