"""From the name of a model to its files, and to the run that wrote them, if one did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli.console import printable
from jdna_cli.errors import RequestError
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.specs import ModelSource
from jdna_cli.store.identity import is_packed
from jdna_cli.store.tables import Run


class NeverWrittenError(RequestError):
    """No run of this number has ever written a model."""


@dataclass(frozen=True)
class Located:
    """A model that a request named: the files, the run that wrote them, and the columns it had."""

    source: ModelSource
    run: Run | None
    columns: Mapping[str, Any]
    trained: Run | None = None  # the fine-tuning that it comes from, pruned since or not

    @property
    def recipe(self) -> str:
        """What the model is, but for pruning and seed: part of the recipe of what follows."""
        return (self.run.recipe if self.run else None) or self.source.identity

    @property
    def number(self) -> int | None:
        """The run that wrote it, if one did."""
        return self.run.id if self.run else None


# Columns that say what was taken from a model, and how; they follow it from run to run.
PRUNED = (
    "criterion",
    "pattern",
    "scope",
    "allocation",
    "prunable",
    "sparsity",
    "quantization",
    "calibration",
    "pruning_seed",
    "schedule",
)
_INHERITED = (
    *(
        "model",
        "model_identity",
        "regime",
        "data_fraction",
        "seed",
        "teacher",
        "adapter",
        "bits_per_weight",
    ),
    *PRUNED,
)


def locate(workspace: OpenWorkspace, reference: str) -> Located:
    """Find the model that `reference` names; whether it can be read is checked before it is.

    Raises:
        RequestError: there is none.
    """
    workspace.observer.phase(f"reading {reference}")
    if reference.startswith("run:"):
        number = reference.removeprefix("run:")
        if not (number.isascii() and number.isdigit()):
            raise RequestError(f"{reference!r}: a run is named run:ID, as in run:2")
        return written_by(workspace, int(number))
    folder = Path(reference).expanduser()
    if (writer := workspace.ledger.writer_of(folder)) is not None:
        return written_by(workspace, writer)
    if (folder / "adapter_config.json").is_file():
        from jdna_cli.models import adapter_folders

        if adapter_folders.is_adapter(folder):
            return _merged(workspace, reference, folder)
    if not any(folder.glob("*.safetensors")):
        from jdna_cli.models import hub

        folder = hub.fetch(reference, workspace.ledger.home / ".converted", workspace.allow_pickle)
    if (folder / "model.safetensors").is_file() and any(folder.glob("*.safetensors.index.json")):
        workspace.observer.say(
            f"{folder}: model.safetensors is read; the index beside it, and what it names, is not"
        )
    from jdna_cli.models import gguf_files

    quantized = gguf_files.quantization_of(folder)
    if quantized is not None and not workspace.lookup_only:
        workspace.observer.say(
            f"{Path(reference).name}: its weights were {quantized}, and are float32 now"
        )
    identity = workspace.ledger.identity(folder)
    folder = _unpacked(workspace, folder, identity)
    named = _named(reference)
    if quantized is not None and quantized not in named:
        named += f" ({quantized})"
    return _of_no_run(workspace, named, folder, identity)


def _merged(workspace: OpenWorkspace, reference: str, folder: Path) -> Located:
    """The model that an adapter's folder makes of its base."""
    from jdna_cli.models import adapter_folders

    base = locate(workspace, adapter_folders.base_of(folder))
    made = adapter_folders.merged(folder, base.source.folder, workspace.ledger.home / ".converted")
    identity = workspace.ledger.identity(made)
    return _of_no_run(workspace, _named(reference), made, identity)


def _named(reference: str) -> str:
    return printable(reference.removeprefix("./").rstrip("/"))


def _of_no_run(workspace: OpenWorkspace, named: str, folder: Path, identity: str) -> Located:
    """A model that no run of this database wrote: dense, as far as anybody knows."""
    name = workspace.ledger.name_of(identity, named)
    columns = {"model": name, "model_identity": identity, "regime": "dense", "sparsity": 0.0}
    return Located(ModelSource(name, folder, identity), None, {**columns, "seed": 0})


def written_by(workspace: OpenWorkspace, number: int) -> Located:
    """The model that a run wrote.

    Raises:
        RequestError: it wrote none, or has not finished.
    """
    if workspace.lookup_only and not workspace.ledger.knew_model(number):
        # It was never written: nothing can have been made of it.
        raise NeverWrittenError(f"run {number} wrote no model")
    source, run = workspace.ledger.model_of(number, look=workspace.lookup_only)
    columns = {name: getattr(run, name) for name in _INHERITED}
    # A pruned model that was not fine-tuned is evaluated as one whose zeros were kept.
    kept = "quantized" if run.quantization else "sparse"
    folder = _unpacked(workspace, source.folder, source.identity)
    if folder != source.folder:
        mask = folder / "mask.safetensors" if source.mask else None
        source = ModelSource(source.name, folder, source.identity, mask)
    trained = _training_of(workspace, run)
    return Located(source, run, {**columns, "regime": run.regime or kept}, trained)


def _training_of(workspace: OpenWorkspace, run: Run) -> Run | None:
    """The fine-tuning that wrote a model, or the one that it was pruned from."""
    while run.kind == "prune" and run.parent is not None:
        run = workspace.ledger.get(run.parent)
    return run if run.kind == "finetune" else None


def _unpacked(workspace: OpenWorkspace, folder: Path, identity: str) -> Path:
    """Where a model that may be packed can be read."""
    if not is_packed(folder):
        return folder
    from jdna_cli.models import packed

    return packed.unpacked(folder, identity, workspace.ledger.home / ".unpacked")
