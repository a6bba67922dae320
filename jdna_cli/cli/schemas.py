"""JSON Schemas of the files that people write, for editors: experiments, projects, tasks."""

from __future__ import annotations

from typing import Any

from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, PruneSpec, Spec

Table = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def of(name: str) -> Table:
    """The schema of a kind of file: experiment, project, or task."""
    made: dict[str, Any] = {"experiment": _experiment, "project": _project, "task": _task}
    return {"$schema": DIALECT, **made[name]()}


NAMES = ("experiment", "project", "task")


def _fields(*specs: type[Spec], without: frozenset[str] = frozenset()) -> Table:
    """Every setting of some requests."""
    found: Table = {}
    for spec in specs:
        found |= spec.model_json_schema()["properties"]
    return {
        name: {k: v for k, v in schema.items() if k != "default"}
        for name, schema in found.items()
        if name not in without
    }


def _closed(properties: Table) -> Table:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _experiment() -> Table:
    from jdna_cli.sweeps.experiment import Experiment

    settings = _fields(FinetuneSpec, EvalSpec, PruneSpec)
    settings["mixed_precision"] = {"anyOf": [settings["mixed_precision"], {"const": "auto"}]}
    after = _fields(EvalSpec, InterpolateSpec, without=frozenset({"model", "other", "task"}))
    schema = Experiment.model_json_schema()
    schema["$defs"] = {**schema.get("$defs", {}), **after, **settings}
    one = {name: {"$ref": f"#/$defs/{name}"} for name in settings if name != "seed"}
    # A list stands for one table each.
    several = {name: _or_list(name) for name in settings if name != "seed"}
    then = {name: _or_list(name) for name in after}
    then["command"] = {"enum": ["eval", "interpolate"]}
    schema["properties"] |= {
        "fixed": _closed(one),
        "axes": _closed({name: {"type": "array", "items": ref} for name, ref in one.items()}),
        "task": {"type": "object", "additionalProperties": _closed(one)},
        "levels": {"type": "array", "items": _closed(several)},
        "ways": {"type": "array", "items": _closed(several)},
        "then": {"type": "array", "items": {**_closed(then), "required": ["command"]}},
    }
    return schema


def _or_list(name: str) -> Table:
    ref = {"$ref": f"#/$defs/{name}"}
    return {"anyOf": [ref, {"type": "array", "items": ref}]}


def _project() -> Table:
    recipe = _fields(FinetuneSpec, without=frozenset({"model", "task"}))
    place = {"type": "string"}
    return {
        "title": "jdna.toml",
        **_closed({"home": place, "data_dir": place, "db": place, "recipe": _closed(recipe)}),
    }


def _task() -> Table:
    from jdna_cli.tasks.task import Task

    schema = Task.model_json_schema()
    text, names = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    schema["properties"] |= {
        "metric": text,
        "source": _closed({"hub": text, "config": text, "revision": text, "files": text,
                           "generated": text, "splits": names, "columns": names}),
    }  # fmt: skip
    # What a file does not say follows from its name, its kind, and its files.
    schema["required"] = ["kind"]
    return schema
