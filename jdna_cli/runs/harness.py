"""From what was asked of the LM evaluation harness to its spec, its model, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jdna_cli import specs
from jdna_cli.runs import precision
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import (
    Execution,
    OpenWorkspace,
    RecordedRun,
    Request,
    run,
)
from jdna_cli.specs import HarnessSpec
from jdna_cli.store.ledger import NewRun

if TYPE_CHECKING:
    from jdna_cli.pipelines.harness import HarnessTasks


@dataclass(frozen=True)
class HarnessRequest(Request):
    """A measurement by the LM evaluation harness of a model that was found."""

    workspace: OpenWorkspace
    spec: HarnessSpec
    tasks: HarnessTasks
    located: Located
    fingerprint: str

    def prepare(self) -> Execution:
        """The harness's measurements."""
        from jdna_cli.pipelines import harness

        spec, tasks, located = self.spec, self.tasks, self.located
        recipe = {
            "kind": "harness",
            "model": located.recipe,
            "data": tasks.identity,
            "spec": spec.determining(frozenset({"seed"})),
        }
        columns = {
            **located.columns,
            "task": f"lm-eval:{','.join(tasks.names)}",
            "metric": tasks.metric,
            "shots": spec.shots,
            "data_identity": tasks.identity,
            "recipe": specs.digest(recipe),
        }
        return Execution(
            NewRun(spec, self.fingerprint, columns, located.number),
            lambda context: harness.evaluate(spec, tasks, located.source, context),
        )


def resolve(workspace: OpenWorkspace, values: Mapping[str, Any]) -> HarnessRequest:
    """The request by content: of what was asked, its model, and the harness's tasks.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    from jdna_cli.pipelines import harness

    located = locate(workspace, values["model"])
    asked = {**values, "shots": values.get("shots") or None, "seed": values.get("seed") or 0}
    spec = specs.build(HarnessSpec, precision.dtype_settled(asked, located.source))
    harness.check(spec, located.source)
    tasks = harness.find(spec)
    fingerprint = spec.fingerprint({"model": located.source.identity, "data": tasks.identity})
    return HarnessRequest(workspace, spec, tasks, located, fingerprint)


def harness(workspace: OpenWorkspace, values: Mapping[str, Any]) -> RecordedRun:
    """Measure a model on tasks of the LM evaluation harness."""
    return run(resolve(workspace, values))
