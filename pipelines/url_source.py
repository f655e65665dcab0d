"""Shards below any prefix that fsspec can read: ``s3://``, ``gs://``, ``https://``, ``memory://``, ...

In: the prefix. Out: the shards below it, each copied in large reads, gone on with where it broke off as long as the
source's file is the same (its ETag, time or digest), with pauses that grow or that the server asks for.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lola_data import storage
from lola_data.errors import LolaError, ShardError, StageError
from lola_data.foreign_names import escaped
from lola_data.remote_objects import filesystem_of
from pipelines.digests import LISTING, listed_digests
from pipelines.shard_pattern import PARQUET, ShardPattern
from pipelines.sources import (
    CHUNK_BYTES,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MOST_WAIT_SECONDS,
    RETRIED,
    RawShard,
    RemoteSource,
    languages_in,
    matching,
    with_listed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BYTES = 2**24
"""Bytes asked for at a time: many small requests are what makes reading an object store slow."""
_MOST_DEEP = 32
"""Folders inside folders of a web server."""
ATTEMPTS = 5
"""Attempts in a row that brought nothing before a file is given up; the libraries below retry single requests."""


class UrlSource(RemoteSource):
    """A prefix that fsspec can list: ``s3://``, ``gs://``, ``https://`` with directory pages, ``memory://``, ...

    An ``https://`` server without directory pages will do where each language has a ``checksum.sha256``: that names
    the shards.
    """

    def __init__(
        self, prefix: str, scratch: Path, pattern: ShardPattern | None = None, *, checksums: bool = True
    ) -> None:
        super().__init__(pattern or ShardPattern(), scratch, checksums=checksums)
        self._prefix = prefix.rstrip("/")
        self._files: list[_Listed] | None = None

    @property
    def place(self) -> str:
        """The prefix."""
        return self._prefix

    def _listed(self, languages: list[str] | None = None) -> list[_Listed]:
        if self._files is None:
            try:
                self._files = _list_prefix(self._prefix) or self._named_in_listings(languages)
            except LolaError:
                raise
            except Exception as error:
                # Every fsspec backend raises errors of its own library.
                raise StageError(
                    f"{self._prefix}: cannot be listed ({type(error).__name__}: {_first_line(error)}). {self._advice()}"
                ) from error
        return self._files

    def _named_in_listings(self, languages: list[str] | None) -> list[_Listed]:
        """Files of a server that shows no directories, as the ``checksum.sha256`` of each language names them."""
        files: list[_Listed] = []
        if not _is_web(self._prefix):
            return files
        for folder in sorted({self.pattern.folder(lang) for lang in languages or []}):
            path = f"{folder}/{LISTING}".lstrip("/")
            try:
                names = listed_digests(self._read(path))
            except FileNotFoundError:
                continue
            files.append(_Listed(path, 0, None))
            filesystem, base = filesystem_of(self._prefix)
            for name in sorted(names):
                path = f"{folder}/{name}".lstrip("/")
                files.append(_listed(path, filesystem.info(f"{base.rstrip('/')}/{quote(path)}")))
        return files

    def locate(self, shard: RawShard) -> str:
        """The address of a shard."""
        return self._address(shard.origin)

    def _address(self, path: str) -> str:
        return storage.join(self._prefix, quote(path) if _is_web(self._prefix) else path)

    def _read(self, path: str) -> str:
        with storage.open_input(self._address(path)) as handle:
            return handle.read().decode("utf-8", errors="replace")

    def _advice(self) -> str:
        if _is_web(self._prefix):
            return (
                "Shards are found through directory pages, which this server does not seem to have: use its s3:// or "
                "gs:// address, name `languages` if each has a checksum.sha256, or fetch the files yourself and set "
                "`source: local`"
            )
        return "Check the address and the credentials"

    def folders(self) -> list[str]:
        """Languages with a shard."""
        return languages_in(self.pattern, [(file.path, file.bytes) for file in self._listed()])

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards below the prefix."""
        files = self._listed(languages)
        if not any(self.pattern.match(file.path) or file.path.endswith(PARQUET) for file in files):
            raise StageError(f"{self._prefix}: no *.parquet files there. {self._advice()}")
        shards = matching(self, [(file.path, file.bytes) for file in files], languages)
        versions = {file.path: file.version for file in files}
        shards = [replace(shard, version=versions[shard.origin]) for shard in shards]
        return with_listed(self, shards, versions.keys(), self._read)

    def open(self, shard: RawShard) -> IO[bytes]:
        """The file through fsspec."""
        filesystem, base = filesystem_of(self.locate(shard))
        return filesystem.open(base, "rb")

    def _complete(self, shard: RawShard, partial: Path) -> None:
        place = self.locate(shard)
        failures, reached = 0, -1
        while True:
            try:
                self._add(place, shard, partial)
                return
            except LolaError:
                raise
            except FileNotFoundError as error:
                raise ShardError(f"{place}: no such shard any more; bring it back and run again") from error
            except PermissionError as error:
                raise ShardError(f"{place}: access refused ({_first_line(error)}); check the credentials") from error
            except Exception as error:
                # Every fsspec backend raises errors of its own library.
                if isinstance(error, OSError) and error.errno in storage.DISK_ERRORS:
                    raise
                have = partial.stat().st_size if partial.exists() else 0
                failures, reached = (0 if have > reached >= 0 else failures) + 1, have
                asked = _asked_to_wait(error)
                if failures >= ATTEMPTS or (asked or 0.0) > MOST_WAIT_SECONDS or not _may_pass(error):
                    raise ShardError(
                        f"{place}: cannot be read, {failures} times over ({type(error).__name__}: "
                        f"{_first_line(error)}). Run the same command again to go on"
                    ) from error
                backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
                time.sleep(backoff if asked is None else asked)

    def _add(self, place: str, shard: RawShard, partial: Path) -> None:
        have = partial.stat().st_size if partial.exists() and shard.label else 0
        if shard.bytes and have >= shard.bytes:
            return
        with _opened_at(place, have) as (handle, begin), partial.open("r+b" if have else "wb") as output:
            output.seek(begin)
            output.truncate()
            try:
                while chunk := handle.read(CHUNK_BYTES):
                    output.write(chunk)
                    output.flush()
            finally:
                os.fsync(output.fileno())
            if shard.bytes and output.tell() < shard.bytes:
                raise OSError(errno.EIO, f"{output.tell():,} of {shard.bytes:,} bytes came")


