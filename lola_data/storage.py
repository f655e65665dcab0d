"""Files on any fsspec file system: list a tree, read a file, write one that is either whole or not there.

A local file is written under a temporary name, flushed to disk and renamed; an object store shows an object only once
its upload is complete. A reader therefore never sees half a file, whenever the writer was killed.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lola_data.errors import ShardError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY_SUFFIX = ".tmp"

DISK_ERRORS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed here",
}
"""Errors of a disk that takes no more, and what they mean."""


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL (``s3://``, ``hf://``, ...) rather than a local path."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> Path:
    """The local path of ``path`` (``file://`` is understood)."""
    return Path(path.removeprefix("file://"))


def join(root: str, *parts: str) -> str:
    """``root`` and ``parts`` joined by single slashes, for local paths and URLs alike."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(path)


def list_files(root: str, suffix: str) -> list[tuple[str, int]]:
    """Files under ``root`` that end in ``suffix``: (path relative to ``root``, bytes), sorted by path.

    Hidden files and folders, and temporary files of a writer, are left out. A missing ``root`` gives an empty list.
    """
    found: list[tuple[str, int]] = []
    if is_remote(root):
        filesystem, base = _filesystem(root)
        if filesystem.exists(base):
            for name, info in filesystem.find(base, detail=True).items():
                found.append((str(name)[len(base.rstrip("/")) + 1 :], int(info["size"])))
    else:
        base_path = local_path(root)
        for folder, folders, names in os.walk(base_path, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(folder) / name
                found.append((path.relative_to(base_path).as_posix(), path.stat().st_size))
    return sorted(
        (path, size)
        for path, size in found
        if path.endswith(suffix) and not any(part.startswith(".") for part in path.split("/"))
    )


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    if is_remote(path):
        filesystem, base = _filesystem(path)
        return bool(filesystem.exists(base))
    return local_path(path).exists()


def size(path: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    if is_remote(path):
        filesystem, base = _filesystem(path)
        return int(filesystem.size(base))
    return local_path(path).stat().st_size


@contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """A file opened for reading."""
    if is_remote(path):
        filesystem, base = _filesystem(path)
        with filesystem.open(base, "rb") as handle:
            yield handle
    else:
        with local_path(path).open("rb") as handle:
            yield handle


@contextmanager
def atomic_output(path: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file opened for writing that appears under ``path`` only if the block ends without an exception.

    ``durable``: outlive a loss of power too. That waits for the disk; intermediate files, soon to be deleted, need not.

    Raises:
        ShardError: the disk is full, the quota used up, or the folder cannot be written to. Nothing is left behind.
    """
    if is_remote(path):
        filesystem, base = _filesystem(path)
        with filesystem.transaction, filesystem.open(base, "wb") as handle:
            yield handle
        return
    target = local_path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=TEMPORARY_SUFFIX, dir=target.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a local folder outlive a loss of power, as ``fsync`` does for the bytes of a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(target: Path | str, error: OSError) -> Exception:
    """What to tell of an error in writing ``target``: a ShardError if the user can mend it, else ``error`` itself."""
    if error.errno in DISK_ERRORS:
        return ShardError(
            f"{target}: cannot be written: {DISK_ERRORS[error.errno]}. Free some space and run the same command "
            f"again: what is complete is kept and not done twice"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ShardError(f"{target}: cannot be written: {error.strerror}. Check the rights of the folder")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
        return ShardError(f"{target}: cannot be written: {error.strerror}. Something else has that name; move it away")
    return error


def write_json(path: str, value: Any) -> None:
    """``value`` as JSON, atomically, with sorted keys: the same value gives the same bytes."""
    with atomic_output(path) as handle:
        handle.write(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode())
        handle.write(b"\n")


def read_json(path: str) -> Any:
    """The value of a JSON file.

    Raises:
        ShardError: the file is not JSON.
    """
    with open_input(path) as handle:
        try:
            return json.load(handle)
        except ValueError as error:
            raise ShardError(f"{path}: not valid JSON ({error}); delete it and run again") from error


def remove_temporaries(root: str) -> None:
    """Delete what killed writers left under a local ``root``."""
    if not is_remote(root):
        for path in local_path(root).rglob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink(missing_ok=True)
