"""The files of a pruned model: like those it came from, or packed; and packed ones read again.

Packed files stand beside the configuration as `packed-NAME.safetensors`, one for each file of the
model. Everything that reads models reads folders that transformers knows, so a packed model is
unpacked once, into a folder that is named after its content and may be deleted at any time.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from jdna_cli.errors import RequestError
from jdna_cli.files import require_space, whole
from jdna_cli.models import model_files
from jdna_cli.sparsity import packing, safetensors_io
from jdna_cli.sparsity.packing import Packed

FORMAT = "jdna-packed-1"
PREFIX = "packed-"


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
    require_space(target, 4 * model_files.size(files))
    with whole(target, named_by_content=True) as place:
        for file in files:
            model_files.check_whole(file)
            words, stored = safetensors_io.metadata(file), safetensors_io.entries([file])
            if words.get("format") != FORMAT:
                raise RequestError(f"{file} is no packed model of format {FORMAT}")
            tensors: dict[str, Tensor] = {}
            for name, form in json.loads(words["forms"]).items():
                own = {n: x for n, x in stored.items() if n.rpartition(":")[0] == name}
                parts = {n.rpartition(":")[2]: safetensors_io.read(x) for n, x in own.items()}
                tensors[name] = packing.unpack(Packed(parts, form))
            save_file(
                tensors,
                place / file.name.removeprefix(PREFIX),
                metadata=json.loads(words["metadata"]),
            )
        for name in ("mask.safetensors", "grid.safetensors", model_files.INDEX):
            if (folder / name).is_file():
                (place / name).write_bytes((folder / name).read_bytes())
        model_files.copy_companions(folder, place)
    return target
