"""The files of a pruned model: like those it came from, or packed; and what tells what was done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from jdna_cli.models import model_files
from jdna_cli.models.packed import FORMAT, PREFIX
from jdna_cli.pruning.changes import Change
from jdna_cli.pruning.plan import PrunePlan
from jdna_cli.results import Measurement
from jdna_cli.sparsity import masks, packing, quantization, safetensors_io
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.packing import Packed
from jdna_cli.sparsity.safetensors_io import Entry


class Beside:
    """Writes what tells what was done to a model: masks, those of earlier prunings too, and grids.

    Each file is there only where there is something to tell.
    """

    def __init__(self, plan: PrunePlan, target: Path, earlier: Mapping[str, Mask]) -> None:
        """Start files in `target`; `earlier`: masks of what was taken before."""
        self._earlier, self._files = dict(earlier), contextlib.ExitStack()
        self._grids: safetensors_io.Writer | None = None
        self._masks: safetensors_io.Writer | None = None
        if plan.grid is not None:
            path = target / "grid.safetensors"
            file = quantization.writer(path, plan.chosen, plan.grid)
            self._grids = self._files.enter_context(file)
        names = [*(plan.chosen if plan.spec.removes else ()), *earlier]
        if names or plan.grid is None:
            shapes = {name: plan.stored[name].shape for name in names}
            file = masks.writer(target / "mask.safetensors", shapes)
            self._masks = self._files.enter_context(file)

    def add(self, change: Change) -> Mask | None:
        """Write what became of a tensor; what is kept of it after all prunings."""
        if change.quantized is not None and self._grids is not None:
            quantization.add(self._grids, change.name, change.quantized)
        kept, before = change.mask, self._earlier.pop(change.name, None)
        if before is not None:
            kept = before if kept is None else masks.both(kept, before)
        if kept is not None and self._masks is not None:
            masks.add(self._masks, change.name, kept)
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._masks is not None:
            for name, mask in self._earlier.items():
                masks.add(self._masks, name, mask)
        self._files.__exit__(kind, error, trace)


class OutputFolder:
    """Writes a model's files: each tensor that is put in place of its own, the others as they were.

    Memory for one tensor, whatever the size of the model.
    """

    def __init__(self, plan: PrunePlan, target: Path) -> None:
        """Start files in `target`."""
        self._plan, self._target = plan, target
        self._packed = plan.spec.packed
        self._rewriters: dict[Path, safetensors_io.Rewriter] = {}
        self._writers: dict[Path, safetensors_io.Writer] = {}
        self._forms: dict[Path, dict[str, Any]] = {file: {} for file in plan.files}
        for file in plan.files:
            if self._packed:
                names = [n for n, x in plan.stored.items() if x.file == file for _ in range(3)]
                words = {"format": FORMAT, "metadata": json.dumps(safetensors_io.metadata(file))}
                path = target / f"{PREFIX}{file.name}"
                self._writers[file] = safetensors_io.Writer(path, names, words)
            else:
                self._rewriters[file] = safetensors_io.Rewriter(file, target / file.name)

    def put(self, change: Change, kept: Mask | None) -> None:
        """Write one tensor, of which `kept` says what no pruning has taken."""
        if change.tensor is None:
            return
        entry = self._plan.stored[change.name]
        if not self._packed:
            self.put_piece(entry, change.tensor)
            return
        input_dim = self._plan.chosen[change.name]
        if change.quantized is not None:
            found = packing.pack_codes(change.quantized, input_dim, kept)
        elif self._plan.spec.pattern == "2:4":
            assert change.mask is not None
            found = packing.pack_two_of_four(change.tensor, change.mask, input_dim)
        else:
            assert change.mask is not None
            found = packing.pack_sparse(change.tensor, change.mask)
        self._add(entry.file, change.name, found)

    def put_piece(self, entry: Entry, tensor: Tensor) -> None:
        """Write a tensor, or a piece of one, in place of its own."""
        self._rewriters[entry.file].put(entry, tensor)

    def _add(self, file: Path, name: str, packed: Packed) -> None:
        self._forms[file][name] = packed.form
        for part, tensor in packed.parts.items():
            self._writers[file].add(f"{name}:{part}", tensor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error:
            for rewriter in self._rewriters.values():
                rewriter.close()
            for writer in self._writers.values():
                writer.close()
            return
        for rewriter in self._rewriters.values():
            rewriter.finish()
        for source, writer in self._writers.items():
            for name, entry in self._plan.stored.items():
                if entry.file == source and name not in self._forms[source]:
                    self._add(source, name, packing.pack_dense(safetensors_io.read(entry)))
            writer.words["forms"] = json.dumps(self._forms[source])
            writer.finish()
        index = self._plan.source.folder / model_files.INDEX
        if index.is_file():
            (self._target / model_files.INDEX).write_bytes(index.read_bytes())

    def sizes(self) -> tuple[Measurement, ...]:
        """Bytes of the weight files: as they are, and as those they came from."""
        names = [f"{PREFIX if self._packed else ''}{file.name}" for file in self._plan.files]
        written = model_files.size(self._target / name for name in names)
        before = model_files.size(self._plan.files)
        return (
            Measurement("model", "bytes", written),
            Measurement("model", "dense_bytes", before),
        )
