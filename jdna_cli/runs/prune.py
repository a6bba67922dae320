"""From what was asked of a pruning to its spec, what it rests on, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.files import require_new
from jdna_cli.results import Need, Planned
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import (
    Execution,
    OpenWorkspace,
    RecordedRun,
    Request,
    run,
)
from jdna_cli.sparsity import allocation, criteria
from jdna_cli.specs import FinetuneSpec, ModelSource, PruneSpec
from jdna_cli.store.identity import has_weights, is_packed
from jdna_cli.store.ledger import NewRun
from jdna_cli.store.tables import Run

AFTER = "after training"  # in column `schedule`
P = TypeVar("P", PruneSpec, FinetuneSpec)


def spec_of(kind: type[P], values: Mapping[str, Any]) -> P:
    """A spec that may prune, with the defaults of its criterion filled in.

    Raises:
        RequestError: a value is wrong, or the criterion is unknown.
    """
    asked = dict(values)
    criterion = criteria.load(asked.get("criterion") or "magnitude")
    asked |= _of_allocation(asked, criterion)
    if asked.get("sparsity") is not None and asked["scope"] == "global":
        # Scores that compete over the whole model are all known before anything goes.
        asked["sequential"] = True
    if asked.get("quantize") is not None and criterion.prune_layer is not None:
        asked["rounding"] = "gptq"  # what stays is rounded as it is made good
    spec = specs.build(kind, asked)
    if spec.calibration is None:
        for name in ("calibration_samples", "calibration_length", "sequential"):
            if getattr(spec, name) != kind.model_fields[name].default:
                raise RequestError(f"--{name.replace('_', '-')}: goes with --calibration alone")
        if criterion.needs == "nothing" and criterion.identity is None:
            # A seed that nothing draws from makes no other result.
            spec = spec.model_copy(update={"pruning_seed": 0})
    return spec


def _of_allocation(asked: Mapping[str, Any], criterion: criteria.Criterion) -> dict[str, Any]:
    """Scope and allocation: what is so without an allocation is asked for without one.

    Raises:
        RequestError: scores cannot compete as they say.
    """
    named, scope = asked.get("allocation"), asked.get("scope")
    unstructured = asked.get("sparsity") is not None
    within = criterion.scope if criterion.scope != "global" else "layer"
    if named == allocation.GLOBAL:
        if not unstructured:
            raise RequestError(
                "--allocation: global lets scores compete over the whole model, and N:M is within "
                "groups: give uniform, erk, owl, or a file"
            )
        if scope not in (None, "global"):
            raise RequestError(f"--allocation: global, but --scope {scope}: give one of them")
        return {"scope": "global", "allocation": None}
    if named is None:
        return {"scope": scope or (criterion.scope if unstructured else "global")}
    if named == allocation.UNIFORM:
        if unstructured and scope == "global":
            raise RequestError("--allocation: uniform, but --scope global: give one of them")
        return {"scope": scope or (within if unstructured else "global"), "allocation": None}
    return {"scope": scope or (within if unstructured else "global")}


def identities(
    workspace: OpenWorkspace, spec: PruneSpec | FinetuneSpec, model: ModelSource
) -> dict[str, str]:
    """What a request that prunes rests on, by content."""
    identities = {"model": model.identity}
    if (criterion := criteria.identity(spec.criterion)) is not None:
        identities["criterion"] = criterion
    if spec.allocation is not None:
        identities["allocation"] = spec.allocation
        if allocation.is_file(spec.allocation):
            identities["allocation"] = allocation.read(spec.allocation).identity
    if spec.calibration is not None:
        from jdna_cli.tasks import calibration

        identities["calibration"] = calibration.identity(spec.calibration, workspace.data_dir)
    return identities


@dataclass(frozen=True)
class PruneRequest(Request):
    """A pruning of a model that was found."""

    workspace: OpenWorkspace
    spec: PruneSpec
    located: Located
    fingerprint: str
    out: Path | None = None

    def is_answered_by(self, run: Run) -> bool:
        """Whether the model is there, in the form that was asked for."""
        folder = self.workspace.ledger.folder(run)
        if self.workspace.lookup_only and not has_weights(folder):
            return True  # what it measured is known, if its model is not there any more
        return is_packed(folder) == self.spec.packed and has_weights(folder)

    def check(self) -> None:
        """Check the plan, the calibration data, and the folder."""
        from jdna_cli.pipelines import prune

        prune.check_prune(self.spec, self.located.source, self.workspace.data_dir)
        if self.out is not None:
            require_new(self.out)

    def prepare(self) -> Execution:
        """The pruning."""
        from jdna_cli.pipelines import prune

        spec, located = self.spec, self.located
        of_run = {
            **{name: located.columns[name] for name in ("model", "model_identity")},
            "recipe": located.recipe,
            "seed": located.columns["seed"],
            **columns(spec, located),
        }
        return Execution(
            NewRun(spec, self.fingerprint, of_run, located.number),
            lambda context: prune.prune(spec, located.source, context),
        )


def resolve(
    workspace: OpenWorkspace, values: Mapping[str, Any], out: Path | None = None
) -> PruneRequest:
    """The request by content: of what was asked, its model, criterion, and calibration data.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    spec = spec_of(PruneSpec, values)
    located = locate(workspace, spec.model)
    fingerprint = spec.fingerprint(identities(workspace, spec, located.source))
    return PruneRequest(workspace, spec, located, fingerprint, out)


