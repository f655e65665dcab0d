"""Where raw shards come from: a local folder or any fsspec prefix, laid out as ``<lang>/*.parquet``.

In: the place a recipe names. Out: the shards that are there, as :class:`RawShard`, and each of them as a local file.
The Hugging Face hub, which has its own protocol, is :class:`pipelines.hub.HubSource`.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lola_data import storage
from lola_data.errors import LolaError, ShardError, StageError

CHUNK_BYTES = 2**20
"""Bytes read and written at a time."""
FIRST_WAIT_SECONDS = 1.0
"""Before the first new attempt; doubled before each further one."""
LONGEST_WAIT_SECONDS = 60.0
"""No back-off is longer, unless the server asks for it."""
URL_ATTEMPTS = 5
"""Attempts to read a file below an fsspec prefix; the libraries below retry single requests by themselves."""


@dataclass(frozen=True, slots=True)
class RawShard:
    """A shard to bring in: one unit of work."""

    lang: str
    """Folder, which is the language that the source claims."""
    path: str
    """Of the shard in the raw tree: ``<lang>/<file>.parquet``."""
    origin: str
    """Of the shard in its source: a path below the root, or ``hf://datasets/<repo>@<commit>/<path>``."""
    bytes: int
    """File bytes, as listed by the source; 0 where it does not say."""
    digest: str | None = None
    """What the source says the content is: ``sha256:<hex>``, or ``git:<hex>`` for a file that git keeps itself."""

    @property
    def key(self) -> str:
        """Unique name: the path without suffix."""
        return str(PurePosixPath(self.path).with_suffix(""))

    def to_json(self) -> dict[str, Any]:
        """A plain dict; ``RawShard(**value)`` is its inverse."""
        return asdict(self)


def raw_path(path: str) -> str:
    """Path in the raw tree of ``<lang>/[<folder>/...]<file>.parquet``: one level deep, inner folders in the name."""
    lang, _, rest = path.partition("/")
    return f"{lang}/{rest.replace('/', '-')}"


