"""A file of numbered Arrow tables, any of which is read without the others: what a shuffle between tasks writes.

Layout: the tables one after the other, each an Arrow IPC stream (an empty one takes no bytes), then N + 1 little-endian
uint64 offsets, then N and a magic number, as uint64 too. A frame is found by the numbers at the end of the file, so a
file with many thousands of frames costs a reader three short reads.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.object_store import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = int.from_bytes(b"LOLAFRM1", "little")
_NUMBER = np.dtype("<u8")


class FrameWriter:
    """Writes the frames 0 to ``count`` - 1, in order. The file appears, whole, when the block ends without an error.

    Args:
        path: final name.
        count: frames there will be; those that are not written are empty.
    """

    def __init__(self, path: str, *, count: int) -> None:
        self.path = path
        self.count = count
        self.rows = 0
        self._offsets = [0]
        self._stack = ExitStack()
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> FrameWriter:
        self._handle = self._stack.enter_context(storage.atomic_output(self.path, durable=False))
        return self

    def write(self, number: int, table: pa.Table | pa.RecordBatch, *, compression: str | None = None) -> None:
        """Write one frame; ``compression``: of its columns, ``zstd`` for text, None for hashes.

        Raises ValueError if the frame is not beyond the one before it.
        """
        assert self._handle is not None
        if not len(self._offsets) - 1 <= number < self.count:
            raise ValueError(f"frame {number} of {self.count} after {len(self._offsets) - 1} others")
        self._skip_to(number)
        end = self._offsets[-1]
        if table.num_rows:
            sink = pa.BufferOutputStream()
            options = pa.ipc.IpcWriteOptions(compression=compression)
            with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
                stream.write(table)
            end += self._handle.write(sink.getvalue())
            self.rows += table.num_rows
        self._offsets.append(end)

    def _skip_to(self, number: int) -> None:
        self._offsets += [self._offsets[-1]] * (number + 1 - len(self._offsets))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._stack:
            if error is None and self._handle is not None:
                self._skip_to(self.count)
                self._handle.write(np.array([*self._offsets, self.count, _MAGIC], dtype=_NUMBER).tobytes())
            else:
                self._stack.__exit__(kind, error, trace)


class Frames:
    """The frames of a file, read one at a time. ``schema``: of those that are read; an empty one is a table of it."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema

    def read(self, number: int) -> pa.Table:
        """One frame.

        Raises:
            ShardError: the file is missing, cut off or of another kind.
            IndexError: there is no such frame.
        """
        for table in self._read([number]):
            return table
        raise AssertionError

    def __iter__(self) -> Iterator[pa.Table]:
        """All frames that have rows, in order."""
        yield from self._read(None)

    def _read(self, numbers: list[int] | None) -> Iterator[pa.Table]:
        width = _NUMBER.itemsize
        try:
            # Of one frame among many nothing more is fetched than the frame.
            with storage.open_input(self.path, ahead=BLOCK_BYTES if numbers is None else 0) as handle:
                handle.seek(0, 2)
                size = handle.tell()
                count, magic = self._numbers(handle, size - 2 * width, 2)
                if magic != _MAGIC or (count + 3) * width > size:
                    raise ShardError(f"{self.path}: not a file of frames, or cut off; run the stage with `--redo`")
                table_start = size - (count + 3) * width
                for number in range(count) if numbers is None else numbers:
                    if not 0 <= number < count:
                        raise IndexError(f"{self.path}: no frame {number} among {count}")
                    start, end = self._numbers(handle, table_start + number * width, 2)
                    if numbers is None and start == end:
                        continue
                    handle.seek(start)
                    yield self._table(handle.read(end - start))
        except FileNotFoundError as error:
            raise ShardError(f"{self.path}: is gone; run the stage with `--redo`") from error
        except pa.ArrowException as error:
            raise ShardError(f"{self.path}: damaged ({error}); run the stage with `--redo`") from error

    def _numbers(self, handle: IO[bytes], start: int, count: int) -> list[int]:
        if start < 0:
            raise ShardError(f"{self.path}: not a file of frames, or cut off; run the stage with `--redo`")
        handle.seek(start)
        return np.frombuffer(handle.read(count * _NUMBER.itemsize), dtype=_NUMBER).tolist()

    def _table(self, data: bytes) -> pa.Table:
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all() if data else self.schema.empty_table()
