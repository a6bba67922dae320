"""The ledger: opens a run, closes it, finds its twin. The only place that writes rows."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlmodel import Session, col, select

from jdna_cli import __version__
from jdna_cli.errors import InterruptedRunError, JdnaError, RequestError, redact
from jdna_cli.results import Outcome
from jdna_cli.specs import ModelSource, Spec
from jdna_cli.store import database, schema
from jdna_cli.store.tables import Dynamics, Layer, Metric, Point, Run, Status, Weights

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 600.0
HASHES = 4  # files at a time
REMEMBERED = ".identity"  # what a run's model was by content, where it may be taken away

# What determines a model's answers: weights, configuration, tokenizer; not its readme.
_CONTENT = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.codes",
    "*.spm",
    "*.tiktoken",
)


@dataclass(frozen=True)
class NewRun:
    """What is known of a run before it starts."""

    spec: Spec
    fingerprint: str
    columns: dict[str, Any] = field(default_factory=dict)
    parent: int | None = None
    other: int | None = None


class Ledger:
    """The database of one home folder, opened for writing."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        """Open or create it, at the newest schema.

        Raises:
            RequestError: the home folder or the database cannot be written.
        """
        self.home = home
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"--home: {home} cannot be made: {error.strerror}") from None
        if not os.access(home, os.W_OK):
            raise RequestError(f"--home: {home} is read-only, name another folder")
        self.url = url or schema.default_url(home)
        self._engine: Engine = database.prepare(self.url)
        self.recognise_dead()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -------------------------------------------------------------------------------------- finding

    def get(self, number: int) -> Run:
        """The run of this number.

        Raises:
            RequestError: there is none.
        """
        with Session(self._engine) as session:
            run = session.get(Run, number)
        if run is None:
            raise RequestError(f"there is no run {number}: `jdna runs list` shows those there are")
        return run

    def finished(
        self, fingerprint: str, fits: Callable[[Run], bool] = lambda run: True
    ) -> Run | None:
        """The latest finished run of this fingerprint that fits, and has its files still."""
        for run in self._twins(fingerprint, Status.finished):
            if self.folder(run).is_dir() and fits(run):
                return run
        return None

    def resumable(self, fingerprint: str) -> Run | None:
        """The latest run of this fingerprint that was cut off or failed."""
        return next(iter(self._twins(fingerprint, Status.interrupted, Status.failed)), None)

    def _twins(self, fingerprint: str, *statuses: Status) -> list[Run]:
        wanted = [status.value for status in statuses]
        query = (
            select(Run)
            .where(Run.fingerprint == fingerprint, col(Run.status).in_(wanted))
            .order_by(col(Run.id).desc())
        )
        with Session(self._engine) as session:
            return list(session.exec(query))

    def outcome(self, number: int) -> Outcome:
        """What a finished run measured, as it was recorded."""
        from jdna_cli import results

        with Session(self._engine) as session:
            run = session.get_one(Run, number)
            metrics = session.exec(
                select(Metric).where(Metric.run == number).order_by(col(Metric.id))
            )
            layers = session.exec(
                select(Layer).where(Layer.run == number).order_by(col(Layer.tensor))
            )
            points = session.exec(
                select(Point).where(Point.run == number).order_by(col(Point.alpha))
            )
            moved = session.exec(
                select(Dynamics)
                .where(Dynamics.run == number)
                .order_by(col(Dynamics.step), col(Dynamics.tensor))
            )
            return Outcome(
                measurements=tuple(
                    results.Measurement(m.split, m.name, m.value, m.step) for m in metrics
                ),
                layers=tuple(
                    results.LayerSparsity(x.tensor, tuple(x.shape), x.kept, x.total) for x in layers
                ),
                points=tuple(results.Point(p.alpha, p.loss, p.score) for p in points),
                movements=tuple(
                    results.Movement(**row.model_dump(exclude={"run"})) for row in moved
                ),
                bits=run.bits,
                bits_per_weight=run.bits_per_weight,
                device=run.device or "",
                dtype=run.dtype,
                protocol=run.protocol,
                remark=run.remark,
            )

    def seconds(self) -> dict[tuple[str, str | None, str | None], float]:
        """How long finished runs took on average, by kind, model, and task."""
        query = select(Run).where(Run.status == Status.finished.value)
        found: dict[tuple[str, str | None, str | None], list[float]] = {}
        with Session(self._engine) as session:
            for run in session.exec(query):
                if run.finished_at is not None:
                    spent = (run.finished_at - run.started_at).total_seconds()
                    found.setdefault((run.kind, run.model, run.task), []).append(spent)
        return {key: sum(own) / len(own) for key, own in found.items()}

    def folder(self, run: Run) -> Path:
        """The folder of a run's files."""
        return self.home / (run.artifact or str(run.id))

    def work(self, run: Run) -> Path:
        """The folder of a run's checkpoints while it is not finished."""
        return self.home / f".work-{run.id}"

    def model_of(self, number: int, *, look: bool = False) -> tuple[ModelSource, Run]:
        """The model that run `number` wrote; to `look` something up, what it was is enough.

        Raises:
            RequestError: it wrote none, has not finished, or its files are gone.
        """
        run = self.get(number)
        if run.kind not in ("prune", "finetune"):
            raise RequestError(f"run:{number} is an {run.kind} run, it wrote no model")
        if run.status != Status.finished.value:
            raise RequestError(f"run:{number} is {run.status}, only a finished run has a model")
        folder = self.folder(run)
        if not (folder / "config.json").is_file():
            raise RequestError(f"run:{number}: its files are gone from {folder}")
        if not has_weights(folder) and not (look and (folder / REMEMBERED).is_file()):
            raise RequestError(f"run:{number}: its model was not kept; make it again with --force")
        mask = folder / "mask.safetensors"
        identity = self.identity(folder)
        return ModelSource(f"run:{number}", folder, identity, mask if mask.is_file() else None), run

    def knew_model(self, number: int) -> bool:
        """Whether the model of a finished run is there, or what it was is remembered."""
        folder = self.folder(self.get(number))
        there = has_weights(folder) or (folder / REMEMBERED).is_file()
        return there or not (folder / "config.json").is_file()

    def writer_of(self, folder: Path) -> int | None:
        """The finished run whose model stands in `folder`, if one does."""
        place = folder.resolve()
        query = (
            select(Run)
            .where(Run.status == Status.finished.value, col(Run.kind).in_(("prune", "finetune")))
            .where(col(Run.artifact).in_((str(place), place.name)))
            .order_by(col(Run.id).desc())
        )
        with Session(self._engine) as session:
            found = (run.id for run in session.exec(query) if self.folder(run).resolve() == place)
            return next(found, None)

    def name_of(self, identity: str, otherwise: str) -> str:
        """The name under which these weights were first seen, so that one model has one name."""
        query = select(Run.model).where(Run.model_identity == identity, col(Run.model).is_not(None))
        with Session(self._engine) as session:
            return session.exec(query.order_by(col(Run.id)).limit(1)).first() or otherwise

    def identity(self, folder: Path) -> str:
        """Hash of a model folder's content: weights, configuration, tokenizer."""
        if not has_weights(folder) and (folder / REMEMBERED).is_file():
            return (folder / REMEMBERED).read_text().strip()
        files = sorted(
            file
            for file in folder.iterdir()
            if file.is_file() and any(fnmatch(file.name, pattern) for pattern in _CONTENT)
        )
        # Hashing lets go of the interpreter: the shards of a large model side by side.
        with ThreadPoolExecutor(HASHES) as pool:
            sums = list(pool.map(self._sha256, files))
        text = "\n".join(f"{file.name}:{own}" for file, own in zip(files, sums, strict=True))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def _sha256(self, file: Path) -> str:
        path, state = str(file.resolve()), file.stat()
        remembered = file.suffix == ".safetensors"
        if remembered:
            with Session(self._engine) as session:
                row = session.get(Weights, path)
                if row and (row.size, row.modified_ns) == (state.st_size, state.st_mtime_ns):
                    return row.sha256
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if remembered:
            with Session(self._engine) as session:
                session.merge(
                    Weights(
                        path=path,
                        size=state.st_size,
                        modified_ns=state.st_mtime_ns,
                        sha256=found,
                    )
                )
                session.commit()
        return found

    # -------------------------------------------------------------------------------------- writing

    def start(self, opening: NewRun, versions: dict[str, str], artifact: Path | None) -> Run:
        """Record that a run starts."""
        run = Run(
            kind=opening.spec.kind,
            spec=opening.spec.model_dump(mode="json"),
            fingerprint=opening.fingerprint,
            parent=opening.parent,
            other=opening.other,
            artifact=str(artifact.resolve()) if artifact else None,
            versions={"jdna": __version__, "python": platform.python_version(), **versions},
            git_commit=_source_commit(),
            **opening.columns,
            **self._alive(),
        )
        with Session(self._engine, expire_on_commit=False) as session:
            session.add(run)
            session.flush()
            run.artifact = run.artifact or str(run.id)
            session.commit()
        return run

    def take_up(self, run: Run) -> Run:
        """Record that a cut-off run goes on, in this process."""
        with Session(self._engine, expire_on_commit=False) as session:
            found = session.get_one(Run, run.id)
            for name, value in self._alive().items():
                if name != "started_at":
                    setattr(found, name, value)
            found.finished_at, found.error = None, None
            session.commit()
        return found

    def _alive(self) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC)
        return {
            "status": Status.running.value,
            "started_at": now,
            "heartbeat_at": now,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
        }

    @contextlib.contextmanager
    def running(self, run: Run, *, fresh: bool) -> Iterator[None]:
        """Keep the run's heartbeat; record it as failed or interrupted if the block raises.

        A `fresh` run whose request turns out to be wrong is forgotten.
        """
        stopped = threading.Event()
        thread = threading.Thread(target=self._beat, args=(run.id, stopped), daemon=True)
        thread.start()
        try:
            yield
        except RequestError as error:
            # Nothing was run; a run that was taken up again stays what it was.
            if fresh:
                self.remove(self._end(run, Status.failed, str(error)))
            else:
                self._end(run, Status.failed, str(error))
            raise
        except (InterruptedRunError, KeyboardInterrupt) as error:
            self._end(run, Status.interrupted, str(error) or "interrupted")
            raise
        except BaseException as error:
            text = (
                str(error) if isinstance(error, JdnaError) else f"{type(error).__name__}: {error}"
            )
            self._end(run, Status.failed, text)
            raise
        finally:
            stopped.set()
            thread.join()

    def _beat(self, number: int, stopped: threading.Event) -> None:
        while not stopped.wait(HEARTBEAT_SECONDS):
            with self._engine.begin() as connection:
                now = dt.datetime.now(dt.UTC)
                where = sa.update(Run).where(col(Run.id) == number)
                connection.execute(where.values(heartbeat_at=now))

    def finish(self, run: Run, outcome: Outcome) -> Run:
        """Record what a run measured, all of it or nothing."""
        number = run.id
        assert number is not None
        with Session(self._engine, expire_on_commit=False) as session:
            found = session.get_one(Run, run.id)
            found.status = Status.finished.value
            found.finished_at = dt.datetime.now(dt.UTC)
            found.device = outcome.device
            found.bits = outcome.bits
            found.dtype, found.protocol = outcome.dtype, outcome.protocol
            found.remark, found.examples = outcome.remark, outcome.examples
            if outcome.bits_per_weight is not None:
                found.bits_per_weight = outcome.bits_per_weight
            if outcome.sparsity is not None:
                found.sparsity_reached = outcome.sparsity
            for m in outcome.measurements:
                session.add(
                    Metric(run=number, split=m.split, name=m.name, value=m.value, step=m.step)
                )
            for x in outcome.layers:
                session.add(
                    Layer(
                        run=number, tensor=x.name, shape=list(x.shape), kept=x.kept, total=x.total
                    )
                )
            for moved in outcome.movements:
                session.add(Dynamics(run=number, **vars(moved)))
            for p in outcome.points:
                session.add(Point(run=number, alpha=p.alpha, loss=p.loss, score=p.score))
            session.commit()
        return found

    def adopt(
        self, columns: dict[str, Any], outcome: Outcome, files: dict[str, bytes],
        parent: int | None, other: int | None,
    ) -> Run:  # fmt: skip
        """Record a finished run that was made elsewhere, with its small files.

        Args:
            columns: of its row there, without numbers of runs.
            outcome: what it measured.
            files: by name.
            parent: the run here that its model came from.
            other: interpolate: the run here at the other end.
        """
        run = Run(**{**columns, "status": Status.running.value}, parent=parent, other=other)
        ended = run.finished_at
        with Session(self._engine, expire_on_commit=False) as session:
            session.add(run)
            session.flush()
            run.artifact = str(run.id)
            session.commit()
        folder = self.folder(run)
        part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
        part.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (part / Path(name).name).write_bytes(content)
        part.rename(folder)
        found = self.finish(run, outcome)
        with Session(self._engine, expire_on_commit=False) as session:
            # When it ended there, not when it came here.
            found = session.merge(found)
            found.finished_at = ended
            session.commit()
        return found

    def _end(self, run: Run, status: Status, error: str) -> int:
        with Session(self._engine) as session:
            found = session.get_one(Run, run.id)
            found.status = status.value
            found.finished_at = dt.datetime.now(dt.UTC)
            found.error = redact(" ".join(error.split()))[:1000]
            session.commit()
        assert run.id is not None
        return run.id

    def remove(self, number: int) -> Run:
        """Delete a run's rows; its files are the caller's.

        Raises:
            RequestError: it is running, or other runs were made from it.
        """
        run = self.get(number)
        if run.status == Status.running.value:
            raise RequestError(f"run {number} is running on {run.host}, stop it first")
        with Session(self._engine) as session:
            used = sa.or_(col(Run.parent) == number, col(Run.other) == number)
            if children := session.exec(select(Run.id).where(used)).all():
                listed = ", ".join(map(str, children))
                raise RequestError(f"run {number} is what runs {listed} were made from")
            session.delete(session.get_one(Run, number))
            session.commit()
        return run

    def recognise_dead(self) -> None:
        """Record runs whose process is gone as interrupted."""
        query = select(Run).where(Run.status == Status.running.value)
        with Session(self._engine) as session:
            for run in session.exec(query):
                if not _lives(run):
                    run.status = Status.interrupted.value
                    run.finished_at = dt.datetime.now(dt.UTC)
                    run.error = "its process ended without a word"
            session.commit()


def has_weights(folder: Path) -> bool:
    """Whether a run's folder still holds its model, in whatever form."""
    beside = ("mask.safetensors", "grid.safetensors")
    return any(file.name not in beside for file in folder.glob("*.safetensors"))


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a model in its compact form."""
    return any(folder.glob("packed-*.safetensors"))


def _lives(run: Run) -> bool:
    """Whether the run's process is still there, as far as can be told from here."""
    if run.host == socket.gethostname() and run.pid is not None:
        try:
            started = psutil.Process(run.pid).create_time()
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
        return run.process_started is None or abs(started - run.process_started) < 1.0
    beat = run.heartbeat_at or run.started_at
    beat = beat if beat.tzinfo else beat.replace(tzinfo=dt.UTC)
    return (dt.datetime.now(dt.UTC) - beat).total_seconds() < STALE_SECONDS


def _source_commit() -> str | None:
    """The commit of the source tree that this package runs from, if it is one."""
    top = Path(__file__).resolve().parent.parent.parent
    try:
        head = (top / ".git" / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return (top / ".git" / head.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None
