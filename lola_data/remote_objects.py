"""Single objects on any store that fsspec knows, by their URL: is one there, how large, read it, write it, delete it.

:mod:`lola_data.storage` has the same for local paths and URLs alike, and calls this for the latter. How an object is
read and written in few requests is in :mod:`lola_data.object_store`.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from lola_data import credentials
from lola_data.errors import ShardError
from lola_data.object_store import BLOCK_BYTES, TAIL_BYTES, RemoteFile, Upload, sentence, told_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_STORES: dict[str, Any] = {"use_listings_cache": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    # With one transfer at a time a small object is read without its size being asked for first.
    **{name: {**_STORES, "max_concurrency": 1} for name in ("s3", "s3a")},
    **dict.fromkeys(("gs", "gcs", "abfs", "abfss", "az"), _STORES),
}
"""Options of fsspec's file systems, by protocol."""


def filesystem_of(path: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, or of a local path, and the path in it.

    What a store has is asked anew each time: other processes write there, and a listing that is kept would not tell.

    Raises:
        ShardError: the protocol is unknown, or the package for it is not installed; the message says which. Or the
            address has credentials in it, which the message does not repeat.
    """
    from fsspec.core import url_to_fs

    if credentials.in_address(path):
        raise ShardError(
            f"{credentials.redacted(path)}: has credentials in it, which records and logs would keep. Leave them out: "
            f"they are found in the environment, a profile or the machine's role"
        )
    protocol, is_url, _ = path.partition("://")
    try:
        return url_to_fs(path, **(_OPTIONS.get(protocol, {}) if is_url else {}))
    except ImportError as error:
        extra = "`pip install 'lola-data[s3]'`" if path.startswith(("s3://", "s3a://")) else "pip"
        raise ShardError(f"{path}: {sentence(error)}; it comes with {extra}") from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ShardError(
            f"{path}: {sentence(error)}; give a folder, or a URL such as s3://bucket/prefix, gs://, hf:// or https://"
        ) from error


def list_objects(root: str) -> list[tuple[str, int]]:
    """All objects below a URL, (path below it, bytes), in no order: one request for each thousand of them.

    Raises:
        ShardError: the store cannot be reached, or refuses; so for all that follows.
    """
    filesystem, base = filesystem_of(root)
    base = base.rstrip("/")
    try:
        with told_of(root):
            found = filesystem.find(base, detail=True)
    except FileNotFoundError:
        return []
    return [
        (str(name)[len(base) + 1 :], int(info["size"]))
        for name, info in found.items()
        if str(name).startswith(f"{base}/")
    ]


def object_exists(url: str) -> bool:
    """Whether an object is there, or anything below the URL."""
    filesystem, base = filesystem_of(url)
    with told_of(url):
        return bool(filesystem.exists(base))


def object_size(url: str) -> int:
    """Bytes of an object. Raises FileNotFoundError."""
    filesystem, base = filesystem_of(url)
    with told_of(url):
        found = filesystem.info(base)
    if found["type"] == "directory":
        raise FileNotFoundError(url)
    return int(found["size"])


def delete_object(url: str) -> None:
    """Delete an object, if it is there."""
    filesystem, base = filesystem_of(url)
    with suppress(FileNotFoundError), told_of(url):
        filesystem.rm_file(base)


def read_object(url: str) -> bytes:
    """All of an object: of a small one, in one request. Raises FileNotFoundError."""
    filesystem, base = filesystem_of(url)
    with told_of(url):
        return filesystem.cat_file(base)


@contextmanager
def open_object(url: str, *, ahead: int = BLOCK_BYTES, tail: int = TAIL_BYTES) -> Iterator[IO[bytes] | RemoteFile]:
    """An object opened for reading in few large requests; see :class:`lola_data.object_store.RemoteFile`.

    Raises:
        FileNotFoundError: it is not there.
    """
    filesystem, base = filesystem_of(url)
    with told_of(url):
        handle = filesystem.open(base, "rb", cache_type="none")
    size = getattr(handle, "size", None)
    if not isinstance(size, int):
        # A web server that tells no size can be read in one go only.
        with handle:
            yield handle
        return
    with RemoteFile(url, handle, size, ahead=ahead, tail=tail) as opened:
        yield opened


@contextmanager
def new_object(url: str) -> Iterator[Upload]:
    """An object opened for writing, which appears if the block ends without an exception; else there is nothing."""
    upload = Upload(url, *filesystem_of(url))
    try:
        yield upload
        upload.finish()
    except BaseException:
        upload.abandon()
        raise
