"""What a home holds that no run needs, and whether what runs wrote is still what they wrote."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from jdna_cli.files import sha256
from jdna_cli.store.identity import REMEMBERED
from jdna_cli.store.ledger import Ledger
from jdna_cli.store.locks import LOCKS
from jdna_cli.store.tables import File, Owner, Run, Status

OLD_SECONDS = 3600.0  # since a shared file's unfinished copy was written to; then nobody writes it
_CACHES = (".converted", ".unpacked", ".tokens", "models")


@dataclass(frozen=True)
class Leftover:
    """Something that no finished, running, or resumable run needs."""

    path: Path
    bytes: int
    why: str


def leftovers(ledger: Ledger) -> list[Leftover]:
    """All that may go from a home, with the reason."""
    ledger.recognise_dead()
    with Session(ledger.engine) as session:
        rows = session.exec(select(Run.id, Run.status, Run.fingerprint)).all()
        owners = set(session.exec(select(Owner.token)).all())
    status = {number: state for number, state, _ in rows if number is not None}
    finished = {name for _, state, name in rows if state == Status.finished.value}
    # A run that was cut off is not taken up where another has come to the end.
    resumable = {
        number
        for number, state, name in rows
        if state in (Status.interrupted.value, Status.failed.value) and name not in finished
    }
    running = {number for number, state in status.items() if state == Status.running.value}
    leftovers: list[Leftover] = []
    for path in sorted(ledger.home.iterdir()):
        if why := _why(path, status, running, resumable):
            leftovers.append(Leftover(path, _size(path), why))
    for lock in sorted((ledger.home / LOCKS).glob("*")):
        if lock.name not in owners:
            leftovers.append(Leftover(lock, _size(lock), "lock of a process that has ended"))
    for cache in _CACHES:
        for part in sorted((ledger.home / cache).glob("*part-*")):
            if time.time() - part.stat().st_mtime > OLD_SECONDS:
                leftovers.append(Leftover(part, _size(part), "an unfinished copy"))
    return leftovers


def _why(
    path: Path, status: dict[int, str], running: set[int], resumable: set[int | None]
) -> str | None:
    """Why a file of the home may go; None where it may not."""
    if part := re.fullmatch(r"\.(\d+)\.(?:part|old)-.*", path.name):
        return None if int(part[1]) in running else "of a run that was cut off while it wrote"
    if work := re.fullmatch(r"\.work-(\d+)", path.name):
        needed = int(work[1]) in running | resumable
        return None if needed else "checkpoints that no run goes on from"
    if path.name.isdigit() and path.is_dir():
        state = status.get(int(path.name))
        if state is None:
            return "of a run that the database does not know"
        kept = state in (Status.finished.value, Status.running.value)
        return None if kept else f"of a run that {state}"
    return None


def remove(found: list[Leftover]) -> None:
    """Delete what was found."""
    for one in found:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    return path.lstat().st_size


@dataclass(frozen=True)
class Verified:
    """What became of the files of one run."""

    run: int
    files: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all are as they were written, or were taken away on purpose."""
        return not self.problems


def verify(ledger: Ledger, numbers: list[int]) -> list[Verified]:
    """Read all files of finished runs, of all by default, and compare them with what was recorded.

    A run that was recorded before there were hashes has none: it is told so.

    Raises:
        RequestError: there is no run of such a number.
    """
    chosen = [ledger.get(number) for number in numbers]
    if not numbers:
        with Session(ledger.engine) as session:
            query = select(Run).where(Run.status == Status.finished.value).order_by(col(Run.id))
            chosen = list(session.exec(query))
    done = [_verified(ledger, run) for run in chosen]
    now = dt.datetime.now(dt.UTC)
    right = [one.run for one in done if one.ok and one.files]
    with ledger.engine.begin() as connection:
        marked = sa.update(Run).where(col(Run.id).in_(right))
        connection.execute(marked.values(verified_at=now))
    return done


def _verified(ledger: Ledger, run: Run) -> Verified:
    assert run.id is not None
    if run.status != Status.finished.value:
        return Verified(run.id, 0, (f"it is {run.status}",))
    with Session(ledger.engine) as session:
        written = session.exec(
            select(File).where(File.run == run.id).order_by(col(File.name))
        ).all()
    if not written:
        return Verified(run.id, 0, ("it was recorded before hashes were: nothing to compare",))
    folder = ledger.folder(run)
    released = (folder / REMEMBERED).is_file()
    problems = []
    for file in written:
        path = folder / file.name
        if not path.is_file():
            weights = file.name.endswith(".safetensors")
            if not (released and weights):
                problems.append(f"{file.name} is gone")
        elif path.stat().st_size != file.size or sha256(path) != file.sha256:
            problems.append(f"{file.name} is not what was written")
    return Verified(run.id, len(written), tuple(problems))
