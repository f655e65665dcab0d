"""Token shards on an object store, read through a folder on this machine: URLs in, arrays of token ids out.

A file is cut into pieces of :data:`PIECE_BYTES`; a piece is fetched whole, in one request, when the first of its bytes
is read, and kept until the folder's limit is reached: then those that have not been read for longest go. So a shard
larger than the limit can be read as well. A piece is known by the address, the size and the version (ETag) of the
object, so that one that has changed is fetched anew.

Any number of processes may use one folder. A piece appears under its name once it is whole (it is written under another
name, flushed and renamed), one process fetches it while the others wait, and room is made before it is written. A piece
that is deleted while another process has it mapped stays readable there; it is let go of with the next read of it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data import storage
from lola_data.errors import ShardError, TrainingError
from lola_data.object_store import RemoteFile
from lola_data.remote_objects import open_object
from lola_data.remote_tokens import RemoteTokenShard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lola_data.remote_trees import Listed
    from lola_data.train_config import TrainConfig

PIECE_BYTES = 64 * 2**20
"""Bytes of a piece, and of a request."""
_LOCKS = 64
_TOUCHED_SECONDS = 10.0
_PIECE, _PART = ".piece", ".part"


def cache_folder(config: TrainConfig) -> Path:
    """``cache_dir`` of the settings; by default ``$LOLA_DATA_CACHE/tokens``, else ``~/.cache/lola-data/tokens``."""
    if config.cache_dir is not None:
        return Path(config.cache_dir).expanduser()
    root = os.environ.get("LOLA_DATA_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "lola-data") / "tokens"


class ShardCache:
    """A folder of pieces of files on a store.

    Args:
        folder: on this machine; made if need be.
        limit_bytes: most bytes of pieces in it, of all processes together.
        piece_bytes: of a piece; all users of a folder give the same.

    Raises:
        TrainingError: the folder cannot be made, or the limit does not hold a piece.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, piece_bytes: int = PIECE_BYTES) -> None:
        if limit_bytes < piece_bytes:
            raise TrainingError(
                f"cache_gb: {limit_bytes:,} bytes do not hold a piece of {piece_bytes:,} bytes; give more"
            )
        self.folder, self.limit_bytes, self.piece_bytes = folder, limit_bytes, piece_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{folder}: cannot be made: {error.strerror or error}; set another cache_dir"
            ) from error
        self._mapped: dict[str, tuple[int, NDArray[np.uint8], float]] = {}

    def piece(self, url: str, listed: Listed, number: int) -> NDArray[np.uint8]:
        """Bytes ``number`` * piece_bytes up to the next piece, uint8, read-only; fetched if they are not here.

        Args:
            url: of the file.
            listed: its size and version.
            number: of the piece, from 0.

        Raises:
            ShardError: the object is gone, is another one now, or the store cannot be reached.
            TrainingError: the disk cannot be written to.
        """
        name = self._name(url, listed, number)
        path = self.folder / name
        held = self._mapped.get(name)
        try:
            found = os.stat(path)  # noqa: PTH116 (once for each document that is read)
        except FileNotFoundError:
            self._mapped.pop(name, None)
        else:
            if held is not None and held[0] == found.st_ino:
                now = time.monotonic()
                if now - held[2] > _TOUCHED_SECONDS:
                    self._touch(path)
                    self._mapped[name] = (held[0], held[1], now)
                return held[1]
        return self._map(name, path, url, listed, number)

    def _map(self, name: str, path: Path, url: str, listed: Listed, number: int) -> NDArray[np.uint8]:
        start = number * self.piece_bytes
        size = min(self.piece_bytes, listed.size - start)
        while True:
            try:
                with path.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    if found.st_size == size:
                        mapped = np.asarray(np.memmap(stream, np.uint8, "r"))
                        self._touch(path)
                        self._mapped[name] = (found.st_ino, mapped, time.monotonic())
                        return mapped
                path.unlink(missing_ok=True)  # Someone else's file, or of a disk that lost its end.
            except FileNotFoundError:
                pass
            with self._locked(f".lock-{int(name[:8], 16) % _LOCKS:02d}"):
                if not path.exists():
                    self._fetch(path, url, listed, start, size)

    @staticmethod
    def _touch(path: Path) -> None:
        with suppress(OSError):
            os.utime(path)

    @staticmethod
    def _name(url: str, listed: Listed, number: int) -> str:
        digest = hashlib.sha256(f"{url}\n{listed.size}\n{listed.version}".encode()).hexdigest()[:32]
        return f"{digest}-{number:06d}{_PIECE}"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        try:
            stream = (self.folder / name).open("ab")
        except OSError as error:
            raise self._unwritable(error) from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _fetch(self, path: Path, url: str, listed: Listed, start: int, size: int) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{_PART}")
        try:
            with ExitStack() as held:
                with self._locked(".lock"):
                    stream = held.enter_context(part.open("xb"))
                    # Held while the writer lives: a part that nobody holds was left by one that was killed. Both are
                    # done under the lock, so that nobody who makes room sees one that is not held yet.
                    fcntl.flock(stream, fcntl.LOCK_EX)
                    self._make_room(size, keep=part)
                    os.posix_fallocate(stream.fileno(), 0, size)
                stream.write(_read(url, listed, start, size))
                stream.flush()
                os.fsync(stream.fileno())
                part.replace(path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size: int, *, keep: Path) -> None:
        """Delete the pieces that have not been read for longest until ``size`` bytes more are within the limit."""
        pieces: list[tuple[int, str, int]] = []
        used = 0
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                if entry.name.endswith(_PIECE):
                    found = entry.stat()
                    pieces.append((found.st_mtime_ns, entry.name, found.st_size))
                    used += found.st_size
                elif entry.name.endswith(_PART) and entry.name != keep.name:
                    used += 0 if _left_behind(Path(entry.path)) else entry.stat().st_size
        for _, name, bytes_ in sorted(pieces):
            if used + size <= self.limit_bytes:
                return
            (self.folder / name).unlink(missing_ok=True)
            self._mapped.pop(name, None)
            used -= bytes_

    def _unwritable(self, error: OSError) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return TrainingError(
                f"{self.folder}: {storage.DISK_ERRORS[error.errno]}; free some, lower cache_gb, or set another "
                f"cache_dir"
            )
        return TrainingError(f"{self.folder}: cannot be written: {error.strerror or error}; set another cache_dir")


