"""The project file, `jdna.toml`: where runs and data are, and the recipe that is usual here.

```toml
home = "runs"            # paths are relative to the file
data_dir = "../data"
db = "postgresql+psycopg://…"

[recipe]                 # of finetune, and of advise where it trains
epochs = 2
lr = 1e-4
```

It is looked for in the folder where a command is given, then in those above. Flags and the JDNA_*
variables win.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import registry
from jdna_cli.errors import RequestError
from jdna_cli.specs import FinetuneSpec

NAME = "jdna.toml"
_PLACES = ("home", "data_dir", "db")
_RECIPE = "recipe"
_TRAINING = ("finetune", "advise")


@dataclass(frozen=True)
class Project:
    """A project file and what it says, by the names of options."""

    path: Path
    places: dict[str, str]
    recipe: dict[str, Any]

    @property
    def words(self) -> str:
        """What it is about."""
        names = [*self.places, *(f"recipe.{name}" for name in self.recipe)]
        return f"{self.path}: {', '.join(names) or 'says nothing'}"

    def defaults(self, command: Any, name: str = "") -> dict[str, Any]:
        """Defaults of a command's options, and of those below it, as click takes them."""
        if below := getattr(command, "commands", None):
            return {key: self.defaults(own, key) for key, own in below.items()}
        own = {**self.places, **(self.recipe if name in _TRAINING else {})}
        return {p.name: own[p.name] for p in command.params if p.name in own}


def find(start: Path) -> Project | None:
    """The nearest project file, from a folder upwards.

    Raises:
        RequestError: it is wrong; names the file and the key.
    """
    for folder in (start, *start.parents):
        path = folder / NAME
        if path.is_file():
            return read(path)
    return None


def read(path: Path) -> Project:
    """Read and check a project file.

    Raises:
        RequestError: it is wrong; names the file and the key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path}: {error}") from None
    recipe = table.pop(_RECIPE, {})
    if not isinstance(recipe, dict):
        raise RequestError(f"{path}: {_RECIPE} is a table: [recipe]")
    _check(path, "setting", table, (*_PLACES, _RECIPE))
    fields = set(FinetuneSpec.model_fields) - {"model", "task"}
    _check(path, f"[{_RECIPE}] setting", recipe, fields)
    for name, value in table.items():
        if not isinstance(value, str):
            raise RequestError(f"{path}: {name} is text, not {value!r}")
    places = {name: _from(path, value) if name != "db" else value for name, value in table.items()}
    return Project(path, places, recipe)


def _check(path: Path, what: str, table: Mapping[str, Any], known: Any) -> None:
    for key in table:
        try:
            registry.check(what, key, known)
        except RequestError as error:
            raise RequestError(f"{path}: {error}") from None


def _from(path: Path, place: str) -> str:
    """A path of the file, as it is called from here."""
    found = path.parent / Path(place).expanduser()
    return os.path.relpath(found)
