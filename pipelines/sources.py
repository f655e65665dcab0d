"""Where raw shards come from, and how they become local files: what every source has, and the local folder.

In: the place a recipe names. Out: the shards that are there, as :class:`RawShard`, and each of them as a local file,
gone on with where it broke off, checked against every digest that the source states, and set aside if it is wrong.
Sources that are far away are :class:`pipelines.url_source.UrlSource` and :class:`pipelines.hub.HubSource`.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import xxhash
from datatrove.utils.logging import logger

from lola_data import storage
from lola_data.errors import ShardError, StageError
from lola_data.foreign_names import escaped, why_unsafe
from lola_data.languages import LANGUAGES
from pipelines.digests import LISTING, listed_digests, mismatch, sha256_of
from pipelines.shard_pattern import DEFAULT_FILES, PARQUET, ShardPattern

CHUNK_BYTES = 2**20
"""Bytes read and written at a time."""
FIRST_WAIT_SECONDS = 1.0
"""Before the first new attempt; doubled before each further one."""
LONGEST_WAIT_SECONDS = 60.0
"""No back-off is longer, unless the server asks for it."""
MOST_WAIT_SECONDS = 3600.0
"""A server that asks for a longer pause than this is not waited for."""
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes that may go away by themselves."""


@dataclass(frozen=True, slots=True)
class RawShard:
    """A shard to bring in: one unit of work."""

    lang: str
    """Code of the language that the source claims."""
    path: str
    """Of the shard in the raw tree: ``<lang>/<file>.parquet``."""
    origin: str
    """Of the shard in its source: a path below the root, or ``hf://datasets/<repo>@<commit>/<path>``."""
    bytes: int
    """File bytes, as listed by the source; 0 where it does not say."""
    digest: str | None = None
    """What the source says the content is: ``sha256:<hex>``, or ``git:<hex>`` for a file that git keeps itself."""
    listed: str | None = None
    """SHA-256 that ``checksum.sha256`` beside the shard lists."""
    version: str | None = None
    """What changes when the source's file does (its ETag or time), where there is no digest."""

    def __post_init__(self) -> None:
        # Both are joined to folders, and both come from a source or from the plan in a work folder.
        for path in (self.path, origin_path(self) or self.path):
            why = why_unsafe(path)
            if why is not None:
                raise StageError(
                    f"{escaped(self.origin)}: is not taken in, as it has {why}. Rename it at the source, or let "
                    f"`files` and `languages` name others only"
                )

    @property
    def key(self) -> str:
        """Unique name: the path without suffix."""
        return str(PurePosixPath(self.path).with_suffix(""))

    @property
    def label(self) -> str | None:
        """Name of this very content, or None if the source tells nothing that would change with it."""
        known = [part for part in (self.digest, self.listed, self.version) if part]
        return xxhash.xxh64_hexdigest("|".join([*known, str(self.bytes)]).encode()) if known else None

    def to_json(self) -> dict[str, Any]:
        """A plain dict; ``RawShard(**value)`` is its inverse."""
        return asdict(self)


class Source(ABC):
    """A place that has shards.

    Args:
        pattern: which of its files are shards.
        checksums: whether ``checksum.sha256`` files beside the shards are believed.
    """

    remote = True
    """Whether bringing a shard costs time and disk."""

    def __init__(self, pattern: ShardPattern, *, checksums: bool = True) -> None:
        self.pattern = pattern
        self.checksums = checksums
        self.beside: list[str] = []
        """Files of JSON lines that :meth:`shards` left out, since their languages have Parquet files."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The place, for messages."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Names that may be languages, sorted."""

    @abstractmethod
    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards of the languages (None: all), sorted by path. A language that is not there gives none.

        Raises:
            StageError: the place is missing, out of reach, or not laid out as the pattern says.
        """

    def bare_folders(self) -> list[str]:
        """Folders of known languages that have no shard, sorted; none where empty folders cannot be seen."""
        return []

    def locate(self, shard: RawShard) -> str:
        """Where a shard lies, for messages."""
        return storage.join(self.place, shard.origin)

    @abstractmethod
    def open(self, shard: RawShard) -> IO[bytes]:
        """A shard opened where it lies, for reading here and there.

        Raises:
            Exception: of whatever library reads it.
        """

    @abstractmethod
    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Bring a shard to the local path ``target``, replacing what is there, and return its SHA-256 if known.

        Raises:
            ShardError: it cannot be had complete and as its source says it is; ``target`` is not there.
        """

    def set_aside(self, arrived: Path, shard: RawShard) -> Path | None:
        """Keep a file that came wrong where it can be looked at, and say where; None: it is not worth keeping."""
        del arrived, shard
        return None


