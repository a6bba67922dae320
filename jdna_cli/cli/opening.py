"""From the options that say where to an open workspace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jdna_cli.compute import processes
from jdna_cli.errors import RequestError
from jdna_cli.files import network_file_system
from jdna_cli.store import schema

if TYPE_CHECKING:
    from jdna_cli.runs.recording import OpenWorkspace


def url_of(home: Path, url: str | None) -> str:
    """The database of these options."""
    return url or schema.default_url(home)


def require_database(home: Path, url: str | None) -> None:
    """Refuse to make an empty database only to find nothing in it."""
    if url is None and not (home / "jdna.db").is_file():
        raise RequestError(f"there is no database at {home / 'jdna.db'}: nothing has been run yet")


@contextlib.contextmanager
def open_workspace(
    home: Path,
    db: str | None,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    allow_pickle: bool = False,
    several: bool = False,
) -> Iterator[OpenWorkspace]:
    """The workspace of a command's options; its ledger is closed at the end."""
    from jdna_cli.console import Terminal
    from jdna_cli.runs.recording import OpenWorkspace
    from jdna_cli.store.ledger import Ledger

    processes.check(may_be_several=several)
    if data_dir is not None and not data_dir.is_dir():
        raise RequestError(f"--data-dir: {data_dir} is no folder")
    terminal = Terminal()
    terminal.phase("starting")
    try:
        if db is None and (kind := network_file_system(home)):
            terminal.say(
                f"--home: {home} is on a network file system ({kind}), on which SQLite may lose "
                "what several machines write: use one machine at a time, or --db "
                "postgresql+psycopg://…"
            )
        with contextlib.closing(Ledger(home, db)) as ledger:
            yield OpenWorkspace(ledger, data_dir, force, resume, allow_pickle, terminal)
    finally:
        terminal.phase("")
