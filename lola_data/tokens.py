"""Token shards: documents of token ids in, Megatron-Core indexed datasets (``.bin`` and ``.idx``) out, and back.

The ``.bin`` file is nothing but the token ids of all documents, one after the other. The ``.idx`` file says where each
document lies (all integers little-endian)::

    bytes  0-8    b"MMIDIDX\\0\\0"
    bytes  9-16   uint64   version, 1
    byte   17     uint8    code of the token dtype, see DTYPE_CODES
    bytes 18-25   uint64   S, number of sequences
    bytes 26-33   uint64   D + 1, number of document boundaries
    int32[S]      tokens in each sequence
    int64[S]      byte offset of each sequence in the .bin file
    int64[D + 1]  sequence at which each document begins; the last one is S

Here a document is one sequence, so S = D. Shards that other tools wrote with several sequences a document are read too.
The layout is that of ``megatron/core/datasets/indexed_dataset.py`` (Megatron-Core 0.16), which reads these files, as do
NeMo and GPT-NeoX. This module needs NumPy alone, so that a trainer can use it on a machine with nothing else.
"""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

import numpy as np

from lola_data.errors import ShardError
from lola_data.storage import sync_folder

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, DTypeLike, NDArray

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES: dict[str, int] = {
    "uint8": 1,
    "int8": 2,
    "int16": 3,
    "int32": 4,
    "int64": 5,
    "uint16": 8,
}
"""Code of each integer dtype in the index; 6 and 7 are floats, which no token id is."""
MAX_DOCUMENT_TOKENS = 2**31 - 1
"""Longest document the format can hold: its lengths are int32."""

_HEADER = struct.Struct("<9sQBQQ")
_DTYPE_NAMES = {code: name for name, code in DTYPE_CODES.items()}


def token_dtype(vocab_size: int) -> np.dtype:
    """Smallest dtype Megatron-Core would choose for a vocabulary: uint16 below 65,500 pieces, int32 from there on."""
    return np.dtype(np.uint16) if vocab_size < 65_500 else np.dtype(np.int32)


def sequence_pointers(lengths: ArrayLike, itemsize: int) -> NDArray[np.int64]:
    """Byte offset of each sequence: the running sum of the ``lengths`` before it, times ``itemsize``; int64 throughout.

    >>> sequence_pointers(np.array([2**31 - 100, 123], np.int32), 4).tolist()
    [0, 8589934192]
    """
    pointers = np.zeros(np.size(lengths), np.int64)
    np.cumsum(np.asarray(lengths, np.int64)[:-1] * np.int64(itemsize), out=pointers[1:])
    return pointers


def bin_path(prefix: str | os.PathLike[str]) -> Path:
    """The file of token ids of the shard ``prefix``."""
    return Path(f"{os.fspath(prefix)}.bin")


def idx_path(prefix: str | os.PathLike[str]) -> Path:
    """The index of the shard ``prefix``. It is the last file to appear: where it is, the shard is whole."""
    return Path(f"{os.fspath(prefix)}.idx")


def index_bytes(lengths: ArrayLike, dtype: DTypeLike) -> bytes:
    """Content of the ``.idx`` file for documents of ``lengths`` tokens of ``dtype``.

    Raises:
        ShardError: a dtype the format has no code for, or a length outside [0, 2^31 - 1].
    """
    dtype = _known_dtype(dtype)
    wide = np.asarray(lengths, np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > MAX_DOCUMENT_TOKENS):
        row = int(np.argmax((wide < 0) | (wide > MAX_DOCUMENT_TOKENS)))
        raise ShardError(
            f"document {row} has {int(wide[row]):,} tokens; an indexed dataset holds at most {MAX_DOCUMENT_TOKENS:,} "
            "in one document: split it"
        )
    return b"".join(
        (
            _HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype.name], wide.size, wide.size + 1),
            wide.astype("<i4").tobytes(),
            sequence_pointers(wide, dtype.itemsize).astype("<i8").tobytes(),
            np.arange(wide.size + 1, dtype="<i8").tobytes(),
        )
    )


