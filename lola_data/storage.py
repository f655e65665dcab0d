"""Files on any fsspec file system: list a tree, read a file, write one that is either whole or not there.

A local file is written under a temporary name, flushed to disk and renamed; an object store shows an object only once
its upload is complete. A reader therefore never sees half a file, whenever the writer was killed. On a store nothing is
ever renamed, and every question costs a request: see :mod:`lola_data.remote_objects`, :mod:`lola_data.object_store`
and, for whole trees, :mod:`lola_data.remote_trees`.
"""

# A run touches many small files, and a `Path` takes longer to make than most of what is done with it here.
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH115, PTH116, PTH118, PTH122, PTH123

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lola_data.errors import ShardError
from lola_data.object_store import BLOCK_BYTES
from lola_data.remote_objects import (
    delete_object,
    list_objects,
    new_object,
    object_exists,
    object_size,
    open_object,
    read_object,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY_SUFFIX = ".tmp"
_BUFFER_BYTES = 2**16

DISK_ERRORS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed here",
}
"""Errors of a disk that takes no more, and what they mean."""
STORAGE_FAULTS = tuple(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ENOTCONN", "ENXIO", "ENODEV", "EREMOTEIO", "EUCLEAN")
    if hasattr(errno, name)  # The last two are Linux's own.
)
"""Errors of a disk, or of the server behind a shared file system, that is not well. Time-outs are not among them: they
come of networks too."""


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL (``s3://``, ``hf://``, ...) rather than a local path."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> Path:
    """The local path of ``path`` (``file://`` is understood)."""
    return Path(path.removeprefix("file://"))


def _local(path: str) -> str:
    """:func:`local_path` as a string."""
    return path.removeprefix("file://")


def join(root: str, *parts: str) -> str:
    """``root`` and ``parts`` joined by single slashes, for local paths and URLs alike."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def parent(path: str) -> str:
    """The folder that a file or folder lies in, local or by URL; of a bucket the bucket itself.

    >>> parent("s3://bucket/work/raw"), parent("s3://bucket"), parent("work/raw")
    ('s3://bucket/work', 's3://bucket', 'work')
    """
    if not is_remote(path):
        return str(local_path(path).parent)
    protocol, _, inside = path.rstrip("/").partition("://")
    return f"{protocol}://{inside.rpartition('/')[0] or inside}"


def list_files(root: str, suffix: str) -> list[tuple[str, int]]:
    """Files under ``root`` that end in ``suffix``: (path relative to ``root``, bytes), sorted by path.

    Hidden files and folders, and temporary files of a writer, are left out. A missing ``root`` gives an empty list.

    Raises:
        ShardError: a symbolic link that leads nowhere or in a circle, a folder that may not be read, a name that is not
            valid UTF-8. To pass over them would be to lose a shard without a word.
    """
    found: list[tuple[str, int]] = []
    if is_remote(root):
        found = list_objects(root)
    else:
        found = list(_walk(_local(root), suffix))
    return sorted(
        (path, size)
        for path, size in found
        if path.endswith(suffix) and not any(part.startswith(".") for part in path.split("/"))
    )


def _walk(base: str, suffix: str) -> Iterator[tuple[str, int]]:
    left = [""]
    while left:
        inner = left.pop()
        try:
            with os.scandir(os.path.join(base, inner)) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            _unlisted(error)
            continue
        for entry in entries:
            relative = f"{inner}{entry.name}"
            if _is_folder(entry):
                if entry.is_symlink() and _encloses(os.path.realpath(entry.path), base, inner):
                    raise ShardError(
                        f"{shown(entry.path)}: a symbolic link to a folder that it lies in; remove the link"
                    )
                left.append(f"{relative}/")
                continue
            try:
                size = entry.stat().st_size
            except OSError as error:
                # A link without a suffix may stand for the folder of a language.
                if entry.is_symlink() and (entry.name.endswith(suffix) or not os.path.splitext(entry.name)[1]):
                    raise ShardError(
                        f"{shown(entry.path)}: a symbolic link that leads nowhere ({shown(os.readlink(entry.path))}: "
                        f"{error.strerror}); bring back what it points to, or remove the link"
                    ) from error
                if isinstance(error, FileNotFoundError) or entry.is_symlink():
                    continue  # Renamed or deleted since it was listed, or a link that is none of ours.
                raise
            if entry.name.endswith(suffix) and shown(relative) != relative:
                raise ShardError(f"{shown(entry.path)}: a file name that is not valid UTF-8; rename the file")
            yield relative, size


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _encloses(target: str, base: str, inner: str) -> bool:
    """Whether a walk from ``base`` that has come to the folder ``inner`` would come there again through ``target``."""
    inside = target.rstrip("/") + "/"
    steps = inner.split("/")[:-1]
    folders = (os.path.join(base, *steps[:depth]) for depth in range(len(steps) + 1))
    return any(f"{os.path.realpath(folder)}/".startswith(inside) for folder in folders)


def _unlisted(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise ShardError(f"{error.filename}: cannot be listed: {error.strerror}; check the rights of the folder")
    # What is not there, or no folder, has no files in it.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def shown(path: str | Path) -> str:
    """A path for a message or a record: bytes that are not UTF-8 are written as ``\\xff``."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return object_exists(path) if is_remote(path) else os.path.exists(_local(path))


def size(path: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    return object_size(path) if is_remote(path) else os.stat(_local(path)).st_size


def version_of(path: str) -> tuple[int, int, int]:
    """What changes when a local file is written anew: its inode, bytes and time of change. Raises OSError."""
    found = os.stat(_local(path))
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_filled(path: str) -> bool:
    """Whether a file is there and not empty."""
    try:
        return size(path) > 0
    except FileNotFoundError:
        return False


def remove(path: str) -> None:
    """Delete a file, if it is there."""
    if is_remote(path):
        delete_object(path)
        return
    with suppress(FileNotFoundError):
        os.unlink(_local(path))


@contextmanager
def open_input(path: str, *, ahead: int = BLOCK_BYTES) -> Iterator[IO[bytes]]:
    """A file opened for reading.

    Args:
        path: local or a URL.
        ahead: of a file on a store, bytes to read ahead of what is asked for; 0 where single places are read.
    """
    if is_remote(path):
        with open_object(path, ahead=ahead) as handle:
            yield cast("IO[bytes]", handle)
    else:
        with open(_local(path), "rb") as handle:
            yield handle


def read_bytes(path: str) -> bytes:
    """All of a file: of a small one on a store, in one request.

    Raises:
        FileNotFoundError: it is not there.
        ShardError: the store cannot be reached, or refuses.
    """
    if is_remote(path):
        return read_object(path)
    with open(_local(path), "rb") as handle:
        return handle.read()


@contextmanager
def atomic_output(path: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file opened for writing that appears under ``path`` only if the block ends without an exception.

    ``durable``: outlive a loss of power too. That waits for the disk, some milliseconds a file; shards need not, since
    a rerun compares their sizes with their records and makes again what is short.

    Raises:
        ShardError: the disk is full, the quota used up, or the folder cannot be written to. Nothing is left behind.
    """
    if is_remote(path):
        with new_object(path) as upload:
            yield cast("IO[bytes]", upload)
        return
    target = _local(path)
    temporary: str | None = None
    try:
        temporary, descriptor = _open_temporary(target)
        with os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES) as handle:
            yield handle
            handle.flush()
            if durable:
                os.fsync(descriptor)
            if os.fstat(descriptor).st_mode & 0o777 != 0o644:
                os.fchmod(descriptor, 0o644)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        if temporary is not None:
            remove(temporary)


def _open_temporary(target: str) -> tuple[str, int]:
    """A new file beside ``target``, whose folder is made if need be: its path and descriptor."""
    folder, name = os.path.split(target)
    # Cut, so that every name that fits by itself fits with what is added to it here.
    start = os.fsdecode(os.fsencode(name)[:200])
    temporary = os.path.join(folder, f".{start}.{os.urandom(8).hex()}{TEMPORARY_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return temporary, os.open(temporary, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        return temporary, os.open(temporary, flags, 0o644)


def copy(source: str, target: str) -> None:
    """Copy a file; the copy appears whole or not at all.

    The kernel copies, where it can without a byte being touched: on XFS, Btrfs and the like the two share their blocks
    until one of them is written to. A hard link would not do, for what is written into the one would be in the other.
    """
    with open_input(source) as read, atomic_output(target, durable=False) as written:
        if is_remote(source) or is_remote(target) or not _copy_in_kernel(read.fileno(), written.fileno()):
            shutil.copyfileobj(read, written, 2**20)


def _copy_in_kernel(source: int, target: int) -> bool:
    """Copy all of an open file to another; False, and nothing done, if that needs a loop of reads and writes."""
    copied = False
    try:
        while os.copy_file_range(source, target, 2**30):
            copied = True
    except OSError as error:
        if copied or error.errno in DISK_ERRORS:
            raise
        return False
    return True


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
    if error.errno in STORAGE_FAULTS:
        return ShardError(
            f"{target}: {error.strerror}: the disk, or the server of the file system, has a fault. Run the same "
            f"command again when it is well: what is complete is kept and not done twice"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ShardError(f"{target}: cannot be written: {error.strerror}. Check the rights of the folder")
    if error.errno == errno.ENAMETOOLONG:
        name = str(target).rsplit("/", 1)[-1]
        return ShardError(
            f"{target}: cannot be written: a name of {len(os.fsencode(name))} bytes, where file systems take 255. "
            f"Shorten it; if it was made from the name of a shard, rename the shard"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return ShardError(f"{target}: cannot be written: {error.strerror}. Something else has that name; move it away")
    return error


def write_json(path: str, value: Any) -> None:
    """``value`` as JSON for people, atomically, with sorted keys: the same value gives the same bytes."""
    with atomic_output(path) as handle:
        handle.write(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode())
        handle.write(b"\n")


def write_record(path: str, value: Any) -> None:
    """The same for the many small files a run keeps for itself: in one line, and without waiting for the disk."""
    with atomic_output(path, durable=False) as handle:
        handle.write(json.dumps(value, ensure_ascii=False, sort_keys=True).encode())


def read_json(path: str) -> Any:
    """The value of a JSON file.

    Raises:
        ShardError: the file is not JSON.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise ShardError(f"{path}: not valid JSON ({error}); delete it and run again") from error


def remove_temporaries(root: str) -> None:
    """Delete what killed writers left under a local ``root``."""
    if not is_remote(root):
        for path in list(local_path(root).rglob(f".*{TEMPORARY_SUFFIX}")):
            # A checkpoint is a folder.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
