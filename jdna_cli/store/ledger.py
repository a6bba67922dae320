"""The ledger: opens a run, closes it, finds its twin. The only place that writes rows."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from jdna_cli import __version__
from jdna_cli.errors import InterruptedRunError, JdnaError, RequestError, redact
from jdna_cli.results import Outcome
from jdna_cli.specs import Spec
from jdna_cli.store import database, liveness, schema
from jdna_cli.store.liveness import Lease, LostRunError, now
from jdna_cli.store.run_reader import RunReader
from jdna_cli.store.tables import (
    About,
    Dynamics,
    File,
    Hold,
    Layer,
    Metric,
    Owner,
    Point,
    Run,
    Sensitivity,
    Status,
)

IDENTITY = ".database"  # in a home: whose it is


@dataclass(frozen=True)
class NewRun:
    """What is known of a run before it starts."""

    spec: Spec
    fingerprint: str
    columns: dict[str, Any] = field(default_factory=dict)
    parent: int | None = None
    other: int | None = None


class AlreadyRunningError(JdnaError):
    """Another process runs the same request."""

    def __init__(self, run: Run | None) -> None:
        which = "the same request" if run is None else f"run {run.id} of the same request"
        super().__init__(f"{which} is running{f' on {run.host}' if run else ''}")


class Ledger(RunReader):
    """The database of one home folder, opened for writing."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        """Open or create it, at the newest schema.

        Raises:
            RequestError: the home folder or the database cannot be written.
        """
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"--home: {home} cannot be made: {error.strerror}") from None
        if not os.access(home, os.W_OK):
            raise RequestError(f"--home: {home} is read-only, name another folder")
        self.url = url or schema.default_url(home)
        super().__init__(home, database.prepare(self.url))
        self._require_own_home()
        self.lease = Lease(self.engine, home)
        self.recognise_dead()

    def _require_own_home(self) -> None:
        """Refuse a home whose runs another database has recorded.

        Raises:
            RequestError: says so.
        """
        file = self.home / IDENTITY
        if not file.is_file() or file.read_text(encoding="utf-8").strip() == self._identity():
            return
        if any(path.name.isdigit() for path in self.home.iterdir()):
            raise RequestError(
                f"--home: {self.home} has the runs of another database: name the one that it was "
                "made with, or another home"
            )

    def _identity(self) -> str:
        with Session(self.engine) as session:
            return session.get_one(About, "identity").value

    def _begin(self) -> None:
        """Say that this process lives, and whose the home is, before the first run is written."""
        if self.lease.taken:
            return
        self.lease.take()
        file = self.home / IDENTITY
        part = file.with_name(f"{IDENTITY}.part-{self.lease.token}")
        part.write_text(f"{self._identity()}\n", encoding="utf-8")
        part.replace(file)

    def close(self) -> None:
        """Own nothing any more, and let go of the database."""
        self.lease.release()
        self.engine.dispose()

    def recognise_dead(self) -> None:
        """Record runs whose process is gone as interrupted."""
        liveness.bury(self.engine, self.home)

    # ------------------------------------------------------------------------------ a run begins

    def start(self, opening: NewRun, versions: dict[str, str], artifact: Path | None) -> Run:
        """Record that a run starts, in this process; there is one of each request at a time.

        Raises:
            AlreadyRunningError: another process runs the same.
        """
        self._begin()
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
            started_at=dt.datetime.now(dt.UTC),
            **self._mine(),
        )
        with self._claim(opening.fingerprint) as session:
            session.add(run)
            session.flush()
            run.artifact = run.artifact or str(run.id)
            session.commit()
        return run

    def take_up(self, run: Run) -> Run:
        """Record that a cut-off run goes on, in this process.

        Raises:
            AlreadyRunningError: another process has taken it up, or runs the same.
        """
        self._begin()
        cut_off = (Status.interrupted.value, Status.failed.value)
        with self._claim(run.fingerprint) as session:
            values = {**self._mine(), "finished_at": None, "error": None}
            mine = sa.update(Run).where(col(Run.id) == run.id, col(Run.status).in_(cut_off))
            if session.connection().execute(mine.values(**values)).rowcount != 1:
                session.rollback()
                raise AlreadyRunningError(self.get(run.id or 0))
            session.commit()
            # What a dead predecessor had written but not recorded is made again.
            if self.is_own(folder := self.folder(run)):
                for left in (folder, *self.home.glob(f".{run.id}.part-*")):
                    shutil.rmtree(left, ignore_errors=True)
            return session.get_one(Run, run.id)

    @contextlib.contextmanager
    def _claim(self, fingerprint: str) -> Iterator[Session]:
        """A transaction that fails where another process runs the same request."""
        with Session(self.engine, expire_on_commit=False) as session:
            try:
                yield session
            except sa.exc.IntegrityError as error:
                session.rollback()
                if not any(name in str(error.orig) for name in ("uq_run_running", "fingerprint")):
                    raise
                # It may have ended since.
                raise AlreadyRunningError(self.running_twin(fingerprint)) from None

    def running_twin(self, fingerprint: str) -> Run | None:
        """The run of this fingerprint that a living process works on."""
        self.recognise_dead()
        return next(iter(self._twins(fingerprint, Status.running)), None)

    def _mine(self) -> dict[str, Any]:
        return {
            "status": Status.running.value,
            "owner": self.lease.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    # ------------------------------------------------------------------------------ models in use

    def hold(self, number: int) -> None:
        """Say that this process needs the model of a run, until it lets go of it or ends."""
        self._begin()
        with Session(self.engine) as session:
            if session.get(Hold, (number, self.lease.token)) is None:
                session.add(Hold(run=number, owner=self.lease.token))
                session.commit()

    def let_go(self, number: int) -> bool:
        """Say that this process needs a model no more; returns whether nobody else does either."""
        with Session(self.engine) as session:
            mine = sa.delete(Hold).where(
                col(Hold.run) == number, col(Hold.owner) == self.lease.token
            )
            session.connection().execute(mine)
            session.commit()
            alive = sa.select(col(Owner.token)).where(col(Owner.expires) > now(self.engine))
            others = select(Hold).where(Hold.run == number, col(Hold.owner).in_(alive))
            return session.exec(others).first() is None

    # -------------------------------------------------------------------------------- a run ends

    @contextlib.contextmanager
    def running(self, run: Run, *, fresh: bool) -> Iterator[None]:
        """Record a run as failed or interrupted if the block raises.

        A `fresh` run whose request turns out to be wrong is forgotten.
        """
        try:
            yield
        except LostRunError:
            raise  # it is another's: nothing is said of it
        except RequestError as error:
            # Nothing was run; a run that was taken up again stays what it was.
            if fresh:
                self.forget(run)
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

    def _change(self, session: Session, run: Run, **values: Any) -> None:
        """Change a run that is this process's, in one statement.

        Raises:
            LostRunError: it is not.
        """
        statement = sa.update(Run).where(col(Run.id) == run.id, *self.lease.owned())
        if session.connection().execute(statement.values(**values)).rowcount != 1:
            raise LostRunError(run.id)

    def finish(self, run: Run, outcome: Outcome) -> Run:
        """Record what a run measured, all of it or nothing.

        Raises:
            LostRunError: it is not this process's any more.
        """
        number = run.id
        assert number is not None
        written = self.digests(self.folder(run))
        with Session(self.engine, expire_on_commit=False) as session:
            self._change(session, run, status=Status.finished.value)
            for name, size, sum_ in written:
                session.add(File(run=number, name=name, size=size, sha256=sum_))
            recorded = session.get_one(Run, run.id)
            recorded.finished_at = dt.datetime.now(dt.UTC)
            recorded.device = outcome.device
            recorded.bits = outcome.bits
            recorded.dtype, recorded.protocol = outcome.dtype, outcome.protocol
            recorded.remark, recorded.examples = outcome.remark, outcome.examples
            if outcome.bits_per_weight is not None:
                recorded.bits_per_weight = outcome.bits_per_weight
            if outcome.sparsity is not None:
                recorded.sparsity_reached = outcome.sparsity
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
            for one in outcome.sensitivities:
                session.add(Sensitivity(run=number, **{**vars(one), "tensors": list(one.tensors)}))
            for p in outcome.points:
                session.add(Point(run=number, alpha=p.alpha, loss=p.loss, score=p.score))
            session.commit()
        return recorded

    def forget(self, run: Run) -> None:
        """Take back that a run started, of which nothing was made.

        Raises:
            LostRunError: it is not this process's any more.
        """
        with Session(self.engine) as session:
            mine = sa.delete(Run).where(col(Run.id) == run.id, *self.lease.owned())
            if session.connection().execute(mine).rowcount != 1:
                raise LostRunError(run.id)
            session.commit()

    def _end(self, run: Run, status: Status, error: str) -> None:
        with Session(self.engine) as session:
            self._change(
                session,
                run,
                status=status.value,
                finished_at=dt.datetime.now(dt.UTC),
                error=redact(" ".join(error.split()))[:1000],
            )
            session.commit()

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
        self._begin()
        run = Run(**{**columns, **self._mine()}, parent=parent, other=other)
        ended = run.finished_at
        with Session(self.engine, expire_on_commit=False) as session:
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
        with Session(self.engine, expire_on_commit=False) as session:
            # When it ended there, not when it came here.
            found = session.merge(found)
            found.finished_at = ended
            session.commit()
        return found

    def remove(self, number: int) -> Run:
        """Delete a run's rows; its files are the caller's.

        Raises:
            RequestError: it is running, or other runs were made from it.
        """
        run = self.get(number)
        if run.status == Status.running.value:
            raise RequestError(f"run {number} is running on {run.host}, stop it first")
        with Session(self.engine) as session:
            used = sa.or_(col(Run.parent) == number, col(Run.other) == number)
            if children := session.exec(select(Run.id).where(used)).all():
                listed = ", ".join(map(str, children))
                raise RequestError(f"run {number} is what runs {listed} were made from")
            session.delete(session.get_one(Run, number))
            session.commit()
        return run


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
