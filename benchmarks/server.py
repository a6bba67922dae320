"""A PostgreSQL server for as long as it is needed, where Debian's package is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def programs() -> Path | None:
    """The folder of its programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def started(*, safe: bool = False) -> Iterator[Callable[[], str]]:
    """Start one; yields a function that makes an empty database and returns its URL.

    With `safe`, what was committed is flushed to the disk, as it would be in earnest.
    """
    import psycopg

    where = programs()
    assert where is not None
    # The path of a socket is short, and the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="jdna-pg-", dir="/tmp"))
    before: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        before = ["runuser", "-u", "postgres", "--"]

    def program(name: str, *args: str) -> None:
        command = [*before, str(where / name), *args]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp")

    data, log = str(folder / "data"), str(folder / "log")
    program("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
    settings = {"listen_addresses": "''", "max_connections": 100,
                "unix_socket_directories": folder, "fsync": "on" if safe else "off"}  # fmt: skip
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    program("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
    made: list[str] = []

    def database() -> str:
        made.append(f"jdna{len(made)}")
        with psycopg.connect(host=str(folder), user="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")
        return f"postgresql+psycopg://postgres@/{made[-1]}?host={folder}"

    try:
        yield database
    finally:
        program("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