def _left_behind(part: Path) -> bool:
    """Whether the writer of a part is gone; it is deleted then."""
    with suppress(OSError), part.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
        return True
    return False


def _read(url: str, listed: Listed, start: int, size: int) -> bytes:
    try:
        with open_object(url, ahead=0, tail=0) as handle:
            if isinstance(handle, RemoteFile) and (handle.size, handle.version or listed.version) != (
                listed.size,
                listed.version,
            ):
                raise ShardError(f"{url}: has changed since the run was started; start it again to read it anew")
            handle.seek(start)
            content = handle.read(size)
    except FileNotFoundError as error:
        raise ShardError(f"{url}: is gone; write the tokens again, or name another tree") from error
    if len(content) != size:
        raise ShardError(f"{url}: {len(content):,} bytes came where {size:,} were asked for; run again")
    return content


class CachedFile:
    """A file on a store by its pieces. ``url``: its address; ``listed``: its size and version."""

    def __init__(self, cache: ShardCache, url: str, listed: Listed) -> None:
        self.cache, self.url, self.listed = cache, url, listed

    def pieces(self) -> Iterator[NDArray[np.uint8]]:
        """All of it, piece after piece."""
        for number in range(-(-self.listed.size // self.cache.piece_bytes)):
            yield self.cache.piece(self.url, self.listed, number)

    def digest(self) -> str:
        """SHA-256 of it."""
        state = hashlib.sha256()
        for piece in self.pieces():
            state.update(piece.data)
        return state.hexdigest()

    def content(self) -> bytes:
        """All of it at once."""
        return b"".join(piece.tobytes() for piece in self.pieces())


class CachedTokens:
    """The token ids of a shard on a store, sliced like an array: dtype[N], read-only.

    A slice within a piece is not copied. Of the ids as a whole there are ``min`` and ``max``.
    """

    def __init__(self, file: CachedFile, dtype: np.dtype) -> None:
        self._file = file
        self.dtype = dtype
        self.size = file.listed.size // dtype.itemsize
        self._per_piece = file.cache.piece_bytes // dtype.itemsize

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        start, stop, step = wanted.indices(self.size)
        if step != 1:
            raise ValueError("token ids on a store are sliced without a step")
        first = start // self._per_piece
        if stop <= (first + 1) * self._per_piece:
            at = first * self._per_piece
            return self._piece(first)[start - at : stop - at] if start < stop else np.zeros(0, self.dtype)
        parts: list[NDArray[Any]] = []
        for number in range(first, (stop - 1) // self._per_piece + 1):
            at = number * self._per_piece
            parts.append(self._piece(number)[max(0, start - at) : stop - at])
        return np.concatenate(parts)

    def _piece(self, number: int) -> NDArray[Any]:
        piece = self._file.cache.piece(self._file.url, self._file.listed, number)
        return piece.view(self.dtype.newbyteorder("<"))

    def max(self) -> int:
        """The largest id."""
        return max(int(piece.view(self.dtype.newbyteorder("<")).max()) for piece in self._file.pieces())

    def min(self) -> int:
        """The smallest id."""
        return min(int(piece.view(self.dtype.newbyteorder("<")).min()) for piece in self._file.pieces())


class CachedShard(RemoteTokenShard):
    """A token shard on a store with the attributes of a :class:`~lola_data.tokens.TokenShard`; ``tokens`` is a
    :class:`CachedTokens`.

    Args:
        cache: where its pieces are kept.
        root: URL of the token tree.
        path: of the shard below it, without ``.bin`` or ``.idx``.
        files: what is below the root.

    Raises:
        ShardError: a file that is missing, truncated, of another format, or the two files do not belong together.
    """

    def __init__(self, cache: ShardCache, root: str, path: str, files: dict[str, Listed]) -> None:
        url = storage.join(root, path)
        for suffix in ("idx", "bin"):
            if f"{path}.{suffix}" not in files:
                raise ShardError(f"{url}.{suffix}: is not there; a shard is the pair of files .bin and .idx")
        self.files = {kind: CachedFile(cache, f"{url}.{kind}", files[f"{path}.{kind}"]) for kind in ("idx", "bin")}
        super().__init__(url, index=self.files["idx"].content(), size=files[f"{path}.bin"].size)
        self.tokens = CachedTokens(self.files["bin"], self.dtype)  # pyright: ignore[reportAttributeAccessIssue]

    def _ids(self, start: int, end: int) -> NDArray[np.integer]:
        return self.tokens[start:end]
