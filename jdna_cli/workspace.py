"""The Python API: what the shell can do a notebook can, with the same requests and records.

    from jdna_cli import Workspace

    workspace = Workspace("jdna-runs")
    pruned = workspace.prune("./MiniLM", sparsity=0.5)
    tuned = workspace.finetune(pruned, task="rte")
    workspace.report("drop").to_pandas()

Nothing heavy is imported before something is computed.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from jdna_cli.errors import RequestError
from jdna_cli.notebook import RunResult, Table

if TYPE_CHECKING:
    from jdna_cli.advising.advice import Advice
    from jdna_cli.observer import Observer
    from jdna_cli.runs.recording import OpenWorkspace, RecordedRun
    from jdna_cli.specs import Spec
    from jdna_cli.store.ledger import Ledger
    from jdna_cli.store.tables import Run

Progress = Callable[[str, int, int, str], None]


class _Told:
    """Passes on to a function how a run gets on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, text: str) -> None:
        self._progress(text, 0, 0, "")

    def phase(self, text: str) -> None:
        if text:
            self._progress(text, 0, 0, "")

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        yield self._progress


class Workspace:
    """Where runs are recorded, and all that can be asked there."""

    def __init__(
        self,
        home: str | Path = "jdna-runs",
        *,
        db: str | None = None,
        data_dir: str | Path | None = None,
        allow_pickle: bool = False,
        progress: Progress | Literal["bar"] | None = None,
    ) -> None:
        """Name the folder; it and its database are made with the first run.

        Args:
            home: folder of the database and of the runs' files.
            db: a database elsewhere, as a SQLAlchemy URL.
            data_dir: where DIR/TASK/SPLIT.jsonl stands, it is used in place of the hub.
            allow_pickle: read models that have pickle files alone.
            progress: called with (what, done, of how many, a note), 0 of 0 where nothing can be
                counted; "bar" shows it as the shell does.
        """
        self.home, self._db = Path(home), db
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._allow_pickle, self._progress = allow_pickle, progress
        self._open: Ledger | None = None

    # ------------------------------------------------------------------------------- requests

    def prune(
        self,
        model: str | Path | RunResult,
        *,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
        **options: Any,
    ) -> RunResult:
        """Set the least important weights to zero, or round all.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            out: folder for the model, in place of HOME/ID.
            force: run even if the database has the answer.
            resume: take up a calibrated pruning that was cut off, after its last finished block.
            options: fields of `jdna_cli.specs.PruneSpec`, as sparsity=0.5 or pattern="2:4".

        Raises:
            RequestError: the request is wrong; nothing was begun.
        """
        from jdna_cli.runs import prune
        from jdna_cli.specs import PruneSpec

        asked = _asked(PruneSpec, {"model": _named(model), **options})
        target = None if out is None else Path(out)
        with self._opened(force=force, resume=resume) as workspace:
            return self._result(prune.prune(workspace, asked, target))

    def finetune(
        self,
        model: str | Path | RunResult,
        task: str | Path,
        *,
        force: bool = False,
        resume: bool = False,
        **options: Any,
    ) -> RunResult:
        """Fine-tune under a transfer regime, pruning first where asked.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            task: name of a task, or a TOML file that describes one.
            force: run even if the database has the answer.
            resume: take up a run of this request that was cut off.
            options: fields of `jdna_cli.specs.FinetuneSpec`, as sparsity=0.5, regime="sparse".

        Raises:
            RequestError: the request is wrong; nothing was begun.
        """
        from jdna_cli.runs import finetune
        from jdna_cli.specs import FinetuneSpec

        asked = _asked(FinetuneSpec, {"model": _named(model), "task": str(task), **options})
        with self._opened(force=force, resume=resume) as workspace:
            return self._result(finetune.finetune(workspace, asked))

    def evaluate(
        self,
        model: str | Path | RunResult,
        task: str | Path,
        *,
        force: bool = False,
        **options: Any,
    ) -> RunResult:
        """Measure a model on one split of a task, and keep its answer to each example.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            task: name of a task, or a TOML file that describes one.
            force: run even if the database has the answer.
            options: fields of `jdna_cli.specs.EvalSpec`, as shots=5.

        Raises:
            RequestError: the request is wrong.
        """
        from jdna_cli.runs import evaluate
        from jdna_cli.specs import EvalSpec

        values = {"shots": 0, "model": _named(model), "task": str(task), **options}
        asked = _asked(EvalSpec, values)
        with self._opened(force=force) as workspace:
            return self._result(evaluate.evaluate(workspace, asked))

    def interpolate(
        self,
        first: str | Path | RunResult,
        second: str | Path | RunResult,
        task: str | Path,
        *,
        force: bool = False,
        **options: Any,
    ) -> RunResult:
        """Measure models on the straight line between two fine-tuned ones, and the loss barrier.

        Args:
            first: where the line begins.
            second: where it ends.
            task: on what it is measured.
            force: run even if the database has the answer.
            options: fields of `jdna_cli.specs.InterpolateSpec`, as points=21.

        Raises:
            RequestError: the request is wrong, or the two models differ in more than weights.
        """
        from jdna_cli.runs import interpolate
        from jdna_cli.specs import InterpolateSpec

        ends = {"model": _named(first), "other": _named(second)}
        asked = _asked(InterpolateSpec, {"shots": 0, **ends, "task": str(task), **options})
        with self._opened(force=force) as workspace:
            return self._result(interpolate.interpolate(workspace, asked))

    def advise(
        self,
        model: str | Path | RunResult,
        task: str | Path,
        *,
        tolerance: float = 0.01,
        seeds: int = 3,
        budget: str | None = None,
        precision: float = 0.05,
        patterns: str | None = None,
        finetune: bool = True,
        **options: Any,
    ) -> Advice:
        """Find how far a model may be pruned before a task breaks, one run after the other.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            task: name of a task, or a TOML file that describes one.
            tolerance: drop that still counts as none, as a share of the dense score.
            seeds: of the dense model, and of each sparsity at most.
            budget: as "12 runs" or "30m"; by default half the runs of a grid of nine sparsities.
            precision: width of the 95 % interval at which the search ends.
            patterns: walk these in place of sparsities: "7:8,4:8", or "8" for all of 8.
            finetune: train each model on the task, or prune and measure alone.
            options: fields of `FinetuneSpec`, or of `EvalSpec` and `PruneSpec`, for every run.

        Raises:
            RequestError: the request is wrong; nothing was begun.
        """
        from jdna_cli.advising import advice
        from jdna_cli.advising.question import question
        from jdna_cli.specs import EvalSpec, FinetuneSpec, PruneSpec
        from jdna_cli.sweeps.backends import here

        values = {"model": _named(model), "task": str(task), **options}
        if finetune:
            _asked(FinetuneSpec, values)
        else:
            _asked(EvalSpec, {n: v for n, v in values.items() if n not in PruneSpec.model_fields})
        asked = question(
            {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()},
            trains=finetune, tolerance=tolerance, seeds=seeds, precision=precision, budget=budget,
            patterns=patterns,
        )  # fmt: skip
        with self._opened(force=False) as workspace:
            search = advice.begin(workspace, asked, self._url, side=1)
            return advice.answer(
                search, lambda state: here.run(state, workspace, here.Silent(), "advise")
            )

    def scan(
        self,
        model: str | Path | RunResult,
        task: str | Path,
        *,
        out: str | Path | None = None,
        force: bool = False,
        **options: Any,
    ) -> RunResult:
        """Prune each kind of matrix of each block alone, and measure what that does to a task.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            task: name of a task, or a TOML file that describes one.
            out: file for the allocation, in place of allocation.toml in the run's folder.
            force: run even if the database has the answer.
            options: fields of `jdna_cli.specs.ScanSpec`, as sparsities=(0.5, 0.75), total=0.6.

        Raises:
            RequestError: the request is wrong.
        """
        from jdna_cli.runs import scan
        from jdna_cli.specs import ScanSpec

        asked = _asked(ScanSpec, {"model": _named(model), "task": str(task), **options})
        target = None if out is None else Path(out)
        with self._opened(force=force) as workspace:
            return self._result(scan.scan(workspace, asked, target)[0])

    def export(
        self,
        model: str | Path | RunResult,
        format: str,
        *,
        out: str | Path | None = None,
        force: bool = False,
        **options: Any,
    ) -> RunResult:
        """Write a model for another runtime, compare its outputs with torch's, and time both.

        Args:
            model: hub id, folder, run:ID, or the result of a run.
            format: onnx or openvino.
            out: folder for the files, in place of one of the run's own.
            force: run even if the database has the answer.
            options: fields of `jdna_cli.specs.ExportSpec`, as length=64.

        Raises:
            RequestError: the request is wrong.
        """
        from jdna_cli.runs import export
        from jdna_cli.specs import ExportSpec

        asked = _asked(ExportSpec, {"model": _named(model), "format": format, **options})
        target = None if out is None else Path(out)
        with self._opened(force=force) as workspace:
            return self._result(export.export(workspace, asked, target))

    # -------------------------------------------------------------------------------- reading

    def run(self, number: int) -> RunResult:
        """A run that was recorded.

        Raises:
            RequestError: there is none of this number.
        """
        return _result_of(self._ledger(), self._ledger().get(number), cached=True)

    def report(
        self,
        name: str = "drop",
        *,
        models: Sequence[str] = (),
        tasks: Sequence[str] = (),
        regimes: Sequence[str] = (),
        criteria: Sequence[str] = (),
        patterns: Sequence[str] = (),
        seeds: Sequence[int] = (),
        runs: Sequence[int] = (),
        figure: str = "",
        tolerance: float = 0.01,
    ) -> Table:
        """What the recorded runs say: the rows behind a table of `jdna report`.

        Args:
            name: of the report (`jdna report list`).
            models: only runs from one of these pre-trained models.
            tasks: only runs on one of these tasks.
            regimes: only these transfer regimes.
            criteria: only weights chosen by these criteria.
            patterns: only these: unstructured, N:M for all of those, or one as 2:4.
            seeds: only runs with one of these seeds.
            runs: `compare`: the two runs.
            figure: `paper`: which of the published figures.
            tolerance: `verdict`, `advise`: drop that still counts as none.

        Raises:
            RequestError: no such report, or no database.
        """
        from jdna_cli import reports
        from jdna_cli.reports import cells
        from jdna_cli.reports.query import Filters, source_of

        filters = Filters(
            models=tuple(models), tasks=tuple(tasks), regimes=tuple(regimes),
            criteria=tuple(criteria), patterns=tuple(patterns), seeds=tuple(seeds),
        )  # fmt: skip
        source = source_of(self._url, self.home, filters, tolerance, tuple(runs), figure)
        return Table([cells.public(row) for row in reports.load(name).rows(source)])

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Table:
        """Ask the database in SQL (docs/database.md); it is only read.

        Raises:
            RequestError: the statement is wrong, or would write.
        """
        from jdna_cli.store import reading

        return Table(reading.query(self._url, sql, tuple(parameters), reading.Bounds()).records())

    # --------------------------------------------------------------------------------- inside

    @property
    def _url(self) -> str:
        from jdna_cli.store import schema

        return self._db or schema.default_url(self.home)

    def _ledger(self) -> Ledger:
        from jdna_cli.store.ledger import Ledger

        if self._open is None:
            self._open = Ledger(self.home, self._db)
        return self._open

    @contextlib.contextmanager
    def _opened(self, *, force: bool, resume: bool = False) -> Iterator[OpenWorkspace]:
        from jdna_cli.runs.recording import OpenWorkspace

        observer = self._observer()
        try:
            yield OpenWorkspace(
                self._ledger(), self._data_dir, force, resume, self._allow_pickle, observer
            )
        finally:
            observer.phase("")

    def _observer(self) -> Observer:
        from jdna_cli.observer import Silent

        if self._progress is None:
            return Silent()
        if self._progress == "bar":
            from jdna_cli.console import Terminal

            return Terminal()
        return _Told(self._progress)

    def _result(self, done: RecordedRun) -> RunResult:
        return _result_of(self._ledger(), done.run, cached=done.cached)

    def close(self) -> None:
        """Let go of the database; the next request opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Workspace({str(self.home)!r})"


def _named(model: str | Path | RunResult) -> str:
    return f"run:{model.id}" if isinstance(model, RunResult) else str(model)


def _asked(spec: type[Spec], values: dict[str, Any]) -> dict[str, Any]:
    """The request, of which every name is a field; lists are tuples in it."""
    for name in values:
        if name not in spec.model_fields:
            near = difflib.get_close_matches(name, spec.model_fields, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise RequestError(f"{spec.kind} has no option {name!r}{hint}")
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}


def _result_of(ledger: Ledger, run: Run, *, cached: bool) -> RunResult:
    assert run.id is not None
    outcome = ledger.outcome(run.id)
    return RunResult(
        run.id, run.kind, cached, run.model, run.task, outcome.metrics, run.sparsity_reached,
        ledger.folder(run), dict(run.spec), outcome,
    )  # fmt: skip
