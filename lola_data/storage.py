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


def filesystem_of(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Raises:
        ShardError: the protocol is unknown, or the package for it is not installed; the message says which.
    """
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(path)
    except ImportError as error:
        extra = "`pip install 'lola-data[s3]'`" if path.startswith(("s3://", "s3a://")) else "pip"
        raise ShardError(f"{path}: {_sentence(error)}; it comes with {extra}") from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ShardError(
            f"{path}: {_sentence(error)}; give a folder, or a URL such as s3://bucket/prefix, gs://, hf:// or https://"
        ) from error


def _sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def list_files(root: str, suffix: str) -> list[tuple[str, int]]:
    """Files under ``root`` that end in ``suffix``: (path relative to ``root``, bytes), sorted by path.

    Hidden files and folders, and temporary files of a writer, are left out. A missing ``root`` gives an empty list.

    Raises:
        ShardError: a symbolic link that leads nowhere or in a circle, a folder that may not be read, a name that is not
            valid UTF-8. To pass over them would be to lose a shard without a word.
    """
    found: list[tuple[str, int]] = []
    if is_remote(root):
        filesystem, base = filesystem_of(root)
        if filesystem.exists(base):
            for name, info in filesystem.find(base, detail=True).items():
                found.append((str(name)[len(base.rstrip("/")) + 1 :], int(info["size"])))
    else:
        found = list(_walk(local_path(root), suffix))
    return sorted(
        (path, size)
        for path, size in found
        if path.endswith(suffix) and not any(part.startswith(".") for part in path.split("/"))
    )


def _walk(base: Path, suffix: str) -> Iterator[tuple[str, int]]:
    real = {base: os.path.realpath(base)}
    for folder, folders, names in os.walk(base, followlinks=True, onerror=_unlisted):
        # Sorted, and without hidden ones, in place: that is what os.walk goes on with.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            inner = Path(folder) / name
            real[inner] = os.path.realpath(inner)
            if inner.is_symlink() and _encloses(real[inner], base, Path(folder), real):
                raise ShardError(f"{shown(inner)}: a symbolic link to a folder that it lies in; remove the link")
        for name in names:
            if name.startswith("."):
                continue
            path = Path(folder) / name
            try:
                size = path.stat().st_size
            except OSError as error:
                # A link without a suffix may stand for the folder of a language.
                if path.is_symlink() and (name.endswith(suffix) or not path.suffix):
                    raise ShardError(
                        f"{shown(path)}: a symbolic link that leads nowhere ({shown(path.readlink())}: "
                        f"{error.strerror}); bring back what it points to, or remove the link"
                    ) from error
                if isinstance(error, FileNotFoundError) or path.is_symlink():
                    continue  # Renamed or deleted since it was listed, or a link that is none of ours.
                raise
            relative = path.relative_to(base).as_posix()
            if name.endswith(suffix) and shown(relative) != relative:
                raise ShardError(f"{shown(path)}: a file name that is not valid UTF-8; rename the file")
            yield relative, size


def _encloses(target: str, base: Path, folder: Path, real: dict[Path, str]) -> bool:
    """Whether a walk from ``base`` that has come to ``folder`` would come there again by way of ``target``."""
    inner = folder.relative_to(base)
    inside = target.rstrip("/") + "/"
    return any(f"{real[base / step]}/".startswith(inside) for step in (inner, *inner.parents))


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
    if is_remote(path):
        filesystem, base = filesystem_of(path)
        return bool(filesystem.exists(base))
    return local_path(path).exists()


def size(path: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    if is_remote(path):
        filesystem, base = filesystem_of(path)
        return int(filesystem.size(base))
    return local_path(path).stat().st_size


@contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """A file opened for reading."""
    if is_remote(path):
        filesystem, base = filesystem_of(path)
        with filesystem.open(base, "rb") as handle:
            yield handle
    else:
        with local_path(path).open("rb") as handle:
            yield handle


@contextmanager
def atomic_output(path: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file opened for writing that appears under ``path`` only if the block ends without an exception.

    ``durable``: outlive a loss of power too. That waits for the disk, some milliseconds a file; shards need not, since
    a rerun compares their sizes with their records and makes again what is short.

    Raises:
        ShardError: the disk is full, the quota used up, or the folder cannot be written to. Nothing is left behind.
    """
    if is_remote(path):
        filesystem, base = filesystem_of(path)
        with filesystem.transaction, filesystem.open(base, "wb") as handle:
            yield handle
        return
    target = local_path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Cut, so that every name that fits by itself fits with what is added to it here.
        prefix = f".{os.fsdecode(os.fsencode(target.name)[:200])}."
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY_SUFFIX, dir=target.parent)
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
