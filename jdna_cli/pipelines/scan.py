"""Sensitivity: each kind of matrix of each block is pruned alone, and the task is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.errors import RequestError
from jdna_cli.files import whole
from jdna_cli.models.blocks import Place, order, place
from jdna_cli.models.parameters import match_names, parameters_by_name
from jdna_cli.pipelines.evaluate import measured
from jdna_cli.pipelines.prune import check_prune
from jdna_cli.pipelines.run_files import write_records
from jdna_cli.pruning import blockwise
from jdna_cli.pruning.plan import PrunePlan
from jdna_cli.results import Measurement, Outcome, Sensitivity
from jdna_cli.run_context import RunContext
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.scoring.setup import counted, prepare, scorer_for
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.sparsity.targets import Target
from jdna_cli.specs import ModelSource, ScanSpec
from jdna_cli.tasks.task import Task


def units(plan: PrunePlan) -> dict[Place, list[str]]:
    """The tensors of each kind and block, in the order of the model."""
    found: dict[Place, list[str]] = {}
    for name in plan.chosen:
        found.setdefault(place(name), []).append(name)
    return dict(sorted(found.items(), key=lambda item: order(item[0].block)))


def scan(spec: ScanSpec, task: Task, source: ModelSource, context: RunContext) -> Outcome:
    """Measure `source` dense, and with each unit pruned to each sparsity, all else as it was."""
    scorer = scorer_for(spec.eval_spec(), task, source, context.tokens)
    context.phase("tokenizing")
    part = prepare(scorer, spec.split, context.data_dir)
    plan = check_prune(spec.prune_spec(), source, context.data_dir)
    known = blockwise.gathered(plan, context) if plan.calibrated else {}
    context.phase("loading the model")
    accelerator = devices.accelerator(spec.mixed_precision)
    loaded = scorer.load(source, new_head=False, placing=Placing("float32"))
    model = accelerator.prepare_model(loaded, evaluation_mode=True)
    own = parameters_by_name(accelerator.unwrap_model(model))
    names = match_names(accelerator.unwrap_model(model), plan.chosen)
    if missing := next((name for name in plan.chosen if name not in names), None):
        raise RequestError(f"{missing} is in the file, and not in the model that does the task")
    size = None if spec.batch_size == "auto" else spec.batch_size
    room = devices.tokens_at_once(accelerator.device, loaded.config)
    measuring = EvalContext(size, accelerator, tokens=room)
    dense = measured(scorer, model, part.encoded, measuring)
    found: list[Sensitivity] = []
    matrices = units(plan)
    steps, notes = len(matrices) * len(spec.sparsities), list[str]()
    for (block, kind), tensors in matrices.items():
        before = {name: own[names[name]].detach().clone() for name in tensors}
        for sparsity in spec.sparsities:
            target = replace(plan, targets=dict.fromkeys(tensors, Target(sparsity)))
            for name in tensors:
                pruned = _pruned(target, name, known, accelerator.device, notes)
                own[names[name]].data.copy_(pruned)
            here = measured(scorer, model, part.encoded, measuring)
            found.append(
                Sensitivity(
                    block, kind, sparsity, tuple(tensors),
                    sum(plan.stored[name].numel for name in tensors), here.loss,
                    here.scores[task.metric],
                )
            )  # fmt: skip
            rise = f"{kind} {here.loss - dense.loss:+.4f}"
            context.progress("scan", len(found), steps, rise)
        for name, values in before.items():
            own[names[name]].data.copy_(values)
    numbers = {"loss": dense.loss, **dense.scores}
    outcome = Outcome(
        measurements=tuple(Measurement(spec.split, n, v) for n, v in numbers.items()),
        sensitivities=tuple(found),
        **devices.weights_of(loaded),
        device=devices.name(accelerator.device),
        protocol=dense.protocol or None,
        examples={spec.split: counted(part.records)},
    )
    with whole(context.folder, context.confirm) as folder:
        write_records(folder, spec, outcome)
    return outcome


def _pruned(
    plan: PrunePlan, name: str, known: dict[str, Statistics], device: torch.device, notes: list[str]
) -> Any:
    statistics = known.get(name) or Statistics(name, plan.chosen[name], plan.spec.pruning_seed)
    change = blockwise.settled(plan, name, statistics, device, notes)
    assert change.tensor is not None
    return change.tensor
