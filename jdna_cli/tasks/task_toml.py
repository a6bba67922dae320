"""Any task as TOML."""

from __future__ import annotations

from typing import Any

from jdna_cli.tasks.task import FileSource, HubSource, Task


def write(task: Task) -> str:
    """The task as TOML, such that `read` gives an equal one (under another name)."""
    import tomli_w

    values = task.model_dump(mode="python", exclude_defaults=True, exclude={"human", "source"})
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    tables = {key: plain.pop(key) for key in [*plain] if isinstance(plain[key], dict)}
    source = task.source
    if isinstance(source, HubSource):
        named: dict[str, Any] = {
            "hub": source.path,
            "config": source.config,
            "revision": source.revision,
        }
        named |= {"splits": dict(source.splits), "columns": dict(source.columns)}
        tables["source"] = {key: value for key, value in named.items() if value}
    elif isinstance(source, FileSource):
        tables["source"] = {"files": str(source.folder)}
    elif source is not None:
        tables["source"] = {"generated": task.name}
    if task.human:
        tables["human"] = {"value": task.human.value, "source": task.human.source}
    return tomli_w.dumps({**plain, **tables})
