"""The files of a pruned model: like those it came from, or packed; and packed ones read again.

Packed files stand beside the configuration as `packed-NAME.safetensors`, one for each file of the
model. Everything that reads models reads folders that transformers knows, so a packed model is
unpacked once, into a folder that is named after its content and may be deleted at any time.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors.torch import save_file
from torch import Tensor

from jdna_cli.engine import models
from jdna_cli.engine.changes import Change, Plan
from jdna_cli.engine.files import require_space, whole
from jdna_cli.errors import RequestError
from jdna_cli.results import Measurement
from jdna_cli.sparsity import packing, streams
from jdna_cli.sparsity.packing import Packed
from jdna_cli.sparsity.streams import Entry

FORMAT = "jdna-packed-1"
PREFIX = "packed-"


class Folder:
    """Writes a model's files: each tensor that is put in place of its own, the others as they were.

    Memory for one tensor, whatever the size of the model.
    """

    def __init__(self, plan: Plan, target: Path) -> None:
        """Start files in `target`."""
        self._plan, self._target = plan, target
        self._packed = plan.spec.packed
        self._rewriters: dict[Path, streams.Rewriter] = {}
        self._writers: dict[Path, streams.Writer] = {}
        self._forms: dict[Path, dict[str, Any]] = {file: {} for file in plan.files}
        for file in plan.files:
            if self._packed:
                names = [n for n, x in plan.stored.items() if x.file == file for _ in range(3)]
                words = {"format": FORMAT, "metadata": json.dumps(streams.metadata(file))}
                path = target / f"{PREFIX}{file.name}"
                self._writers[file] = streams.Writer(path, names, words)
            else:
                self._rewriters[file] = streams.Rewriter(file, target / file.name)

    def put(self, change: Change) -> None:
        """Write one tensor."""
        if change.tensor is None:
            return
        entry = self._plan.stored[change.name]
        if not self._packed:
            self.put_piece(entry, change.tensor)
            return
        input_dim = self._plan.chosen[change.name]
        if change.quantized is not None:
            found = packing.pack_codes(change.quantized, input_dim)
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

    def _add(self, file: Path, name: str, found: Packed) -> None:
        self._forms[file][name] = found.form
        for part, tensor in found.parts.items():
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
                    self._add(source, name, packing.pack_dense(streams.read(entry)))
            writer.words["forms"] = json.dumps(self._forms[source])
            writer.finish()
        index = self._plan.source.folder / models.INDEX
        if index.is_file():
            (self._target / models.INDEX).write_bytes(index.read_bytes())

    def sizes(self) -> tuple[Measurement, ...]:
        """Bytes of the weight files: as they are, and as those they came from."""
        names = [f"{PREFIX if self._packed else ''}{file.name}" for file in self._plan.files]
        written = models.size(self._target / name for name in names)
        before = models.size(self._plan.files)
        return (
            Measurement("model", "bytes", written),
            Measurement("model", "dense_bytes", before),
        )


def unpacked(folder: Path, identity: str, below: Path) -> Path:
    """A folder with the same model unpacked, bit for bit.

    Args:
        folder: of the packed model.
        identity: what it is by content.
        below: where unpacked models are kept.

    Raises:
        RequestError: a file is damaged.
    """
    target = below / identity.rpartition(":")[2][:16]
    if target.is_dir():
        return target
    files = sorted(folder.glob(f"{PREFIX}*.safetensors"))
    require_space(target, 4 * models.size(files))
    with whole(target) as place:
        for file in files:
            models.check_whole(file)
            words, stored = streams.metadata(file), streams.entries([file])
            if words.get("format") != FORMAT:
                raise RequestError(f"{file} is no packed model of format {FORMAT}")
            tensors: dict[str, Tensor] = {}
            for name, form in json.loads(words["forms"]).items():
                own = {n: x for n, x in stored.items() if n.rpartition(":")[0] == name}
                parts = {n.rpartition(":")[2]: streams.read(x) for n, x in own.items()}
                tensors[name] = packing.unpack(Packed(parts, form))
            save_file(
                tensors,
                place / file.name.removeprefix(PREFIX),
                metadata=json.loads(words["metadata"]),
            )
        for name in ("mask.safetensors", "grid.safetensors", models.INDEX):
            if (folder / name).is_file():
                (place / name).write_bytes((folder / name).read_bytes())
        models.copy_companions(folder, place)
    return target
