"""Tasks of the LM evaluation harness, through its library `lm-eval` (the extra `harness`).

Its own cache of answers is never used: its key does not hold the model's weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import registry
from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.files import whole
from jdna_cli.models import loading, model_files
from jdna_cli.pipelines.run_files import write_records
from jdna_cli.results import Measurement, Outcome
from jdna_cli.run_context import RunContext
from jdna_cli.scoring import forms
from jdna_cli.specs import HarnessSpec, ModelSource


@dataclass(frozen=True)
class HarnessTasks:
    """The harness's tasks that were asked for, their content, and the main metric of the first."""

    names: tuple[str, ...]
    identity: str
    metric: str
    manager: Any


def find(spec: HarnessSpec) -> HarnessTasks:
    """Look the tasks up.

    Raises:
        RequestError: the library is not installed, or it knows no such task.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise RequestError(
            "--harness: lm-eval is not installed: pip install 'jdna[harness]'"
        ) from None
    import yaml

    files = [Path(name) for name in spec.harness if name.endswith((".yaml", ".yml"))]
    for file in files:
        if not file.is_file():
            raise RequestError(f"--harness: {file}: no such file")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # Its own thousands of tasks are read only where one of them was asked for.
    manager = TaskManager(
        include_path=[str(file.parent) for file in files] or None,
        include_defaults=len(files) < len(spec.harness),
    )
    names, parts = [], [f"lm-eval:{lm_eval.__version__}"]
    for name in spec.harness:
        if Path(name) in files:
            described = yaml.load(Path(name).read_text(), yaml.BaseLoader)
            parts.append(hashlib.sha256(Path(name).read_bytes()).hexdigest())
            names.append(str(described.get("task", Path(name).stem)))
        else:
            names.append(registry.check("task of the harness", name, manager.all_tasks))
    config = manager.task_index[names[0]].cfg if names[0] in manager.task_index else None
    listed = (config or {}).get("metric_list") or [{"metric": "acc"}]
    return HarnessTasks(tuple(names), ":".join([*parts, *names]), str(listed[0]["metric"]), manager)


def check(spec: HarnessSpec, source: ModelSource) -> None:
    """Find what is wrong with the model before it is loaded.

    Raises:
        RequestError: it is missing or damaged, or does not write.
    """
    model_files.weight_files(source.folder)
    config = model_files.config_of(source.folder)
    if forms.form_of(config) == forms.ENCODER:
        raise RequestError(
            f"--harness: it needs a model that writes, and {config.model_type} is an encoder"
        )
    model_files.tokenizer_of(source.folder)


def evaluate(
    spec: HarnessSpec, tasks: HarnessTasks, source: ModelSource, context: RunContext
) -> Outcome:
    """Measure `source` on the harness's tasks; each task's name stands where the split would."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    accelerator = devices.accelerator("no")
    form = forms.form_of(model_files.config_of(source.folder))
    placing = Placing(spec.dtype, spec.device_map, context.work / "offload")
    model = loading.load_writer(source, form == forms.ENCODER_DECODER, placing)
    if spec.device_map is None:
        model.to(accelerator.device)
    with _quiet():
        results = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=model,
                tokenizer=model_files.tokenizer_of(source.folder),
                batch_size=spec.batch_size,
                max_length=spec.max_length,
                backend="seq2seq" if form == forms.ENCODER_DECODER else "causal",
            ),
            tasks=list(tasks.names),
            num_fewshot=spec.shots,
            limit=spec.limit,
            bootstrap_iters=0,
            apply_chat_template=spec.chat,
            fewshot_as_multiturn=spec.chat,
            random_seed=spec.seed,
            numpy_random_seed=spec.seed,
            torch_random_seed=spec.seed,
            fewshot_random_seed=spec.seed,
            task_manager=tasks.manager,
            log_samples=True,
        )
    measured = []
    for task, numbers in sorted(results["results"].items()):
        for key, value in numbers.items():
            name, _, variant = key.partition(",")
            if isinstance(value, int | float) and not isinstance(value, bool) and variant:
                told = name if variant == "none" else f"{name}_{variant}"
                measured.append(Measurement(task, told, float(value)))
    order = {name: place for place, name in enumerate(tasks.names)}
    measured.sort(key=lambda m: order.get(m.split, len(order)))
    versions = " ".join(f"{name} v{version}" for name, version in results["versions"].items())
    outcome = Outcome(
        measurements=tuple(measured),
        **devices.weights_of(model),
        device=devices.name(accelerator.device),
        protocol=f"lm-eval {lm_eval.__version__}: {versions}",
    )
    with whole(context.folder, context.confirm) as target:
        _write_samples(target, results.get("samples", {}))
        write_records(target, spec, outcome)
    return outcome


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's chatter back; its bars are shown to a terminal alone.

    Raises:
        JdnaError: the library failed, most often for want of a data set.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            yield
    except (OSError, ValueError) as error:
        raise JdnaError(f"lm-eval: {str(error).splitlines()[0]}") from error


def _write_samples(target: Path, samples: dict[str, list[dict[str, Any]]]) -> None:
    """One JSON line per example of each task: the model's answers as the harness keeps them."""
    for task, rows in samples.items():
        with (target / f"predictions-{task}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                kept = {k: row[k] for k in ("doc_id", "target", "filtered_resps") if k in row}
                file.write(json.dumps(kept, default=str, ensure_ascii=False) + "\n")
