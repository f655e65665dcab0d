"""Texts that are not clean: invalid UTF-8, NUL characters, too long, blank.

In: an Arrow column of strings as it came from a file (Arrow does not look at the bytes when it reads). Out: one boolean
per row. A clean column, the ordinary case, is told by one pass over its buffer; rows are gone through only where there
is a fault to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.buffers import Text, string_buffer, string_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.buffers import Bytes, Offsets

Mask = npt.NDArray[np.bool_]


def invalid_utf8(text: Text) -> Mask:
    """Rows that are not valid UTF-8 (Unicode 3.9, table 3-7: no overlong forms, no surrogates, none past U+10FFFF).

    Args:
        text: (n,) strings; a null is an empty text.

    Returns:
        (n,) bool.
    """
    return _by_chunk(text, _invalid_utf8)


def has_nul(text: Text) -> Mask:
    """Rows with a NUL character (U+0000); (n,) bool. The text need not be valid."""
    return _by_chunk(text, _has_nul)


def oversized(text: Text, max_bytes: int) -> Mask:
    """Rows of more than ``max_bytes`` UTF-8 bytes; (n,) bool. The text need not be valid."""
    return _by_chunk(text, lambda chunk: np.diff(string_buffer(chunk)[1]) > max_bytes)


def is_blank(text: Text) -> Mask:
    """Rows that are null, empty or nothing but Unicode white space; (n,) bool. The text must be valid UTF-8."""
    return _by_chunk(text, _is_blank)


def first_row(mask: Mask) -> int | None:
    """Number of the first row that is set, or None."""
    return int(np.argmax(mask)) if mask.any() else None


def _by_chunk(text: Text, check: Callable[[pa.Array], Mask]) -> Mask:
    parts = [check(chunk) for chunk in string_chunks(text)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)


def _invalid_utf8(chunk: pa.Array) -> Mask:
    bad = np.zeros(len(chunk), dtype=np.bool_)
    try:
        chunk.validate(full=True)
    except pa.ArrowInvalid:
        _find_invalid(*string_buffer(chunk), bad)
    return bad


def _has_nul(chunk: pa.Array) -> Mask:
    data, offsets = string_buffer(chunk)
    start, stop = int(offsets[0]), int(offsets[-1])
    places = np.flatnonzero(data[start:stop] == 0) + start
    mask = np.zeros(len(chunk), dtype=np.bool_)
    # Empty rows share their offset with the row after them; the row that holds a byte is the last that begins there.
    mask[np.searchsorted(offsets, places, side="right") - 1] = True
    return mask


def _is_blank(chunk: pa.Array) -> Mask:
    empty = pc.equal(pc.binary_length(chunk), 0)
    return pc.or_kleene(empty, pc.utf8_is_space(chunk)).fill_null(True).to_numpy(zero_copy_only=False)


@numba.njit(nogil=True, cache=True)
def _find_invalid(data: Bytes, offsets: Offsets, bad: Mask) -> None:
    for row in range(offsets.size - 1):
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            lead = data[at]
            if lead < 0x80:
                at += 1
                continue
            # The lead byte decides how many bytes follow, and the bounds of the first of them.
            low, high = 0x80, 0xBF
            if 0xC2 <= lead <= 0xDF:
                following = 1
            elif 0xE0 <= lead <= 0xEF:
                following = 2
                low = 0xA0 if lead == 0xE0 else 0x80
                high = 0x9F if lead == 0xED else 0xBF
            elif 0xF0 <= lead <= 0xF4:
                following = 3
                low = 0x90 if lead == 0xF0 else 0x80
                high = 0x8F if lead == 0xF4 else 0xBF
            else:
                bad[row] = True
                break
            if at + following >= end or not low <= data[at + 1] <= high:
                bad[row] = True
                break
            for place in range(at + 2, at + following + 1):
                if not 0x80 <= data[place] <= 0xBF:
                    bad[row] = True
            if bad[row]:
                break
            at += following + 1
