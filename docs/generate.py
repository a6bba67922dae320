"""Writes the pages that are made from the code: `make docs`. A test checks that they are fresh."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Made from the code by `make docs`; do not edit. -->\n"


def _text(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _values(kind: Any) -> str:
    """What may be given for a type."""
    members = [m for m in get_args(kind) if m is not NoneType] or [kind]
    first = members[0]
    if isinstance(first, type) and issubclass(first, Enum):
        return "\\|".join(str(member.value) for member in first)
    names = {float: "NUMBER", int: "NUMBER", str: "TEXT", Path: "PATH"}
    return names.get(first, "TEXT")


def _row(name: str, parameter: inspect.Parameter, annotation: Any) -> str:
    kind, info = get_args(annotation)
    default = parameter.default
    shown = "" if default in (None, False, inspect.Parameter.empty) else f"`{default}`"
    if isinstance(info, typer.models.ArgumentInfo):
        flag = info.metavar or name.upper()
    else:
        # Typer keeps the first name of an annotated option where a default would be.
        named = [info.default] if isinstance(info.default, str) else list(info.param_decls or ())
        flag = named[0] if named else f"--{name.replace('_', '-')}"
        if kind is not bool:
            flag += f" {info.metavar or _values(kind)}"
    text = _text(info.help or "") + (f" Also `{info.envvar}`." if info.envvar else "")
    return f"| `{flag}` | {shown} | {text} |"


def _command(name: str, function: Callable[..., None]) -> list[str]:
    lines = [f"## `jdna {name}`", "", " ".join((function.__doc__ or "").split()), ""]
    lines += ["| | default | |", "|---|---|---|"]
    hints = get_type_hints(function, include_extras=True)
    for parameter_name, parameter in inspect.signature(function).parameters.items():
        lines.append(_row(parameter_name, parameter, hints[parameter_name]))
    return [*lines, ""]


def commands() -> str:
    """Every command with every option."""
    from jdna_cli.cli.app import app

    lines = [NOTE, "# Commands", "", "Exit code 0: done; 1: the run failed; 2: the request was"]
    lines += ["wrong, and one line says what would be right; 130: interrupted.", ""]
    for command in app.registered_commands:
        lines += _command(str(command.name), command.callback)
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            lines += _command(f"{group.name} {command.name}", command.callback)
    return "\n".join(lines)


def database() -> str:
    """Every table and view, column by column."""
    from sqlmodel import SQLModel

    from jdna_cli.store import tables
    from jdna_cli.store.views import VIEWS

    lines = [
        NOTE,
        "# The database",
        "",
        "SQLite at `<home>/jdna.db`, or any database by `--db URL`. Read it with any tool:",
        "",
        "```",
        'sqlite3 jdna-runs/jdna.db "SELECT task, sparsity, regime, relative FROM performance"',
        'jdna db query "SELECT * FROM performance_drop ORDER BY difficulty, sparsity"',
        "```",
        "",
        "Scores are fractions. Times are UTC. What was not measured is empty, never zero.",
        "",
        "# Views",
        "",
    ]
    for view in VIEWS:
        lines += [f"## `{view.name}`", "", view.description, "", "| column | |", "|---|---|"]
        lines += [f"| `{name}` | {_text(text)} |" for name, text in view.columns.items()]
        lines.append("")
    lines += ["# Tables", ""]
    assert tables.Run.metadata is SQLModel.metadata
    for table in SQLModel.metadata.sorted_tables:
        lines += [f"## `{table.name}`", "", table.info["description"], ""]
        lines += ["| column | type | |", "|---|---|---|"]
        for column in table.columns:
            kind = f"{column.type}{'' if column.nullable else ', never empty'}"
            target = "".join(f" → `{key.target_fullname}`" for key in column.foreign_keys)
            lines.append(f"| `{column.name}` | {kind} | {_text(column.doc)}{target} |")
        lines.append("")
    return "\n".join(lines)


def tasks() -> str:
    """Every task with its metric, human score and source."""
    from jdna_cli.tasks import HubSource, all_tasks

    lines = [NOTE, "# Tasks", "", "Scores are of the main metric. With `--data-dir DIR`, files at"]
    lines += ["`DIR/<task>/<split>.jsonl` are used in place of the hub.", ""]
    lines += ["| task | question | columns | metrics (main first) | human | examples from |"]
    lines += ["|---|---|---|---|---|---|"]
    for task in all_tasks().values():
        source = task.source
        place = f"{source.path} {source.config}" if isinstance(source, HubSource) else "generated"
        human = f"{task.human.value:.1%} ({task.human.source})" if task.human else ""
        columns = ", ".join((*task.texts, task.label))
        cells = (f"`{task.name}`", task.description, columns, ", ".join(task.metrics), human, place)
        lines.append(f"| {' | '.join(map(_text, cells))} |")
    return "\n".join([*lines, ""])


PAGES = {"commands.md": commands, "database.md": database, "tasks.md": tasks}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
