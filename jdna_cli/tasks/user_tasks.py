"""Tasks as TOML: a user's own are read from it, and any task can be written in that form."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jdna_cli import registry
from jdna_cli.errors import RequestError
from jdna_cli.tasks import datasets, reading
from jdna_cli.tasks.built_in import all_tasks
from jdna_cli.tasks.task import KINDS, FileSource, GeneratedSource, HubSource, Task

_SOURCES = 'give hub = "OWNER/NAME" or files = "FOLDER" under [source]'


def read(path: Path) -> Task:
    """The task that a TOML file describes.

    Paths in it are relative to its folder. Its name is its own `name`, or that of the file.

    Raises:
        RequestError: names the file and the key that is wrong.
    """
    try:
        found = tomllib.loads(reading.text_of(path).replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"--task: {path} is not TOML: {error}") from None
    except RecursionError:
        raise RequestError(f"--task: {path}: values are nested too deeply") from None
    values: dict[str, Any] = {"name": path.stem, **found}
    if values["name"] in all_tasks():
        raise RequestError(f"{path}: name: {values['name']!r} is a built-in task, choose another")
    values["source"] = _source(values.get("source"), path)
    values.setdefault("description", f"from {path.name}")
    if (single := values.pop("metric", None)) is not None:
        values["metrics"] = [single]
    elif values.get("kind") in KINDS:
        values.setdefault("metrics", KINDS[values["kind"]].metrics[:1])
    if isinstance(values["source"], FileSource) and "splits" not in values:
        values["splits"] = _splits(values["source"], path)
    try:
        return Task(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = sorted({*Task.model_fields, "metric"})
            registry.check(f"key in {path},", key, known)
        raise RequestError(f"{path}: {f'{key}: ' if key else ''}{message}") from None


def _source(found: Any, path: Path) -> HubSource | FileSource | GeneratedSource | None:
    if found is None:
        return None
    if not isinstance(found, dict) or len({"hub", "files", "generated"} & set(found)) != 1:
        raise RequestError(f"{path}: source: {_SOURCES}")
    tables = {"splits", "columns"} if "hub" in found else set()
    known = {"hub", "config", "revision", *tables} if "hub" in found else {"files", "generated"}
    if extra := set(found) - known:
        raise RequestError(f"{path}: source.{min(extra)}: no such key, {_SOURCES}")
    for key, value in found.items():
        if not isinstance(value, dict if key in tables else str):
            raise RequestError(f"{path}: source.{key}: not {value!r}")
    if "hub" in found:
        rest = {key: value for key, value in found.items() if key != "hub"}
        return HubSource(found["hub"], **rest)
    if "generated" in found:
        built_in = all_tasks().get(found["generated"])
        if built_in is None or not isinstance(built_in.source, GeneratedSource):
            raise RequestError(
                f"{path}: source.generated: nothing generates {found['generated']!r}"
            )
        return built_in.source
    folder = (path.parent / found["files"]).resolve()
    if not folder.is_dir():
        raise RequestError(f"{path}: source.files: {folder} is no folder")
    return FileSource(folder)


def _splits(source: FileSource, path: Path) -> tuple[str, ...]:
    names = {file.stem for file in source.folder.iterdir() if file.suffix in datasets.SUFFIXES}
    if not names:
        raise RequestError(
            f"{path}: source.files: {source.folder} has no .jsonl, .csv or .tsv file"
        )
    usual = [name for name in ("train", "validation", "test") if name in names]
    return (*usual, *sorted(names - set(usual)))
