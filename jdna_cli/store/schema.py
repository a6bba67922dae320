"""Where the migrations are, and the newest schema among them. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from jdna_cli.errors import RequestError


def migrations_folder() -> Path:
    """In the package of a wheel, else at the top of the source tree."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def head() -> str:
    """The newest schema that this jdna knows. Revisions are numbers of four digits."""
    return max(path.name[:4] for path in (migrations_folder() / "versions").glob("[0-9]*.py"))


def default_url(home: Path) -> str:
    """The database of a home folder.

    Raises:
        RequestError: the folder's name means something else in a URL.
    """
    if "?" in str(home):
        raise RequestError(f"--home: {home}: a database's folder may not have a ? in its name")
    return f"sqlite:///{home / 'jdna.db'}"