class TokenShardWriter:
    """Write one shard, as a context manager; it appears whole when the block ends, or not at all.

    Both files are written under temporary names and renamed, the index last. Leaving the block by an exception removes
    what was written. ``documents``, ``tokens`` and, after the block, ``digests`` say what was written.

    Args:
        prefix: path without ``.bin`` or ``.idx``.
        dtype: of the ids.
        durable: outlive a loss of power too: the block then ends when the disk has the files. A stage need not wait,
            for it compares their sizes with its records when it is run again.

    Raises:
        ShardError: ids that do not fit ``dtype``, lengths that do not add up, or a disk that cannot be written to.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: DTypeLike, *, durable: bool = True) -> None:
        self.prefix = Path(prefix)
        self.dtype = _known_dtype(dtype)
        self.durable = durable
        self.documents = 0
        self.tokens = 0
        self.digests: dict[str, str] = {}
        """SHA-256 of the two files, keys ``bin`` and ``idx``; filled when the block ends."""
        self._lengths: list[NDArray[np.int32]] = []
        self._sha = hashlib.sha256()
        self._bin_tmp = self.prefix.with_name(f".{self.prefix.name}.bin.tmp")
        self._idx_tmp = self.prefix.with_name(f".{self.prefix.name}.idx.tmp")
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.prefix.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._bin_tmp.open("wb")
        except OSError as error:
            raise _cannot_write(bin_path(self.prefix), error) from error
        return self

    def add_documents(self, flat_ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
        """Append documents.

        Args:
            flat_ids: int[sum(lengths)], the token ids of all documents one after the other.
            lengths: int[D], tokens in each document; 0 is an empty document.
        """
        if self._stream is None:
            raise ValueError("TokenShardWriter.add_documents outside its `with` block")
        flat_ids, lengths = np.asarray(flat_ids), np.asarray(lengths)
        total = int(lengths.sum(dtype=np.int64))
        if flat_ids.ndim != 1 or lengths.ndim != 1 or total != flat_ids.size or (lengths.size and lengths.min() < 0):
            raise ShardError(
                f"{bin_path(self.prefix)}: got {flat_ids.size:,} token ids for lengths that add up to {total:,}; "
                "pass flat ids and the non-negative length of every document"
            )
        if lengths.size and int(lengths.max()) > MAX_DOCUMENT_TOKENS:
            index_bytes(lengths, self.dtype)
        if flat_ids.size:
            limits = np.iinfo(self.dtype)
            low, high = int(flat_ids.min()), int(flat_ids.max())
            if low < limits.min or high > limits.max:
                raise ShardError(
                    f"{bin_path(self.prefix)}: token id {low if low < limits.min else high} does not fit "
                    f"{self.dtype.name}; choose the dtype with token_dtype(vocab_size)"
                )
        data = flat_ids.astype(self.dtype.newbyteorder("<"), order="C", copy=False).data.cast("B") if total else b""
        try:
            self._stream.write(data)
        except OSError as error:
            raise _cannot_write(bin_path(self.prefix), error) from error
        self._sha.update(data)
        self._lengths.append(lengths.astype(np.int32))
        self.documents += lengths.size
        self.tokens += total

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        if kind is not None:
            self._discard(stream)
            return
        try:
            self._close(stream)
            lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int32)
            index = index_bytes(lengths, self.dtype)
            with self._idx_tmp.open("wb") as idx:
                idx.write(index)
                self._close(idx)
            # An index left from an earlier shard must never stand beside the new ids, not even for a moment.
            idx_path(self.prefix).unlink(missing_ok=True)
            self._bin_tmp.replace(bin_path(self.prefix))
            self._idx_tmp.replace(idx_path(self.prefix))
            if self.durable:
                sync_folder(self.prefix.parent)
        except OSError as failure:
            self._discard(stream)
            raise _cannot_write(bin_path(self.prefix), failure) from failure
        self.digests = {"bin": self._sha.hexdigest(), "idx": hashlib.sha256(index).hexdigest()}

    def _close(self, stream: BinaryIO) -> None:
        stream.flush()
        if self.durable:
            os.fsync(stream.fileno())
        stream.close()

    def _discard(self, stream: BinaryIO) -> None:
        # Closing writes what is still in the buffer, and a full disk has no room for it.
        with suppress(OSError):
            stream.close()
        self._bin_tmp.unlink(missing_ok=True)
        self._idx_tmp.unlink(missing_ok=True)


class TokenShard:
    """One shard, opened for reading: the index in memory, the token ids memory-mapped.

    Attributes:
        prefix: path without ``.bin`` or ``.idx``.
        dtype: NumPy dtype of the token ids.
        num_documents: D.
        num_tokens: N, tokens of all documents.
        lengths: int32[D], tokens in each document.
        pointers: int64[D], byte offset of each document in the ``.bin`` file.
        tokens: dtype[N], read-only, all documents one after the other.

    Raises:
        ShardError: a file that is missing, truncated, of another format, or the two files do not belong together.
    """

    tokens: NDArray[np.integer]

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = Path(prefix)
        idx, ids = idx_path(prefix), bin_path(prefix)
        index = _read_index(idx)
        try:
            size = ids.stat().st_size
        except OSError as error:
            raise ShardError(f"{ids}: {error.strerror or error}; an index needs its .bin file beside it") from error
        self._take_index(index, str(idx), str(ids), size)
        self.tokens = np.memmap(ids, self.dtype.newbyteorder("<"), "r") if size else np.zeros(0, self.dtype)
        self.tokens.flags.writeable = False

    def _take_index(self, index: _Index, idx: str, ids: str, size: int) -> None:
        """Set what the index says of a file of ids of ``size`` bytes; ``idx`` and ``ids`` name the two in messages."""
        self.dtype, sequences, pointers, boundaries = index
        itemsize = self.dtype.itemsize
        ends = pointers + sequences.astype(np.int64) * itemsize
        needed = int(ends.max()) if ends.size else 0
        if needed != size:
            fault = "is truncated" if size < needed else "does not belong to its index"
            name = idx.rpartition("/")[2]
            raise ShardError(f"{ids}: {fault}: {size:,} bytes where {name} names {needed:,}; {_REBUILD}")
        if not np.array_equal(pointers, sequence_pointers(sequences, itemsize)):
            raise ShardError(f"{idx}: sequences overlap or leave gaps in {ids.rpartition('/')[2]}; {_REBUILD}")

        if boundaries.size == sequences.size + 1:  # strictly rising from 0 to S, so every document is one sequence
            self.lengths: NDArray[np.int32] = sequences
            self.pointers: NDArray[np.int64] = pointers
        else:
            edges = np.append(pointers, size)[boundaries]
            lengths = np.diff(edges) // itemsize
            if lengths.size and lengths.max() > MAX_DOCUMENT_TOKENS:
                raise ShardError(f"{idx}: document {int(lengths.argmax())} has 2^31 tokens or more; split it")
            self.lengths = lengths.astype(np.int32)
            self.pointers = edges[:-1]
        self.num_documents = int(self.lengths.size)
        self.num_tokens = size // itemsize

    def __len__(self) -> int:
        return self.num_documents

    def __repr__(self) -> str:
        return f"TokenShard({str(self.prefix)!r}, documents={self.num_documents}, tokens={self.num_tokens})"

    def document(self, index: int) -> NDArray[np.integer]:
        """Token ids of document ``index``, dtype[lengths[index]], read-only and not copied.

        Raises:
            IndexError: ``index`` outside [0, num_documents).
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        start = int(self.pointers[index]) // self.dtype.itemsize
        return self._ids(start, start + int(self.lengths[index]))

    def _ids(self, start: int, end: int) -> NDArray[np.integer]:
        """Tokens ``start`` to ``end`` of the shard."""
        return self.tokens[start:end]