def prune(
    workspace: OpenWorkspace, values: Mapping[str, Any], out: Path | None = None
) -> RecordedRun:
    """Prune a model, or find that it was done."""
    return run(resolve(workspace, values, out))


def plan(workspace: OpenWorkspace, values: Mapping[str, Any]) -> tuple[list[Planned], list[Need]]:
    """What a pruning would touch, and what memory it would take; nothing is recorded.

    Raises:
        RequestError: the request is wrong.
    """
    from jdna_cli.pipelines import memory, prune

    spec = spec_of(PruneSpec, values)
    found = prune.check_prune(spec, locate(workspace, spec.model).source, workspace.data_dir)
    return prune.planned(found), memory.of_pruning(found)


def step(columns: Mapping[str, Any]) -> str:
    """What the columns of a pruned or rounded model say was done to it, all steps, in words."""
    words = []
    if columns.get("pattern"):
        plain = columns["pattern"] == "unstructured"
        amount = f"{columns['sparsity']:.4g}" if plain else columns["pattern"]
        words = [amount, columns.get("criterion"), columns.get("scope")]
    words += [columns.get("quantization")]
    words += [columns.get(name) for name in ("schedule", "allocation", "calibration", "prunable")]
    return " ".join(str(word) for word in words if word)


def columns(spec: PruneSpec | FinetuneSpec, base: Located) -> dict[str, Any]:
    """The columns that say what was pruned, or rounded, of `base`, which may have been before."""
    chosen = [f"+{p}" for p in spec.include] + [f"-{p}" for p in spec.exclude]
    if before := step(base.columns):
        chosen.append(f"after [{before}]")
    found: dict[str, Any] = {"prunable": " ".join(chosen) or None}
    criterion = criteria.load(spec.criterion)
    if spec.calibration is not None:
        name = Path(spec.calibration).stem if "." in spec.calibration else spec.calibration
        length = f"{spec.calibration_samples} × {spec.calibration_length}"
        dense = "" if spec.sequential else ", not sequential"
        found["calibration"] = f"{name}, {length}{dense}"
    if base.trained is not None:
        found["schedule"] = AFTER
    if spec.allocation is not None:
        found["allocation"] = spec.allocation
        if allocation.is_file(spec.allocation):
            found["allocation"] = allocation.read(spec.allocation).label
    if spec.calibration is not None or criterion.needs == "seed":
        found["pruning_seed"] = spec.pruning_seed
    if spec.quantize is not None:
        kind = "asymmetric" if spec.asymmetric else "symmetric"
        groups = f"group {spec.group_size}" if spec.group_size else spec.granularity
        rounding = "" if spec.rounding == "nearest" else f", {spec.rounding}"
        words = f"{spec.quantize} bits {kind} per {groups}{rounding}"
        found["quantization"] = words.replace("per group", "group")
    if not spec.removes:
        return {**found, "sparsity": 0.0}
    found["criterion"] = criterion.name
    if spec.pattern:
        n, m = specs.parse_pattern(spec.pattern)
        return {**found, "pattern": spec.pattern, "sparsity": 1 - n / m}
    return {**found, "pattern": "unstructured", "sparsity": spec.sparsity, "scope": spec.scope}
