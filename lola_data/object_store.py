"""Objects on a store behind fsspec (``s3://``, ``gs://``, ...): few large reads, and writes that are whole or absent.

Every request to a store takes tens of milliseconds, however little it asks for. :class:`RemoteFile` therefore asks for
the bytes that are needed next in pieces of many megabytes: those that a reader of Parquet foresees
(:meth:`RemoteFile.foresee`), else what lies ahead of the place that is read. :class:`Upload` sends a small object in
one request and a large one in large parts; the store shows neither before it is complete.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lola_data import credentials
from lola_data.errors import ShardError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

BLOCK_BYTES = 32 * 2**20
"""Most bytes asked for in one request, and how far is read ahead."""
TAIL_BYTES = 2**18
"""Read of the end of a file at once: the footer of a Parquet file with all that belongs to it."""
HOLE_BYTES = 2**20
"""Bytes that nobody wants are read along where two stretches lie no farther apart."""
PART_BYTES = 32 * 2**20
"""Bytes of a part of a multipart upload; a smaller object is sent in one request. A store takes 10,000 parts."""

_LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs", "gcsfs", "adlfs", "azure", "google"})
"""Packages whose errors are those of a store."""


def sentence(error: BaseException) -> str:
    """The first line of what an error says, without credentials."""
    told = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return credentials.redacted(told)


@contextmanager
def told_of(place: str) -> Iterator[None]:
    """Tell in a line what goes wrong at ``place``: a store's library raises errors of its own, for want of keys even.

    Raises:
        StoreError: in the place of such an error. FileNotFoundError and FileExistsError are passed on.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, ShardError):
        raise
    except PermissionError as error:
        raise StoreError(
            f"{place}: access refused ({sentence(error)}); check the credentials and what they allow"
        ) from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise StoreError(
            f"{place}: the store does not answer as it should ({type(error).__name__}: {sentence(error)}). Check the "
            f"address, the credentials and the network, and run the same command again: what is complete is kept"
        ) from error


def version_in(info: dict[str, Any]) -> str:
    """What a store says of an object that changes when it is written anew; empty if it says nothing of the kind."""
    for name in ("ETag", "etag", "generation", "LastModified", "mtime", "last_commit", "created"):
        if info.get(name):
            return str(info[name])
    return ""