class Source(ABC):
    """A place that has shards."""

    pinned = False
    """Whether what was listed once can never change, so that a resumed run need not list it again."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The place, for messages."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Folders at the top that may be languages, sorted."""

    @abstractmethod
    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards of the languages (None: all), sorted by path. A language that is not there gives none.

        Raises:
            StageError: the place is missing, out of reach, or not laid out as ``<lang>/*.parquet``.
        """

    def locate(self, shard: RawShard) -> str:
        """Where a shard lies, for messages."""
        return storage.join(self.place, shard.origin)

    @abstractmethod
    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Bring a shard to the local path ``target``, replacing what is there, and return its SHA-256 if known.

        Raises:
            ShardError: it cannot be had complete; ``target`` is not there.
        """


def _in_language_folders(place: str, files: list[tuple[str, int]], languages: list[str] | None) -> list[RawShard]:
    shards: list[RawShard] = []
    for path, size in files:
        if "/" not in path:
            raise StageError(
                f"{storage.join(place, path)}: shards lie in a folder of their language, <lang>/<shard>.parquet, below "
                f"`path`. Move the file into such a folder, or set `path` to the folder above"
            )
        lang = path.split("/")[0]
        if languages is None or lang in languages:
            shards.append(RawShard(lang, raw_path(path), path, size))
    return sorted(shards, key=lambda shard: shard.path)


class LocalSource(Source):
    """A folder on this machine. Its files are linked, or copied where the file system cannot link; never changed.

    Args:
        root: the folder.
        link: whether linking is wanted at all.
    """

    def __init__(self, root: str, *, link: bool = True) -> None:
        self._root = root
        self._link = link
        self._files: list[tuple[str, int]] | None = None

    @property
    def place(self) -> str:
        """The folder."""
        return self._root

    def _listed(self) -> list[tuple[str, int]]:
        if self._files is None:
            folder = storage.local_path(self._root)
            if not folder.is_dir():
                what = "is a file, not a folder" if folder.exists() else "no such folder"
                raise StageError(f"{self._root}: {what}; set `path` to the folder that holds <lang>/*.parquet")
            self._files = storage.list_files(self._root, ".parquet")
        return self._files

    def folders(self) -> list[str]:
        """Folders with a shard in them."""
        return sorted({path.split("/")[0] for path, _ in self._listed() if "/" in path})

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards below the folder."""
        return _in_language_folders(self._root, self._listed(), languages)

    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Link or copy one file."""
        # Shards of a hub cache are symbolic links; what is wanted is the file itself.
        source = storage.local_path(self.locate(shard)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not self._link:
            self._copy(shard, source, target)
            return None
        try:
            os.link(source, target)
        except FileNotFoundError as error:
            raise ShardError(f"{self.locate(shard)}: no such shard any more; bring it back and run again") from error
        except OSError:
            # Another file system, one without links, or a file of another owner: the copy tells what is truly wrong.
            self._copy(shard, source, target)
        return None

    def _copy(self, shard: RawShard, source: Path, target: Path) -> None:
        try:
            handle = source.open("rb")
        except OSError as error:
            raise ShardError(f"{self.locate(shard)}: cannot be read: {error.strerror}") from error
        with handle, storage.atomic_output(str(target)) as output:
            shutil.copyfileobj(handle, output, CHUNK_BYTES)


class UrlSource(Source):
    """A prefix that fsspec can list: ``s3://``, ``gs://``, ``https://`` with directory pages, ``memory://``, ..."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")
        self._files: list[tuple[str, int]] | None = None

    @property
    def place(self) -> str:
        """The prefix."""
        return self._prefix

    def _listed(self) -> list[tuple[str, int]]:
        if self._files is None:
            try:
                self._files = _list_prefix(self._prefix)
            except LolaError:
                raise
            except Exception as error:
                # Every fsspec backend raises errors of its own library.
                raise StageError(
                    f"{self._prefix}: cannot be listed ({type(error).__name__}: {_first_line(error)}). {self._advice()}"
                ) from error
        return self._files

    def _advice(self) -> str:
        if self._prefix.startswith(("http://", "https://")):
            return (
                "Shards are found through directory pages, which this server does not seem to have: use its s3:// or "
                "gs:// address, or fetch the files yourself and set `source: local`"
            )
        return "Check the address and the credentials"

    def folders(self) -> list[str]:
        """Folders with a shard in them."""
        return sorted({path.split("/")[0] for path, _ in self._listed() if "/" in path})

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards below the prefix."""
        files = self._listed()
        if not files:
            raise StageError(f"{self._prefix}: no *.parquet files there. {self._advice()}")
        return _in_language_folders(self._prefix, files, languages)

    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Copy one file; begun anew when it breaks off, for a prefix may change between two attempts."""
        place = self.locate(shard)
        for attempt in range(1, URL_ATTEMPTS + 1):
            try:
                self._copy(place, shard, target)
                return None
            except LolaError:
                raise
            except FileNotFoundError as error:
                raise ShardError(f"{place}: no such shard any more; bring it back and run again") from error
            except PermissionError as error:
                raise ShardError(f"{place}: access refused ({_first_line(error)}); check the credentials") from error
            except Exception as error:
                # Every fsspec backend raises errors of its own library.
                if attempt == URL_ATTEMPTS:
                    raise ShardError(
                        f"{place}: cannot be read, {URL_ATTEMPTS} times over ({type(error).__name__}: "
                        f"{_first_line(error)}). Run the same command again to go on"
                    ) from error
                time.sleep(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")

    def _copy(self, place: str, shard: RawShard, target: Path) -> None:
        with storage.atomic_output(str(target)) as output, storage.open_input(place) as handle:
            shutil.copyfileobj(handle, output, CHUNK_BYTES)
            if shard.bytes and output.tell() != shard.bytes:
                raise OSError(errno.EIO, f"{output.tell():,} of {shard.bytes:,} bytes came")


def _list_prefix(prefix: str) -> list[tuple[str, int]]:
    filesystem, base = storage.filesystem_of(prefix)
    base = str(base).rstrip("/")
    files: list[tuple[str, int]] = []
    for name, info in filesystem.find(base, detail=True).items():
        path = str(name)[len(base) :].lstrip("/")
        if path.endswith(".parquet") and not any(part.startswith(".") for part in path.split("/")):
            size = info.get("size")
            files.append((path, int(filesystem.size(name) or 0) if size is None else int(size)))
    return sorted(files)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