@contextmanager
def _opened_at(place: str, have: int) -> Iterator[tuple[IO[bytes], int]]:
    """A file below a prefix, opened at byte ``have``, or at 0 where it cannot be begun anywhere else."""
    filesystem, base = filesystem_of(place)
    with filesystem.open(base, "rb", block_size=BLOCK_BYTES) as handle:
        begin = have
        if have:
            try:
                handle.seek(have)
            except (ValueError, OSError):
                begin = 0
        yield handle, begin


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file below a prefix."""

    path: str
    bytes: int
    version: str | None


def _listed(path: str, info: dict[str, Any]) -> _Listed:
    marks = [info.get(name) for name in ("ETag", "etag", "generation", "LastModified", "mtime", "last_commit")]
    known = "|".join(str(mark) for mark in marks if mark)
    return _Listed(path, int(info.get("size") or 0), known or None)


def _is_web(prefix: str) -> bool:
    """Whether a prefix is of a web server, where names are written in the encoding of addresses."""
    return prefix.startswith(("http://", "https://"))


def _list_prefix(prefix: str) -> list[_Listed]:
    filesystem, base = filesystem_of(prefix)
    base = str(base).rstrip("/")
    try:
        found = _pages(filesystem, f"{base}/") if _is_web(prefix) else filesystem.find(base, detail=True)
    except FileNotFoundError:
        return []
    files: list[_Listed] = []
    for name, info in found.items():
        path = str(name)[len(base) :].lstrip("/")
        path = unquote(path) if _is_web(prefix) else path
        if not path or any(part.startswith(".") for part in path.split("/")):
            continue
        if info.get("size") is None:
            # A directory page tells names alone.
            info = filesystem.info(name)
        files.append(_listed(path, info))
    return sorted(files, key=lambda file: file.path)


def _pages(filesystem: Any, root: str) -> dict[str, dict[str, Any]]:
    """Files below a directory page. Unlike fsspec's own walk, a page that cannot be had does not pass for an empty one.

    Raises:
        FileNotFoundError: there is no such page, or the server shows none. One that a page leads to may be missing.
        Exception: of the library, for every other failure.
    """
    files: dict[str, dict[str, Any]] = {}
    pages = [root]
    while pages:
        page = pages.pop()
        try:
            entries = filesystem.ls(page, detail=True)
        except FileNotFoundError:
            if page == root:
                raise
            continue
        except Exception as error:
            # So servers answer that have files, but show no directories.
            if page == root and getattr(error, "status", None) in (403, 405):
                raise FileNotFoundError(page) from error
            raise
        for entry in entries:
            name, _, query = str(entry["name"]).partition("?")
            if query or not name.startswith(page) or name == page:
                continue
            inner = unquote(name[len(root) :]).split("/")
            if any(part.startswith(".") for part in inner):
                continue  # Hidden, or a way out such as `x/../`.
            if len(inner) > _MOST_DEEP:
                raise StageError(
                    f"{root}: directory pages more than {_MOST_DEEP} deep ({escaped(name)}, for one): the server seems "
                    f"to have the same page at every address. Name `languages`, or a prefix further down"
                )
            if entry["type"] == "directory":
                pages.append(name)
            else:
                files[name] = entry
    return files


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    status = getattr(error, "status", None)
    return not isinstance(status, int) or status in RETRIED


def _asked_to_wait(error: Exception) -> float | None:
    """Seconds that an HTTP server asks to be left alone, if it does."""
    asked = str((getattr(error, "headers", None) or {}).get("Retry-After", "")).strip()
    return float(asked) if asked.isdigit() else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
