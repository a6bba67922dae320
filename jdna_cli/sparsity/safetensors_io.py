"""Safetensors one tensor at a time: memory for one tensor, whatever the size of the file.

The library maps whole files into memory, whose pages then count as the process's own. Here bytes
are read and written at their offsets. Files have been checked by the library when they come here.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]

CHUNK = 8 << 20
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def type_of(name: str) -> str:
    """Torch's name of a type that a file calls `name`; the same where torch's is not known here."""
    return str(_DTYPES.get(name, name)).removeprefix("torch.")


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: offsets count from the beginning of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes_each(self) -> int:
        """Bytes of an element."""
        return (self.end - self.start) // max(1, self.numel)


def entries(files: Iterable[Path]) -> dict[str, Entry]:
    """Every tensor of some files, in the order in which they lie there."""
    entries: dict[str, Entry] = {}
    for file in files:
        size, header = _header(file)
        header.pop("__metadata__", None)
        for name, x in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = (8 + size + offset for offset in x["data_offsets"])
            entries[name] = Entry(file, x["dtype"], tuple(x["shape"]), start, end)
    return entries


def metadata(file: Path) -> dict[str, str]:
    """The words that a file carries beside its tensors."""
    return dict(_header(file)[1].get("__metadata__") or {})


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    with file.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        return size, json.loads(handle.read(size))


def pieces(entry: Entry, length: int) -> Iterator[Entry]:
    """A tensor as flat pieces of at most `length` elements, in order."""
    each = entry.bytes_each
    for start in range(0, entry.numel, length):
        count = min(length, entry.numel - start)
        place = entry.start + start * each
        yield Entry(entry.file, entry.dtype, (count,), place, place + count * each)


def read(entry: Entry) -> Tensor:
    """One tensor in memory of its own."""
    raw = np.empty(entry.end - entry.start, dtype=np.uint8)
    with entry.file.open("rb", buffering=0) as handle:
        handle.seek(entry.start)
        done = 0
        while done < raw.size:
            count = handle.readinto(raw.data[done:])
            if not count:
                raise OSError(f"{entry.file} ends too early")
            done += count
    if not raw.size:
        return torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    return torch.from_numpy(raw).view(_DTYPES[entry.dtype]).view(entry.shape)


def read_part(entry: Entry, period: int, length: int) -> Tensor:
    """A stretch of `length` elements out of each `period` of a tensor, flat."""
    each, parts = entry.bytes_each, [np.empty(0, dtype=np.uint8)]
    with entry.file.open("rb", buffering=0) as handle:
        # Tensors that are shorter than the period have their turn now and then.
        for i in range(zlib.crc32(str(entry).encode()) % period, entry.numel - length + 1, period):
            data = os.pread(handle.fileno(), length * each, entry.start + i * each)
            parts.append(np.frombuffer(data, dtype=np.uint8))
    return torch.from_numpy(np.concatenate(parts)).view(_DTYPES[entry.dtype])


def raw(tensor: Tensor) -> Bytes:
    """The bytes of a tensor (on the CPU), flat; a view where it is contiguous."""
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, dtype=np.uint8)


class Rewriter:
    """A file like another one, of whose tensors some are replaced by others of the same size."""

    def __init__(self, source: Path, target: Path) -> None:
        """Make `target` as long as `source`; what is not put is copied by `finish`."""
        self._source, self._size = source, source.stat().st_size
        self._file = target.open("wb", buffering=0)
        self._put: list[tuple[int, int]] = []
        os.truncate(self._file.fileno(), self._size)

    def put(self, entry: Entry, tensor: Tensor) -> None:
        """Write `tensor` in place of `entry`, whose type and shape it has."""
        data = raw(tensor)
        if data.size != entry.end - entry.start:
            raise ValueError(f"{data.size} bytes do not fit {entry}")
        _write(self._file.fileno(), data, entry.start)
        self._put.append((entry.start, entry.end))

    def finish(self) -> None:
        """Copy all that was not put, and close."""
        place = 0
        with self._source.open("rb", buffering=0) as source:
            for start, end in [*sorted(self._put), (self._size, self._size)]:
                while place < start:
                    data = os.pread(source.fileno(), min(CHUNK, start - place), place)
                    _write(self._file.fileno(), np.frombuffer(data, np.uint8), place)
                    place += len(data)
                place = end
        self._file.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        self._file.close()


class Writer:
    """A new file, to which tensors are added one after the other.

    The header comes first in a file and is known last: room is left for it.
    """

    def __init__(self, path: Path, names: Iterable[str], words: Mapping[str, str]) -> None:
        """Start a file.

        Args:
            path: the file.
            names: of all tensors that may be added.
            words: what the file carries beside its tensors; some more may be added to `self.words`.
        """
        self._file = path.open("wb", buffering=0)
        self._header: dict[str, Any] = {}
        self.words = dict(words)
        # A tensor's line is its name, type, shape and offsets.
        lines = sum(len(json.dumps(name)) + 250 for name in names)
        self._room = -(-(lines + len(json.dumps(self.words)) + 64) // 8) * 8
        self._place = 8 + self._room

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one tensor (on the CPU)."""
        data = raw(tensor)
        start = self._place - 8 - self._room
        self._header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + data.size],
        }
        _write(self._file.fileno(), data, self._place)
        self._place += data.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close() if error else self.finish()

    def finish(self) -> None:
        """Write the header, and close."""
        header = json.dumps({"__metadata__": self.words, **self._header}).encode()
        if len(header) > self._room:
            raise ValueError(f"a header of {len(header)} bytes, room for {self._room}")
        filled = header.ljust(self._room)
        start = len(filled).to_bytes(8, "little") + filled
        _write(self._file.fileno(), np.frombuffer(start, np.uint8), 0)
        self.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        self._file.close()


def _write(descriptor: int, data: Bytes, place: int) -> None:
    view = data.data
    while view:
        count = os.pwrite(descriptor, view[: 1 << 30], place)
        view, place = view[count:], place + count
