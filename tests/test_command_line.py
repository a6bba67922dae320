"""A request, its command line, and the request that this line makes are the same."""

import shlex
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jdna_cli import command_line
from jdna_cli.runs import evaluate, finetune, harness, interpolate, prune
from jdna_cli.specs import EvalSpec, FinetuneSpec, HarnessSpec, InterpolateSpec, PruneSpec
from tests.conftest import run_jdna

LETTERS = st.characters(
    codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), exclude_characters=","
)
NAMES = st.text(LETTERS, max_size=8).map(lambda name: f"org/{name}.")
JOBS = {
    PruneSpec: (prune, "prune"),
    FinetuneSpec: (finetune, "finetune"),
    EvalSpec: (evaluate, "evaluate"),
    HarnessSpec: (harness, "harness"),
    InterpolateSpec: (interpolate, "interpolate"),
}


def values_of(name: str, kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field, some of them out of range."""
    if name == "pattern":
        return st.sampled_from([None, "2:4", "4:8"])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(NAMES, max_size=2).map(tuple)
    if get_origin(kind) is Annotated:
        return values_of(name, get_args(kind)[0])
    if get_args(kind):
        return st.one_of(*(values_of(name, one) for one in get_args(kind)))
    return {
        str: NAMES,
        bool: st.booleans(),
        int: st.sampled_from([0, 1, 2, 3, 4, 5, 8, 64, 4096]),
        float: st.sampled_from([0.0, 1e-7, 0.1, 0.25, 0.5, 0.9, 1.0, 3.5]),
        type(None): st.none(),
    }[kind]


def requests(spec):
    """Requests of a kind that it admits: some fields as they are by default, some not."""
    fields = {name: values_of(name, field.annotation) for name, field in spec.model_fields.items()}
    needed = {n: f for n, f in fields.items() if spec.model_fields[n].is_required()}
    rest = {n: st.one_of(st.none(), f) for n, f in fields.items() if n not in needed}
    return st.fixed_dictionaries(needed, optional=rest).map(lambda v: admitted(spec, v))


def admitted(spec, values):
    """The request, without the fields that it refuses."""
    while True:
        try:
            return spec(**values)
        except ValidationError as error:
            wrong = error.errors()[0]
            names = wrong["loc"] or [n for n in values if not spec.model_fields[n].is_required()]
            if not wrong["loc"] and not names:
                return None
            if spec.model_fields[names[0]].is_required():
                return None
            values = {n: v for n, v in values.items() if n != names[-1 if not wrong["loc"] else 0]}


@pytest.mark.parametrize("kind", JOBS)
def test_a_request_comes_back_from_its_command_line(kind, tmp_path, monkeypatch):
    seen: list[dict[str, Any]] = []
    module, name = JOBS[kind]

    def look(workspace, values, *rest):
        seen.append(values)
        raise SystemExit(0)

    monkeypatch.setattr(module, name, look)

    @settings(max_examples=40, deadline=None)
    @given(requests(kind))
    def comes_back(spec):
        if spec is None or (kind is HarnessSpec and spec.shots == 0):
            return
        line = command_line.of_recorded(kind.kind, spec.model_dump(mode="json"))
        seen.clear()
        found = run_jdna(*shlex.split(line)[1:], "--home", tmp_path)
        assert found.code == 0, (line, found.err)
        values = {n: v for n, v in seen[0].items() if v is not None}
        if kind is HarnessSpec:  # there no shots means as many as the harness's task says
            values["shots"] = values["shots"] or None
        assert kind(**values) == spec, line

    comes_back()