class RemoteSource(Source):
    """A source whose files are copied over a network, which may break off or bring something else.

    Args:
        pattern: as for every source.
        scratch: local folder for files that are not complete yet, and for those that came wrong.
        checksums: as for every source.
    """

    def __init__(self, pattern: ShardPattern, scratch: Path, *, checksums: bool = True) -> None:
        super().__init__(pattern, checksums=checksums)
        self._scratch = scratch

    @abstractmethod
    def _complete(self, shard: RawShard, partial: Path) -> None:
        """Add to ``partial`` until it has the listed size, or the server has no more to give. Raises ShardError."""

    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Bring a file to ``target`` and return its SHA-256.

        A file that came wrong is kept aside below ``<scratch>/rejected`` and fetched once more.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        self._check_listing(shard)
        # The label in the name keeps bytes of another version from being added to.
        partial = self._scratch / "partial" / f"{shard.path}.{shard.label or 'unknown'}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        if shard.label is None:
            partial.unlink(missing_ok=True)
        faults: list[str] = []
        for _ in range(2):
            self._complete(shard, partial)
            fault = mismatch(partial, shard)
            if fault is None:
                partial.replace(target)
                kind, _, digest = (shard.digest or "").partition(":")
                return digest if kind == "sha256" else sha256_of(target)
            faults.append(f"{self.set_aside(partial, shard)}: {fault}")
            logger.warning(f"{self.locate(shard)}: came wrong and is set aside as {faults[-1]}")
        raise ShardError(
            f"{self.locate(shard)}: came wrong twice and is not taken in; what came is kept: {'; '.join(faults)}. "
            f"Try again later, or pin another `revision`"
        )

    def _check_listing(self, shard: RawShard) -> None:
        kind, _, digest = (shard.digest or "").partition(":")
        if kind == "sha256" and shard.listed and shard.listed != digest:
            raise ShardError(
                f"{self.locate(shard)}: the source contradicts itself: it has sha256 {digest}, but {LISTING} beside it "
                f"lists {shard.listed}. Tell its keeper; to take the file in all the same, set `checksums: false`"
            )

    def set_aside(self, arrived: Path, shard: RawShard) -> Path:
        """Move a file to ``<scratch>/rejected``, numbered."""
        number = 1
        while (rejected := self._scratch / "rejected" / f"{shard.path}.{number}").exists():
            number += 1
        rejected.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(rejected)
        return rejected


