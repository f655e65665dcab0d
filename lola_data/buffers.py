"""Arrow string columns as the flat arrays that compiled kernels read.

In: ``string`` or ``large_string`` arrays, chunked or not, sliced or not, with or without nulls. Out: per chunk the
UTF-8 bytes as uint8 and the int64 offsets of each value in them, without a copy of the bytes. A null reads as empty
text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

Text: TypeAlias = "pa.Array | pa.ChunkedArray"
"""A column of strings."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]

_NO_BYTES = np.zeros(1, dtype=np.uint8)
_CACHED = 2**18
"""Bytes looked at in one go, so that what is made of them stays in the cache."""


def string_chunks(text: Text) -> Iterator[pa.Array]:
    """The chunks of a column, each a ``string`` or ``large_string`` array.

    Raises TypeError for a column of any other type than strings (dictionaries of strings and all-null columns are
    decoded).
    """
    for chunk in text.chunks if isinstance(text, pa.ChunkedArray) else (text,):
        kind = chunk.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            yield chunk
        elif pa.types.is_null(kind) or pa.types.is_dictionary(kind) or pa.types.is_string_view(kind):
            yield chunk.cast(pa.large_string())
        else:
            raise TypeError(f"a column of strings is needed, not of {kind}")


def string_buffer(chunk: pa.Array) -> tuple[Bytes, Offsets]:
    """Bytes (B,) uint8 and offsets (N + 1,) int64 of a ``string`` or ``large_string`` array of N values.

    Value i is ``bytes[offsets[i]:offsets[i + 1]]``. The bytes are Arrow's own buffer: read only.
    """
    if chunk.null_count:
        chunk = chunk.fill_null("")
    if len(chunk) == 0:
        return _NO_BYTES, np.zeros(1, dtype=np.int64)
    _, offset_buffer, data_buffer = chunk.buffers()
    width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    start = chunk.offset
    offsets = np.frombuffer(offset_buffer, dtype=width)[start : start + len(chunk) + 1].astype(np.int64)
    if data_buffer is None or data_buffer.size == 0:
        return _NO_BYTES, offsets
    return np.frombuffer(data_buffer, dtype=np.uint8), offsets


def count_characters(data: Bytes) -> int:
    """Characters in valid UTF-8: its bytes but those that go on with a character, 0x80 to 0xBF.

    >>> count_characters(np.frombuffer("Würde".encode(), np.uint8))
    5
    """
    signed = data.view(np.int8)
    begun = 0
    for start in range(0, data.size, _CACHED):
        begun += int(np.count_nonzero(signed[start : start + _CACHED] >= -64))
    return begun
