"""A request as the command line that makes it: for pages, schedulers, and to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from jdna_cli.specs import (
    EvalSpec,
    ExportSpec,
    FinetuneSpec,
    HarnessSpec,
    InterpolateSpec,
    PruneSpec,
    ScanSpec,
    Spec,
)

# Where a command's own default is not the field's: left out, they are as in the fine-tuning, as
# the task or the criterion says.
_SETTLED = frozenset({"regime", "scope", "max_length", "mixed_precision", "seed", "split", "shots"})


def words(kind: str, values: Mapping[str, Any]) -> list[str]:
    """The words of `jdna KIND` with each value that is given; None and False are not.

    Args:
        kind: prune, finetune, eval, interpolate, scan, or export.
        values: fields of its spec, by name, and options that are no fields, as `home`.
    """
    words = ["jdna", kind, str(values["model"])]
    words += [str(values["other"])] if values.get("other") is not None else []
    for name, value in values.items():
        if name in ("model", "other") or value is None:
            continue
        renamed = name == "batch_size" and kind in ("eval", "interpolate", "scan")
        flag = f"--{'eval-batch-size' if renamed else name.replace('_', '-')}"
        if name == "sequential" and not value:
            words.append("--no-sequential")
        elif name == "sparsities":
            words += [flag, ",".join(f"{number:g}" for number in value)]
        elif name == "harness":
            words += [flag, ",".join(value)]
        elif isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, (list, tuple)):
            words += [word for item in value for word in (flag, str(item))]
        else:
            words += [flag, str(value)]
    return words


def of_recorded(kind: str, stored: Mapping[str, Any]) -> str:
    """The line that asks for what a run was asked for, without what is so by default.

    Args:
        kind: of the run.
        stored: its column `spec`.
    """
    spec = _class_of(kind, stored)
    fields = spec.model_fields
    # Runs of earlier versions may hold fields that are no more.
    given = {
        name: value
        for name, value in stored.items()
        if name in fields and _differs(name, value, fields[name].default)
    }
    chosen = given.get("sparsity") is not None or given.get("pattern") is not None
    if not chosen and "scope" in given and given["scope"] == fields["scope"].default:
        del given["scope"]  # no scores competed
    return shlex.join(words(kind, given))


def _differs(name: str, value: Any, default: Any) -> bool:
    if isinstance(value, list):
        value = tuple(value)
    return name in _SETTLED or value != default


def _class_of(kind: str, stored: Mapping[str, Any]) -> type[Spec]:
    if "harness" in stored:
        return HarnessSpec
    known: dict[str, type[Spec]] = {
        one.kind: one
        for one in (PruneSpec, FinetuneSpec, EvalSpec, InterpolateSpec, ScanSpec, ExportSpec)
    }
    return known[kind]
