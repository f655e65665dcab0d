"""Whole trees of files, local or on a store, in as few requests as it takes: list, read, delete, and claim a name.

In: a folder or the prefix of a URL. Out: sizes or JSON values by path below it. Nothing is kept between calls.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.foreign_names import escaped, why_unsafe
from lola_data.object_store import told_of, version_in
from lola_data.remote_objects import filesystem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_AT_A_TIME = 16
"""Small objects read at the same time: each takes the store's answering time and hardly more."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object: its bytes, and what changes when it is written anew (ETag, generation or time; perhaps empty)."""

    size: int
    version: str


def objects_below(root: str, *, hidden: bool = False) -> dict[str, Listed]:
    """All objects below a URL by their path there, ``hidden`` ones too or not; one request for each thousand of them.

    Raises:
        ShardError: the store cannot be reached, or refuses; or a key of it cannot be a path below a folder, such as one
            with ``..`` in it.
    """
    filesystem, base = filesystem_of(root)
    base = base.rstrip("/")
    found: dict[str, Any] = {}
    with suppress(FileNotFoundError), told_of(root):
        found = filesystem.find(base, detail=True)
    below = {str(name)[len(base) + 1 :]: info for name, info in found.items() if str(name).startswith(f"{base}/")}
    listed = {
        path: Listed(int(info["size"]), version_in(info))
        for path, info in sorted(below.items())
        if hidden or not any(part.startswith(".") for part in path.split("/"))
    }
    for path in listed:
        # Copies are made under these names. An empty object that ends in a slash is some consoles' folder.
        if (why := why_unsafe(path)) is not None and not path.endswith("/"):
            raise ShardError(f"{root}: the object {escaped(path)} has {why}; delete or rename it there")
    return {path: found for path, found in listed.items() if not path.endswith("/")}


def sizes_below(root: str, suffix: str = "") -> dict[str, int]:
    """Bytes of every file below ``root`` that ends in ``suffix``, by its path there, in order; of a missing one none.

    On a store that is one request for each thousand files, where asking for each would be one a file. Hidden files are
    left out, as by :func:`lola_data.storage.list_files`, which says what is raised.
    """
    return dict(storage.list_files(root, suffix))


def read_json_files(root: str, suffix: str = ".json") -> dict[str, Any]:
    """The values of the JSON files below ``root``, by path there, in order. Empty files are passed over.

    Raises:
        ShardError: a file is not JSON, or the store cannot be read.
    """
    paths = [path for path, size in storage.list_files(root, suffix) if size]
    return dict(zip(paths, read_json_of([storage.join(root, path) for path in paths]), strict=True))


def read_json_of(paths: Sequence[str]) -> list[Any]:
    """The values of JSON files, in the order of their paths; those on a store several at a time.

    Raises:
        ShardError: a file is not JSON, or the store cannot be read.
        FileNotFoundError: one is not there.
    """
    if len(paths) < 2 or not storage.is_remote(paths[0]):
        return [storage.read_json(path) for path in paths]
    with ThreadPoolExecutor(min(READ_AT_A_TIME, len(paths))) as pool:
        return list(pool.map(storage.read_json, paths))


def remove_tree(root: str) -> None:
    """Delete everything below ``root``, hidden files too, and a local ``root`` itself. What is not there is no error.

    Raises:
        ShardError: something cannot be deleted.
    """
    if not storage.is_remote(root):
        path = storage.local_path(root)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ShardError(
                f"{error.filename or path}: cannot be deleted: {error.strerror or error}. Delete it yourself and run "
                f"the same command again"
            ) from error
        return
    filesystem, base = filesystem_of(root)
    base = base.rstrip("/")
    if "/" not in base:
        raise ShardError(f"{root}: is a whole bucket, which is not deleted here; name a prefix in it")
    with told_of(root):
        if not _below(filesystem, base):
            return
        with suppress(FileNotFoundError):
            filesystem.rm(base, recursive=True)
        left = _below(filesystem, base)
    if left:
        # A store answers a request to delete many with what it has deleted, and no error for the rest.
        raise ShardError(f"{root}: {len(left):,} files cannot be deleted ({left[0]}, for one); check the rights there")


def _below(filesystem: Any, base: str) -> list[str]:
    with suppress(FileNotFoundError):
        return [str(name) for name in filesystem.find(base) if str(name).startswith(f"{base}/")]
    return []


def create_exclusive(path: str, content: bytes) -> bool:
    """Write a file unless one of that name is there: whether this call wrote it. It appears whole, or not at all.

    Of several callers at the same time one is told True. On S3 that is a conditional write (If-None-Match), which AWS,
    Cloudflare R2, MinIO and Ceph have; a store that does not know it may let the last of them win.

    Raises:
        ShardError: the file cannot be written for another reason.
    """
    if storage.is_remote(path):
        filesystem, base = filesystem_of(path)
        try:
            with told_of(path):
                filesystem.pipe_file(base, content, mode="create")
        except FileExistsError:
            return False
        except ShardError as error:
            if _refused_as_there(error.__cause__):
                return False
            raise
        return True
    target = storage.local_path(path)
    temporary = target.with_name(f".{target.name[:200]}.{os.urandom(8).hex()}{storage.TEMPORARY_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        raise storage.disk_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _refused_as_there(error: BaseException | None) -> bool:
    """Whether a store refused a conditional write because the object exists, or because another write was faster."""
    inner: BaseException | None = error
    while inner is not None:
        code = getattr(inner, "response", {}).get("Error", {}).get("Code", "")
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
            return True
        inner = inner.__cause__ or inner.__context__
    return False
