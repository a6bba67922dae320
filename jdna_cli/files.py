"""Folders that are whole or not there: written under another name, flushed, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from jdna_cli.errors import JdnaError, RequestError


@contextlib.contextmanager
def whole(
    folder: Path, confirm: Callable[[], None] = lambda: None, *, named_by_content: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends without an error.

    Nothing that stands at `folder` is replaced, but an empty folder. Files get the modes that the
    umask gives.

    Args:
        folder: the final name.
        confirm: asked before the folder gets it; raises where it may not.
        named_by_content: what another process has put there meanwhile is the same, and stays.

    Raises:
        JdnaError: a file could not be written, or something stands there; nothing is left under
            the final name.
    """
    temporary = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
            _flush(path)
        _flush(temporary)
        confirm()
        if folder.exists() and any(folder.iterdir()):
            if named_by_content:
                return
            raise JdnaError(f"{folder} is there already, and nothing is replaced")
        temporary.rename(folder)  # an empty folder gives way
        _flush(folder.parent)
    except OSError as error:
        # Of another file, as one that was read meanwhile, it says so itself.
        if error.filename and not Path(os.fsdecode(error.filename)).is_relative_to(folder.parent):
            raise
        raise JdnaError(f"{folder} could not be written: {error.strerror or error}") from error
    except Exception as error:
        # Safetensors has an error of its own for a full disk.
        if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
            raise JdnaError(f"{folder} could not be written: {error}") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there already."""
    return next(path for path in [folder, *folder.absolute().parents] if path.exists())


def state(file: Path) -> tuple[int, int, int]:
    """What tells whether a file has changed: size, time in nanoseconds, and inode."""
    told = file.stat()
    return told.st_size, told.st_mtime_ns, told.st_ino


def require_new(out: Path) -> None:
    """Refuse a folder that has something in it already.

    Raises:
        RequestError: it has, or is no folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"--out: {out} is not empty, name a new folder")


def require_space(folder: Path, needed: int) -> None:
    """Refuse a run whose files will not fit.

    Raises:
        RequestError: fewer than `needed` bytes are free where `folder` is to be.
    """
    above = existing(folder)
    free = shutil.disk_usage(above).free
    if free < needed:
        raise RequestError(
            f"{above} has {free / 1e9:.2f} GB free, this run may need {needed / 1e9:.2f} GB: "
            "free some, or name another place with --home"
        )


_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p",
            "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")  # fmt: skip


def network_file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind of a file system over a network that a folder is on; None for any other.

    Args:
        folder: it, or what it is to be in, is there.
        mounts: where the system tells what is mounted.
    """
    above = existing(folder).resolve()
    kinds: dict[Path, str] = {}
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    for line in lines:
        _, point, kind, *_ = [*line.split(), "", "", ""]
        kinds[Path(point.replace("\\040", " "))] = kind
    kind = next((kinds[up] for up in (above, *above.parents) if up in kinds), "")
    return kind if kind.startswith(_NETWORK) else None


def sha256(file: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
