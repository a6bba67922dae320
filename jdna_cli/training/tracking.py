"""Trackers: what a training measures is told to TensorBoard, MLflow and others while it trains.

Through accelerate's own trackers, which are optional: the database has all that they are told, and
nothing reads it from them. Files go below the home's folder `exports`, unless the tracker's own
environment variable says otherwise.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from jdna_cli import registry
from jdna_cli.errors import RequestError
from jdna_cli.results import Measurement

PROJECT = "jdna"


@dataclass(frozen=True)
class _Tracker:
    """One of accelerate's: what must be installed, and how it is told a run's name and place."""

    package: str
    arguments: Callable[[str, Path, int], dict[str, Any]]  # (run, folder, first step)
    project: str | None = PROJECT  # None: the run's own name
    variable: str = ""  # of the environment, that says where it writes, if somebody set it
    place: str = "{folder}/{name}"  # where it writes, if nobody did
    go: Callable[[str], None] = lambda place: None  # makes it write there
    end: Callable[[Any], None] = lambda tracker: tracker.finish()


def _mlflow_to(place: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(place)


def _trackio_to(place: str) -> None:
    os.environ["TRACKIO_DIR"] = place


def _trackio_end(tracker: Any) -> None:
    import trackio

    trackio.finish()  # the run's own `finish` is called again when Python ends


TRACKERS = {
    "tensorboard": _Tracker(
        "tensorboard", lambda run, folder, step: {"logging_dir": folder / "tensorboard",
                                                  **({"purge_step": step} if step else {})},
        project=None,
    ),
    "mlflow": _Tracker(
        "mlflow", lambda run, folder, step: {"run_name": run},
        variable="MLFLOW_TRACKING_URI", place="sqlite:///{folder}/mlflow.db", go=_mlflow_to,
    ),
    "trackio": _Tracker(
        "trackio", lambda run, folder, step: {"name": run},
        variable="TRACKIO_DIR", go=_trackio_to, end=_trackio_end,
    ),
    "wandb": _Tracker("wandb", lambda run, folder, step: {"name": run, "dir": folder}),
    "comet_ml": _Tracker("comet_ml", lambda run, folder, step: {}),
    "aim": _Tracker("aim", lambda run, folder, step: {"logging_dir": folder}, project=None),
    "clearml": _Tracker("clearml", lambda run, folder, step: {"task_name": run}),
    "dvclive": _Tracker("dvclive", lambda run, folder, step: {"dir": f"{folder}/dvclive/{run}"}),
    "swanlab": _Tracker("swanlab", lambda run, folder, step: {"experiment_name": run}),
}  # fmt: skip


def check(names: Iterable[str], flag: str) -> None:
    """Find out whether trackers are there.

    Raises:
        RequestError: one is unknown, or not installed.
    """
    for name in names:
        registry.check("tracker", name, TRACKERS)
        package = TRACKERS[name].package
        if importlib.util.find_spec(package) is None:
            extra = f"jdna[{name}]" if name in ("tensorboard", "mlflow", "wandb") else package
            raise RequestError(f"{flag} {name}: {package} is not installed: pip install '{extra}'")


def place(name: str, folder: Path) -> str:
    """Where a tracker writes, or what it is reached by."""
    known = TRACKERS[name]
    return os.environ.get(known.variable) or known.place.format(folder=folder.absolute(), name=name)


class Tracking:
    """The trackers of one run."""

    def __init__(
        self,
        names: Sequence[str],
        run: str,
        folder: Path,
        settings: Mapping[str, Any],
        first: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Start a run at each tracker.

        Args:
            names: of trackers.
            run: what the run is called there.
            folder: where they write, if they write here.
            settings: of the run, as JSON.
            first: the step that is gone on from.
            say: is told of a tracker that fails, which is told nothing from then on; None: it
                raises.
        """
        self._say, self._last = say, first
        self._trackers: dict[str, Any] = {}
        words = {k: _plain(v) for k, v in settings.items() if v not in (None, [], ())}
        for name in names:
            self._attempt(name, partial(self._start, name, run, folder, words, first))

    def _start(
        self, name: str, run: str, folder: Path, settings: dict[str, Any], first: int
    ) -> None:
        from accelerate import PartialState, tracking

        PartialState()  # that accelerate's trackers ask for
        known = TRACKERS[name]
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        known.go(place(name, folder))
        kind = tracking.LOGGER_TYPE_TO_CLASS[name]
        found = kind(known.project or run, **known.arguments(run, folder, first))
        found.start()
        self._trackers[name] = found
        found.store_init_configuration(settings)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the trackers that are told."""
        return tuple(self._trackers)

    def log(self, measured: Sequence[Measurement], **others: float) -> None:
        """Tell what was measured at steps, each with the numbers of `others`."""
        for step, own in groupby(measured, key=lambda m: m.step):
            self._last = max(self._last, step or 0)
            values = {f"{m.split}/{m.name}": m.value for m in own} | others
            for name, tracker in list(self._trackers.items()):
                self._attempt(name, partial(tracker.log, values, step=step))

    def finish(self, results: Sequence[Measurement] = ()) -> None:
        """Tell what the run came to, and end it there."""
        values = {f"result/{m.split}/{m.name}": m.value for m in results if m.step is None}
        for name, tracker in list(self._trackers.items()):
            if values:
                self._attempt(name, partial(tracker.log, values, step=self._last))
            self._attempt(name, partial(TRACKERS[name].end, tracker))
        self._trackers.clear()

    def _attempt(self, name: str, what: Callable[[], None]) -> None:
        """A tracker that fails is no reason to lose a training."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # where results alone are printed
                what()
        except Exception as error:
            if self._say is None:
                raise
            self._trackers.pop(name, None)
            self._say(f"{name} is told nothing more: {type(error).__name__}: {error}")


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