class RemoteFile(io.BufferedIOBase):
    """An object opened for reading, in few large requests.

    Args:
        place: its address, for messages.
        handle: of fsspec, opened without a cache of its own, so that a read of it is a request.
        size: bytes of the object.
        ahead: bytes to read ahead of what is asked for. 0: exactly what is asked for.
        tail: bytes of the end that are read at once when the last of them are asked for, and kept.
    """

    def __init__(self, place: str, handle: Any, size: int, *, ahead: int = BLOCK_BYTES, tail: int = TAIL_BYTES) -> None:
        super().__init__()
        self._place = place
        self._handle = handle
        self.size = size
        """Bytes of the object."""
        self.version = version_in(getattr(handle, "details", None) or {})
        """See :func:`version_in`."""
        self._ahead = ahead
        self._tail_bytes = tail
        self._at = 0
        self._tail: tuple[int, bytes] | None = None
        # The piece in use and the one before it: a value may lie across the border of two.
        self._held: list[tuple[int, bytes]] = []
        self._planned: list[tuple[int, int]] = []

    def foresee(self, stretches: Iterable[tuple[int, int]]) -> None:
        """Say which bytes will be read, as (start, end): they are fetched in large pieces when the first is needed."""
        self._planned = coalesced(stretches)

    def foresees(self, stretches: Iterable[tuple[int, int]]) -> bool:
        """Whether all of these are among what has been foreseen."""
        return all(self._piece_at(start) is not None and self._covers(start, end) for start, end in stretches)

    def _covers(self, start: int, end: int) -> bool:
        while start < end:
            piece = self._piece_at(start)
            if piece is None:
                return False
            start = piece[1]
        return True

    def _piece_at(self, at: int) -> tuple[int, int] | None:
        place = bisect_right(self._planned, (at, self.size + 1)) - 1
        if place >= 0 and self._planned[place][0] <= at < self._planned[place][1]:
            return self._planned[place]
        return None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place. Costs no request."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(22, "seek before the start of the file")
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """``size`` bytes, or all that is left."""
        left = max(0, self.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._bytes(self._at, self._at + wanted)
        self._at += wanted
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """The same as :meth:`read`, of what has been fetched already where that is something."""
        return self.read(min(size, BLOCK_BYTES) if size >= 0 else BLOCK_BYTES)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of what has been fetched."""
        self._tail, self._held, self._planned = None, [], []
        self._handle.close()
        super().close()

    def _bytes(self, start: int, end: int) -> bytes:
        parts: list[bytes] = []
        while start < end:
            piece_start, piece = self._fetched(start) or self._fetch(start, end)
            part = piece[start - piece_start : end - piece_start]
            if len(part) == end - start and not parts:
                return part
            if not part:
                raise OSError(5, f"the store gave {len(piece):,} bytes where {end - start:,} more were asked for")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _fetched(self, at: int) -> tuple[int, bytes] | None:
        for start, data in (*self._held, *([self._tail] if self._tail else [])):
            if start <= at < start + len(data):
                return start, data
        return None

    def _fetch(self, start: int, end: int) -> tuple[int, bytes]:
        piece = self._piece_at(start)
        if piece is not None:
            return self._hold(*piece)
        if self._tail is None and end == self.size and end - start <= self._tail_bytes:
            first = max(0, self.size - self._tail_bytes)
            self._tail = (first, self._request(first, self.size))
            return self._tail
        stop = min(self.size, max(end, start + self._ahead) if self._ahead else end)
        if self._tail is not None and self._ahead and start < self._tail[0] < stop and end <= self._tail[0]:
            stop = self._tail[0]
        return self._hold(start, stop)

    def _hold(self, start: int, end: int) -> tuple[int, bytes]:
        found = (start, self._request(start, end))
        self._held = [found, *self._held[:1]]
        return found

    def _request(self, start: int, end: int) -> bytes:
        with told_of(self._place):
            self._handle.seek(start)
            return self._handle.read(end - start)


def coalesced(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches of a file put together to pieces of at most :data:`BLOCK_BYTES`, ascending, with small holes filled.

    A stretch that is longer is cut into equal pieces.

    >>> coalesced([(400_000, 500_000), (0, 300_000), (5_000_000, 5_100_000)])
    [(0, 500000), (5000000, 5100000)]
    """
    pieces: list[tuple[int, int]] = []
    for start, end in sorted(one for one in stretches if one[0] < one[1]):
        if pieces and start <= pieces[-1][1] + HOLE_BYTES and max(end, pieces[-1][1]) - pieces[-1][0] <= BLOCK_BYTES:
            pieces[-1] = (pieces[-1][0], max(end, pieces[-1][1]))
            continue
        if pieces:
            start = max(start, pieces[-1][1])
        count = max(1, -(-(end - start) // BLOCK_BYTES))
        edges = [start + (end - start) * number // count for number in range(count + 1)]
        pieces += [(one, other) for one, other in pairwise(edges) if one < other]
    return pieces


class Upload(io.BufferedIOBase):
    """An object being written. It appears when :meth:`finish` returns, and never if :meth:`abandon` is called instead.

    Args:
        place: its address, for messages.
        filesystem: of fsspec.
        path: in it.
    """

    def __init__(self, place: str, filesystem: Any, path: str) -> None:
        super().__init__()
        self._place = place
        self._filesystem = filesystem
        self._path = path
        self._start = io.BytesIO()
        self._parts: Any = None
        self._at = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._at

    def write(self, data: ReadableBuffer, /) -> int:
        """Take ``data``; what makes a part of it is sent."""
        size = memoryview(data).nbytes
        if self._parts is None and self._start.tell() + size <= PART_BYTES:
            self._start.write(data)
        else:
            with self._told():
                if self._parts is None:
                    self._parts = self._filesystem.open(self._path, "wb", block_size=PART_BYTES, autocommit=False)
                    self._parts.write(self._start.getvalue())
                    self._start = io.BytesIO()
                self._parts.write(data)
        self._at += size
        return size

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with told_of(self._place):
                yield
        except FileNotFoundError as error:
            # Folders need not be there, so it is the bucket.
            raise ShardError(
                f"{self._place}: cannot be written: {sentence(error)}; make it, or name another"
            ) from error

    def finish(self) -> None:
        """Send the rest; the object is there."""
        with self._told():
            if self._parts is None:
                self._filesystem.pipe_file(self._path, self._start.getvalue())
                self._start = io.BytesIO()
            else:
                self._parts.close()
                self._parts.commit()

    def abandon(self) -> None:
        """Give back what has been sent."""
        self._start = io.BytesIO()
        if self._parts is not None:
            with suppress(Exception):  # The error that led here is the one to tell; the store's own rules clean up.
                self._parts.discard()
            # So that nothing is sent when it is collected.
            with suppress(AttributeError):
                self._parts.closed = True