class LocalSource(Source):
    """A folder on this machine. Its files are linked, or copied where the file system cannot link; never changed.

    Args:
        root: the folder.
        pattern: as for every source.
        link: whether linking is wanted at all.
        checksums: as for every source.
    """

    remote = False

    def __init__(
        self, root: str, pattern: ShardPattern | None = None, *, link: bool = True, checksums: bool = True
    ) -> None:
        super().__init__(pattern or ShardPattern(), checksums=checksums)
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
            self._files = storage.list_files(self._root, "")
        return self._files

    def folders(self) -> list[str]:
        """Languages with a shard."""
        return languages_in(self.pattern, self._listed())

    def bare_folders(self) -> list[str]:
        """Folders of known languages that have no shard."""
        root = storage.local_path(self._root)
        if self.pattern.files != DEFAULT_FILES or self.pattern.names:
            return []
        return sorted({path.name for path in root.iterdir() if path.is_dir()} & LANGUAGES.keys() - set(self.folders()))

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards below the folder."""
        shards = matching(self, self._listed(), languages)
        return with_listed(self, shards, {path for path, _ in self._listed()}, self._read)

    def _read(self, path: str) -> str:
        return storage.local_path(storage.join(self._root, path)).read_text(encoding="utf-8", errors="replace")

    def open(self, shard: RawShard) -> IO[bytes]:
        """The file itself."""
        return storage.local_path(self.locate(shard)).open("rb")

    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Link or copy one file, after a look at whether it is what ``checksum.sha256`` says."""
        # Shards of a hub cache are symbolic links; what is wanted is the file itself.
        source = storage.local_path(self.locate(shard)).resolve()
        if source.exists() and not source.is_file():
            # A device or a pipe would be copied without end.
            raise ShardError(f"{self.locate(shard)}: leads to {source}, which is not a file; remove it")
        if (shard.listed or shard.digest) and source.is_file() and (fault := mismatch(source, shard)):
            doubt = ", or set `checksums: false` if that list is known to be out of date" if shard.listed else ""
            raise ShardError(f"{self.locate(shard)}: damaged: {fault}. Bring a sound copy{doubt}")
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

    def copies_to(self, folder: Path) -> bool:
        """Whether files take room in a folder, there or not yet: on another disk, or where links are unwanted."""
        while not folder.exists():
            folder = folder.parent
        return not self._link or storage.local_path(self._root).stat().st_dev != folder.stat().st_dev

    def _copy(self, shard: RawShard, source: Path, target: Path) -> None:
        try:
            handle = source.open("rb")
        except OSError as error:
            raise ShardError(f"{self.locate(shard)}: cannot be read: {error.strerror}") from error
        with handle, storage.atomic_output(str(target)) as output:
            shutil.copyfileobj(handle, output, CHUNK_BYTES)


def languages_in(pattern: ShardPattern, files: list[tuple[str, int]]) -> list[str]:
    """Languages that have a shard among ``files`` (path, bytes), sorted."""
    return sorted({found.lang for path, _ in files if (found := pattern.match(path)) is not None})


def matching(source: Source, files: list[tuple[str, int]], languages: list[str] | None) -> list[RawShard]:
    """The shards among ``files`` (path below the root, bytes), by raw path.

    Raises:
        StageError: a Parquet file lies right under the root, in no language's folder.
    """
    sizes = dict(files)
    found = source.pattern.matches(sizes, languages)
    source.beside = source.pattern.beside(sizes, languages)
    for path in sizes:
        # Beside the folders of all languages that were asked for it is something else.
        meant = languages is None or not set(languages) <= {one.lang for one in found}
        if meant and "/" not in path and path.endswith(PARQUET) and source.pattern.match(path) is None:
            raise StageError(
                f"{storage.join(source.place, path)}: shards lie in a folder of their language, "
                f"<lang>/<shard>.parquet, below `path`. Move the file into such a folder, set `path` to the folder "
                f"above, or say in `files` how they are named"
            )
    return [RawShard(one.lang, one.raw, one.path, sizes[one.path]) for one in found]


def with_listed(source: Source, shards: list[RawShard], paths: Any, read: Any) -> list[RawShard]:
    """The shards, each with the SHA-256 that the ``checksum.sha256`` in its folder lists, if there is one.

    Args:
        source: where they lie.
        shards: found there.
        paths: all paths below its root.
        read: gives the text of one of them.
    """
    if not source.checksums:
        return shards
    listings: dict[str, dict[str, str]] = {}
    for folder in {origin_path(shard).rpartition("/")[0] for shard in shards}:
        path = f"{folder}/{LISTING}".lstrip("/")
        if path in paths:
            listings[folder] = listed_digests(read(path))
    known: list[RawShard] = []
    for shard in shards:
        folder, _, name = origin_path(shard).rpartition("/")
        known.append(replace(shard, listed=listings.get(folder, {}).get(name)))
    return known


def origin_path(shard: RawShard) -> str:
    """Path of a shard below the root of its source."""
    if shard.origin.startswith("hf://"):
        return shard.origin.partition("@")[2].partition("/")[2]
    return shard.origin