def shard_digests(prefix: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of the two files of a shard, keys ``bin`` and ``idx``: its writer's ``digests`` if nothing changed."""
    return {"bin": file_digest(bin_path(prefix)), "idx": file_digest(idx_path(prefix))}


def file_digest(path: Path) -> str:
    """SHA-256 of a file of token ids or an index.

    Raises:
        ShardError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; write the shard again") from error


_REBUILD = "write the shard again"


_Index: TypeAlias = "tuple[np.dtype, NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]"
"""Token dtype, sequence lengths int32[S], pointers int64[S], boundaries int64[D + 1]."""


def _read_index(path: Path) -> _Index:
    """What an index file says, checked for sense."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            code, count, edges = _read_header(stream.read(_HEADER.size), size, path)
            lengths = np.fromfile(stream, "<i4", count)
            pointers = np.fromfile(stream, "<i8", count)
            boundaries = np.fromfile(stream, "<i8", edges)
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; a shard is the pair of files .bin and .idx") from error
    return _checked(path, code, lengths, pointers, boundaries)


def parse_index(content: bytes, name: str) -> _Index:
    """The same of the bytes of an index: dtype, lengths int32[S], pointers int64[S] and boundaries int64[D + 1] of
    sequences and documents.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        ShardError: truncated, or of another format.
    """
    code, count, edges = _read_header(content[: _HEADER.size], len(content), name)
    start = _HEADER.size
    lengths = np.frombuffer(content, "<i4", count, start).astype(np.int32)
    pointers = np.frombuffer(content, "<i8", count, start + 4 * count).astype(np.int64)
    boundaries = np.frombuffer(content, "<i8", edges, start + 12 * count).astype(np.int64)
    return _checked(name, code, lengths, pointers, boundaries)


def _read_header(head: bytes, size: int, path: Path | str) -> tuple[int, int, int]:
    """Code of the dtype, sequences, and document boundaries of an index of ``size`` bytes."""
    if not head.startswith(MAGIC):
        if MAGIC.startswith(head):
            raise ShardError(f"{path}: index is truncated: {size} bytes; {_REBUILD}")
        raise ShardError(f"{path}: not the index of an indexed dataset (it begins with {head[:9]!r})")
    if len(head) < _HEADER.size:
        raise ShardError(f"{path}: index is truncated: {size} bytes; {_REBUILD}")
    _, version, code, count, edges = _HEADER.unpack(head)
    if version != VERSION:
        raise ShardError(f"{path}: indexed-dataset version {version}; only version {VERSION} can be read")
    if code not in _DTYPE_NAMES:
        raise ShardError(f"{path}: dtype code {code} is no integer type; known are {_DTYPE_NAMES}")
    expected = _HEADER.size + 12 * count + 8 * edges
    if size not in (expected, expected + count):  # one mode byte a sequence follows in multimodal sets
        fault = "is truncated" if size < expected else "has bytes left over"
        raise ShardError(f"{path}: index {fault}: {size:,} bytes where {expected:,} belong; {_REBUILD}")
    return code, count, edges


def _checked(
    path: Path | str, code: int, lengths: NDArray[Any], pointers: NDArray[Any], boundaries: NDArray[Any]
) -> _Index:
    count = lengths.size
    if lengths.size and (lengths.min() < 0 or pointers.min() < 0):
        raise ShardError(
            f"{path}: negative lengths or offsets (a 32-bit overflow of the tool that wrote it); {_REBUILD}"
        )
    if not boundaries.size or boundaries[0] != 0 or boundaries[-1] != count or (np.diff(boundaries) <= 0).any():
        raise ShardError(f"{path}: document boundaries do not run from 0 to the {count:,} sequences; {_REBUILD}")
    return np.dtype(_DTYPE_NAMES[code]), lengths, pointers, boundaries


def _known_dtype(dtype: DTypeLike) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype.name not in DTYPE_CODES:
        raise ShardError(
            f"token dtype {dtype.name} has no code in an indexed dataset; use one of {', '.join(DTYPE_CODES)}"
        )
    return dtype


def _cannot_write(path: Path, error: OSError) -> ShardError:
    return ShardError(
        f"{path}: cannot be written: {error.strerror or error}; free space or fix permissions and run again"
    )
