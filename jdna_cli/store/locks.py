"""Whether a process that owns something lives: by its lock here, and by the database's clock."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS = ".owners"  # folder of the locks, in the home
# Seconds since 1970 by the database's clock, which all its processes share.
SQLITE_CLOCK = "((julianday('now') - 2440587.5) * 86400.0)"
POSTGRESQL_CLOCK = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def boot() -> str:
    """What tells this run of the operating system's kernel from all others, if anything does."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"host:{socket.gethostname()}"


def is_dead(home: Path, token: str | None, expires_in: float | None, its_boot: str | None) -> bool:
    """Whether the process that owns something has died, as far as can be told from here.

    Args:
        home: the folder that the process's lock is in.
        token: of the process; None where a run was begun before there were leases.
        expires_in: seconds that its lease lasts still; None where it has none.
        its_boot: the kernel that it runs on.
    """
    if token is None or expires_in is None or expires_in <= 0:
        return True
    path = home / LOCKS / token
    if its_boot != boot() or not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True
