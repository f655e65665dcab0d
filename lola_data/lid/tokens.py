"""A text's bytes cut into fastText's tokens.

In: UTF-8 bytes. Out: places of tokens, with a key of 32 bytes that names a shorter token. What separates tokens is what
separates fastText's, and more: see :func:`separator`.
"""

from __future__ import annotations

import numba
import numpy as np

from lola_data.hashes import STEP_A, STEP_B, mix64
from lola_data.lid.vectors import load_8, next_of

LONGEST_KEY = 32
"""Bytes of the longest token that its key holds whole."""

_U8, _U32 = np.uint64(8), np.uint64(32)
_ONE = np.uint64(1)
_TWO_BYTES, _THREE_BYTES, _FOUR_BYTES = (np.uint64((1 << 8 * count) - 1) for count in (2, 3, 4))
_NEXT_LINE = np.uint64(0x85C2)
# U+2028 and U+2029 differ in the last bit of the third byte.
_BUT_LAST_BIT, _LINE_SEPARATOR = np.uint64(0xFEFFFF), np.uint64(0xA880E2)
_END_OF_SENTENCE = np.uint64(int.from_bytes(b"</s>", "little"))
_LABEL, _LABEL_END = np.uint64(int.from_bytes(b"__label_", "little")), np.uint64(ord("_"))
# A separator begins with a byte that is at most a space, or with one of these three.
_next_suspect = next_of(32, 0x3C, 0xC2, 0xE2)


@numba.njit(cache=True, nogil=True)
def _tail(data, at, size):
    value = np.uint64(0)
    for byte in range(min(size, 8)):
        value |= np.uint64(data[np.uint64(at + byte)]) << np.uint64(8 * byte)
    return value


@numba.njit(cache=True, nogil=True, forceinline=True)
def first_8(data, at, size):
    """The first 8 of ``size`` bytes at ``at``, the first of them lowest, zeros for those that are not there."""
    if at + 8 > data.size:
        return _tail(data, at, size)
    value = load_8(data, at)
    return value if size >= 8 else value & ((_ONE << np.uint64(8 * size)) - _ONE)


@numba.njit(cache=True, nogil=True, forceinline=True)
def separator(data, at, end):
    """Bytes of the separator at ``at`` < ``end``, 0 if there is none.

    fastText's own (space, tab, LF, CR, VT, FF, NUL); U+0085, U+2028 and U+2029; and the literal ``</s>``.
    """
    value = first_8(data, at, end - at)
    byte = value & np.uint64(0xFF)
    width = 0
    if byte <= _U32:
        width = np.int64((byte == _U32) | (byte == np.uint64(0)) | (byte - np.uint64(9) <= np.uint64(4)))
    elif value & _TWO_BYTES == _NEXT_LINE:
        width = 2
    elif value & _BUT_LAST_BIT == _LINE_SEPARATOR:
        width = 3
    elif value & _FOUR_BYTES == _END_OF_SENTENCE:
        width = 4
    return width


@numba.njit(cache=True, nogil=True)
def token_begin(data, at, end):
    """Where the next token begins; ``end`` if there is none."""
    width = 1
    while at < end and width > 0:
        width = separator(data, at, end)
        at += width
    return at


@numba.njit(cache=True, nogil=True)
def token_end(data, at, end):
    """Where the token that holds ``at`` ends."""
    inside = True
    while inside and at < end:
        step = _next_suspect(data, at) if at + 16 <= data.size else 0
        at = min(at + step, end)
        if step < 16 and at < end:
            inside = separator(data, at, end) == 0
            at += inside
    return at


@numba.njit(cache=True, nogil=True)
def _is_wide_space(three):
    # U+2000 to U+200A, U+1680, U+202F, U+205F, U+3000.
    return (0x8080E2 <= three <= 0x8A80E2 and three & _TWO_BYTES == 0x80E2) or three in (
        0x809AE1,
        0xAF80E2,
        0x9F81E2,
        0x8080E3,
    )


@numba.njit(cache=True, nogil=True)
def is_blank(data, at, end):
    """Whether a text is nothing but white space (``str.isspace``) and separators."""
    width = 1
    while at < end and width > 0:
        width = separator(data, at, end)
        if width == 0:
            value = first_8(data, at, end - at)
            two, three = value & _TWO_BYTES, value & _THREE_BYTES
            if 0x1C <= value & np.uint64(0xFF) <= 0x1F:
                width = 1
            elif two == 0xA0C2:
                width = 2
            elif _is_wide_space(three):
                width = 3
        at += width
    return at >= end


@numba.njit(cache=True, nogil=True)
def is_label(data, at, size):
    """Whether a token begins like a label: fastText then takes it for one, known or not."""
    ninth = first_8(data, at + 8, max(size - 8, 0)) & np.uint64(0xFF)
    return (first_8(data, at, size) == _LABEL) & (ninth == _LABEL_END)


@numba.njit(cache=True, nogil=True, forceinline=True)
def write_key(data, begin, size, keys, at):
    """Write the token's bytes, filled up with zeros, into keys[at : at + 4]; returns a hash of them."""
    for part in range(4):
        left = size - 8 * part
        keys[np.uint64(at + part)] = first_8(data, begin + 8 * part, left) if left > 0 else np.uint64(0)
    place = np.uint64(at)
    first, second, third, fourth = (
        keys[place],
        keys[place + _ONE],
        keys[place + np.uint64(2)],
        keys[place + np.uint64(3)],
    )
    return mix64(first ^ mix64(second ^ third * STEP_A ^ fourth * STEP_B))
