"""From what was asked of a scan to its spec, its record, and the allocation that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.results import Outcome
from jdna_cli.runs import conditions, evaluate, prune
from jdna_cli.runs.evaluate import EvalRequest
from jdna_cli.runs.recording import Execution, OpenWorkspace, RecordedRun, Request, run
from jdna_cli.sparsity import allocation, criteria
from jdna_cli.sparsity.targets import Target
from jdna_cli.specs import EvalSpec, PruneSpec, ScanSpec
from jdna_cli.store.ledger import NewRun
from jdna_cli.tasks.task import Task

FILE = "allocation.toml"


@dataclass(frozen=True)
class ScanRequest(Request):
    """A scan of a model that was found."""

    workspace: OpenWorkspace
    spec: ScanSpec
    measured: EvalRequest
    fingerprint: str

    def check(self) -> None:
        """Check the model, how it is measured, and that it can be pruned."""
        from jdna_cli.pipelines import checks
        from jdna_cli.pipelines import prune as pruning

        source = self.measured.located.source
        checks.check_measuring(self.spec.eval_spec(), self.measured.task, source)
        pruning.check_prune(self.spec.prune_spec(), source, self.workspace.data_dir)

    def prepare(self) -> Execution:
        """The measurements of each matrix pruned alone."""
        from jdna_cli.pipelines import scan

        spec, task = self.spec, self.measured.task
        located = self.measured.located
        columns = {
            "model": located.columns["model"],
            "model_identity": located.columns["model_identity"],
            "data_identity": self.measured.data,
            "rule": self.measured.rule,
            "criterion": criteria.load(spec.criterion).name,
            "scope": spec.scope,
            **_task_columns(self, task),
        }
        return Execution(
            NewRun(spec, self.fingerprint, columns, located.number),
            lambda context: scan.scan(spec, task, located.source, context),
        )


def _task_columns(request: ScanRequest, task: Task) -> dict[str, Any]:
    spec, data_dir = request.spec.eval_spec(), request.workspace.data_dir
    return {
        **conditions.task_columns(task, spec, spec.split, data_dir),
        **conditions.columns(spec, task),
    }


def resolve(workspace: OpenWorkspace, values: Mapping[str, Any]) -> ScanRequest:
    """The request by content: of what was asked, its model, criterion, and examples.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    asked = dict(values)
    measured = evaluate.resolve(
        workspace, {n: v for n, v in asked.items() if n in EvalSpec.model_fields}
    )
    criterion = criteria.load(asked.get("criterion") or "magnitude")
    if asked.get("scope") is None:
        asked["scope"] = criterion.scope if criterion.scope != "global" else "layer"
    own = measured.spec.model_dump()
    settled = {n: v for n, v in own.items() if n in ScanSpec.model_fields}
    spec = specs.build(ScanSpec, {**asked, **settled})
    checked = prune.spec_of(
        PruneSpec, spec.prune_spec().model_dump()
    )  # refuses settings that nothing reads
    spec = spec.model_copy(update={"pruning_seed": checked.pruning_seed})
    located = measured.located
    identities = {
        **prune.identities(workspace, checked, located.source),
        "data": measured.data,
        "rule": str(measured.rule),
    }
    return ScanRequest(workspace, spec, measured, spec.fingerprint(identities))


def scan(
    workspace: OpenWorkspace, values: Mapping[str, Any], out: Path | None = None
) -> tuple[RecordedRun, Path]:
    """Scan a model, or find that it was done; write the allocation of its total.

    Args:
        workspace: where it is recorded.
        values: what was asked, by the fields of `ScanSpec`.
        out: where the allocation goes, besides the run's folder.

    Returns:
        The run, and the file of the allocation.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise RequestError(f"--out: there is no folder {out.absolute().parent}")
    request = resolve(workspace, values)
    done = run(request)
    text = allocation_of(done.outcome, request.spec)
    file = out or done.folder / FILE
    file.write_text(text, encoding="utf-8")
    return done, file


def allocation_of(outcome: Outcome, spec: ScanSpec) -> str:
    """The file that `--allocation` takes, by what a scan has measured."""
    dense = outcome.result("loss")
    measured: dict[float, dict[tuple[str, str], float]] = {}
    rises: dict[str, dict[float, float]] = {}
    sizes: dict[str, int] = {}
    tensors: dict[str, tuple[str, ...]] = {}
    for one in outcome.sensitivities:
        measured.setdefault(one.sparsity, {})[one.block, one.matrix] = one.loss - dense
        name = f"{one.block}\0{one.matrix}"
        sizes[name], tensors[name] = one.weights, one.tensors
    for sparsity, own in measured.items():
        for (block, kind), rise in allocation.without_noise(own).items():
            rises.setdefault(f"{block}\0{kind}", {})[sparsity] = rise
    shares = allocation.by_sensitivity(rises, sizes, spec.total)
    targets = {
        tensor: Target(round(shares[name], 6)) for name in shares for tensor in tensors[name]
    }
    head = (
        f"How much each tensor loses for {spec.total:g} of all, by what {spec.task} loses when it "
        "is pruned alone.\n"
        f"jdna prune MODEL --sparsity {spec.total:g} --allocation THIS_FILE"
    )
    return allocation.write(targets, head)
