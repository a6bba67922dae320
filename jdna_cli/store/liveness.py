"""Who owns a run: a lease of its process, in the database's clock, and a lock on this machine.

A process takes a random token, writes until when it may be thought to live, and says so again and
again. Whoever does not in time owns nothing any more, whatever it believes. A lock on a file, which
the operating system lets go of with the process, tells at once that a process of this machine has
died; numbers of processes and names of hosts, which containers and reboots use again, tell nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import uuid
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.engine import Engine
from sqlmodel import col

from jdna_cli.errors import JdnaError
from jdna_cli.store.locks import LOCKS, POSTGRESQL_CLOCK, SQLITE_CLOCK, boot, is_dead
from jdna_cli.store.tables import Hold, Owner, Run, Status

LEASE_SECONDS = 300.0
BEAT_SECONDS = 20.0


class LostRunError(JdnaError):
    """The run belongs to another process by now; nothing more is written."""

    def __init__(self, number: int | None) -> None:
        super().__init__(
            f"run {number} is not this process's any more: it was not heard of for "
            f"{LEASE_SECONDS / 60:.0f} minutes, and may have been taken up by another"
        )


def now(engine: Engine) -> sa.ColumnElement[float]:
    """Seconds since 1970 by the database's clock, which all its processes share."""
    clock = SQLITE_CLOCK if engine.dialect.name == "sqlite" else POSTGRESQL_CLOCK
    return sa.literal_column(clock, sa.Double)


class Lease:
    """One process's right to its runs."""

    def __init__(self, engine: Engine, home: Path) -> None:
        """Take a token; nothing is written before `take`."""
        self.token = uuid.uuid4().hex
        self._engine, self._folder = engine, home / LOCKS
        self._lock = FileLock(self._folder / self.token, thread_local=False)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = False

    @property
    def taken(self) -> bool:
        """Whether the process is known as alive."""
        return self._thread is not None

    def take(self) -> None:
        """Let the process be known as alive from here on."""
        if self.taken:
            return
        self._folder.mkdir(exist_ok=True)
        # Before the row: a row whose lock is free is a dead process's.
        try:
            self._lock.acquire(timeout=0)
        except (OSError, NotImplementedError):  # a file system without locks: the lease alone tells
            (self._folder / self.token).unlink(missing_ok=True)
        values = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": boot(),
            "expires": now(self._engine) + LEASE_SECONDS,
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(Owner).values(**values))
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            # A database that is locked for long, or away, is asked again: the lease lasts longer.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                self._lost = not self._renewed()
            if self._lost:
                return

    def _renewed(self) -> bool:
        """Whether the lease had not run out, and is as new."""
        clock = now(self._engine)
        mine = (col(Owner.token) == self.token, col(Owner.expires) > clock)
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.update(Owner).where(*mine).values(expires=clock + LEASE_SECONDS)
            )
            return done.rowcount == 1

    def check(self, number: int | None) -> None:
        """Refuse to go on with a run where the lease is known to be lost.

        Raises:
            LostRunError: it is.
        """
        if self._lost:
            raise LostRunError(number)

    def confirm(self, number: int | None) -> None:
        """Ask the database whether the run is this process's still, and for as long again.

        Raises:
            LostRunError: it is not.
        """
        with self._engine.connect() as connection:
            query = sa.select(col(Run.id)).where(col(Run.id) == number, *self.owned())
            owns = connection.execute(query).first() is not None
        if not (owns and self._renewed()):
            self._lost = True
            raise LostRunError(number)

    def owned(self) -> tuple[sa.ColumnElement[bool], ...]:
        """What is true of a run that is this process's: part of every change of one."""
        alive = sa.select(col(Owner.token)).where(
            col(Owner.token) == self.token, col(Owner.expires) > now(self._engine)
        )
        running = col(Run.status) == Status.running.value
        return (running, col(Run.owner) == self.token, sa.exists(alive))

    def release(self) -> None:
        """Say that the process ends; it owns nothing any more."""
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join()
        self._thread = None
        # Where the database is away, the lease ends by itself; the lock tells of it at once.
        with contextlib.suppress(sa.exc.SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(sa.delete(Hold).where(col(Hold.owner) == self.token))
            connection.execute(sa.delete(Owner).where(col(Owner.token) == self.token))
        self._lock.release()
        (self._folder / self.token).unlink(missing_ok=True)


def bury(engine: Engine, home: Path) -> int:
    """Record the runs of dead processes as interrupted; returns how many."""
    clock = now(engine)
    with engine.begin() as connection:
        owners = connection.execute(
            sa.select(col(Owner.token), (col(Owner.expires) - clock), col(Owner.boot))
        ).all()
        dead = [token for token, left, its_boot in owners if is_dead(home, token, left, its_boot)]
        known = sa.exists(sa.select(col(Owner.token)).where(col(Owner.token) == col(Run.owner)))
        orphaned = sa.or_(col(Run.owner).in_(dead), sa.not_(known))
        buried = connection.execute(
            sa.update(Run)
            .where(col(Run.status) == Status.running.value, orphaned)
            .values(
                status=Status.interrupted.value,
                finished_at=dt.datetime.now(dt.UTC),
                error="its process ended without a word",
            )
        )
        connection.execute(sa.delete(Owner).where(col(Owner.token).in_(dead)))
        owned = sa.select(col(Owner.token))
        connection.execute(sa.delete(Hold).where(col(Hold.owner).not_in(owned)))
    for token in dead:
        (home / LOCKS / token).unlink(missing_ok=True)
    return buried.rowcount
