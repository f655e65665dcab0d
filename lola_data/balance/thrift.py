"""What pyarrow does not tell of a Parquet file: headers of pages, and the sizes of texts that a footer may hold.

In: bytes in Thrift's compact protocol, as Parquet writes its headers and footer. Out: the few fields that are asked
for; all others are passed over by compiled code, so that a file of many row groups costs little.

Sources: the specifications "Thrift Compact protocol encoding" (Apache Thrift) and "Apache Parquet Format"
(``parquet.thrift``), with ``SizeStatistics`` (version 2.10).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Read: TypeAlias = "Callable[[int, int], bytes]"
"""(offset, size) -> at most ``size`` bytes of a file; a negative offset counts from its end."""

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
"""Types of a page."""
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8
"""Encodings."""

_MAGIC = b"PAR1"
_MOST_NESTED = 16
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)


class PageHeader(NamedTuple):
    """Header of a page; -1 where it does not say.

    ``kind``; bytes ``unpacked`` and ``packed`` of its body; ``values``, nulls included; ``encoding`` of the values and
    ``level_encoding`` of the definition levels; ``nulls``; of a page of version 2 bytes of its ``definition`` and
    ``repetition`` levels, and 0 in ``compressed`` if its values are not.
    """

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    level_encoding: int
    nulls: int
    definition: int
    repetition: int
    compressed: int


def page_header(data: bytes) -> tuple[PageHeader, int] | None:
    """The header of a page that ``data`` begins with, and its length; None if it is none, or ``data`` ends inside it.

    >>> header, length = page_header(bytes([0x15, 0, 0x15, 80, 0x15, 40, 0x2C, 0x15, 20, 0x15, 0, 0x15, 6, 0, 0]))
    >>> header.unpacked, header.packed, header.values, length
    (40, 20, 10, 15)
    """
    found = np.empty(len(PageHeader._fields), np.int64)
    length = _page(np.frombuffer(data, np.uint8), found)
    return (PageHeader(*found.tolist()), int(length)) if length > 0 else None


def text_bytes_by_group(read: Read, column: str) -> list[int | None] | None:
    """UTF-8 bytes of all values of a string column, for each row group: ``unencoded_byte_array_data_bytes`` of the
    column's size statistics, None where its writer left them out. None if the footer cannot be understood."""
    try:
        tail = read(-8, 8)
        if len(tail) < 8 or tail[4:] != _MAGIC:
            return None
        length = struct.unpack("<I", tail[:4])[0]
        footer = np.frombuffer(read(-8 - length, length), np.uint8)
    except OSError:
        return None
    # A row group takes more bytes than this.
    sizes = np.full(footer.size // 4, -1, np.int64)
    count = _sizes(footer, np.frombuffer(column.encode(), np.uint8), sizes)
    return None if count < 0 else [None if size < 0 else size for size in sizes[:count].tolist()]


# A place of -1 is one beyond the end, or of something that is no Thrift.


@numba.njit(cache=True, nogil=True)
def _number(data, at):
    """A varint and the place after it."""
    value, shift = np.int64(0), 0
    while 0 <= at < data.size and shift < 63:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return np.int64(0), np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _list_head(data, at):
    """Values of a list, their type, and the place of the first."""
    if not 0 <= at < data.size:
        return np.int64(0), np.int64(0), np.int64(-1)
    count, kind = np.int64(data[at]) >> 4, np.int64(data[at]) & 0x0F
    at += 1
    if count == 0x0F:
        count, at = _number(data, at)
    return count, kind, np.int64(at)


@numba.njit(cache=True, nogil=True)
def _field_head(data, at, number):
    """Number and type of the field that begins at ``at``, and the place of its value; type 0 ends a structure."""
    if not 0 <= at < data.size:
        return np.int64(0), np.int64(0), np.int64(-1)
    step, kind = np.int64(data[at]) >> 4, np.int64(data[at]) & 0x0F
    at += 1
    if kind and step == 0:
        coded, at = _number(data, at)
        return (coded >> 1) ^ -(coded & 1), kind, np.int64(at)
    return number + step, kind, np.int64(at)


@numba.njit(cache=True, nogil=True)
def _skip(data, at, kind):
    """The place after a value of this type."""
    kinds = np.empty(_MOST_NESTED, np.int64)
    left = np.empty(_MOST_NESTED, np.int64)  # of a list; -1 of a structure
    depth = 0
    in_list = False
    while True:
        if kind in (_STRUCT, _LIST, _SET):
            if depth == _MOST_NESTED:
                return np.int64(-1)
            if kind == _STRUCT:
                kinds[depth], left[depth] = _STRUCT, -1
            else:
                left[depth], kinds[depth], at = _list_head(data, at)
            depth += 1
        elif kind == _BINARY:
            size, at = _number(data, at)
            at = at + size if 0 <= at <= data.size - size and size >= 0 else np.int64(-1)
        elif _I16 <= kind <= _I64:
            _, at = _number(data, at)
        elif kind == _DOUBLE:
            at += 8
        elif kind == _BYTE or (in_list and kind in (_TRUE, _FALSE)):
            at += 1
        elif kind not in (_TRUE, _FALSE):
            return np.int64(-1)
        if at < 0 or at > data.size:
            return np.int64(-1)
        # The next value: of the innermost list or structure that has another one.
        while depth:
            if left[depth - 1] < 0:
                _, kind, at = _field_head(data, at, 0)
                if at < 0:
                    return np.int64(-1)
                if kind != _STOP:
                    in_list = False
                    break
            elif left[depth - 1]:
                left[depth - 1] -= 1
                kind = kinds[depth - 1]
                in_list = True
                break
            depth -= 1
        if not depth:
            return np.int64(at)


@numba.njit(cache=True, nogil=True)
def _find(data, at, wanted):
    """The place and type of a field of the structure that begins at ``at``; -1 if it has none."""
    number = np.int64(0)
    while True:
        number, kind, at = _field_head(data, at, number)
        if at < 0 or kind == _STOP:
            return np.int64(-1), np.int64(0)
        if number == wanted:
            return at, kind
        at = _skip(data, at, kind)
        if at < 0:
            return np.int64(-1), np.int64(0)


@numba.njit(cache=True, nogil=True)
def _integer(data, at, wanted):
    """A field of the structure at ``at`` that is a number or a truth value; -1 if it has none."""
    place, kind = _find(data, at, wanted)
    if place < 0:
        return np.int64(-1)
    if kind in (_TRUE, _FALSE):
        return np.int64(kind == _TRUE)
    if not _I16 <= kind <= _I64:
        return np.int64(-1)
    coded, place = _number(data, place)
    return (coded >> 1) ^ -(coded & 1) if place >= 0 else np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _sizes(footer, name, sizes):
    """Fill in the bytes of the column in each row group, -1 where unknown; row groups, or -1."""
    groups, kind, at = _list_head(footer, _find(footer, 0, 4)[0])
    if at < 0 or kind != _STRUCT or groups > sizes.size:
        return -1
    for group in range(groups):
        chunks, kind, chunk = _list_head(footer, _find(footer, at, 1)[0])
        if chunk < 0 or kind != _STRUCT:
            return -1
        for _ in range(chunks):
            meta = _find(footer, chunk, 3)[0]
            if meta < 0:
                return -1
            parts, kind, part = _list_head(footer, _find(footer, meta, 3)[0])
            if part < 0 or kind != _BINARY:
                return -1
            length, part = _number(footer, part)
            if part < 0 or length > footer.size - part:
                return -1
            if parts == 1 and length == name.size and np.array_equal(footer[part : part + length], name):
                told = _find(footer, meta, 16)[0]
                if told >= 0:
                    sizes[group] = _integer(footer, told, 1)
            chunk = _skip(footer, chunk, _STRUCT)
            if chunk < 0:
                return -1
        at = _skip(footer, at, _STRUCT)
        if at < 0:
            return -1
    return groups


@numba.njit(cache=True, nogil=True)
def _page(data, out):
    """Fill in the fields of a page's header; its length, or -1."""
    end = _skip(data, 0, _STRUCT)
    if end < 0:
        return -1
    out[:] = -1
    for place in range(3):
        out[place] = _integer(data, 0, place + 1)
    if out[0] == DATA_V2:
        own = _find(data, 0, 8)[0]
        if own >= 0:
            out[3], out[4] = _integer(data, own, 1), _integer(data, own, 4)
            out[6], out[7] = _integer(data, own, 2), _integer(data, own, 5)
            out[8], out[9] = _integer(data, own, 6), _integer(data, own, 7)
    else:
        own = _find(data, 0, 5 if out[0] == DATA else 7)[0]
        if own >= 0:
            out[3], out[4] = _integer(data, own, 1), _integer(data, own, 2)
        if own >= 0 and out[0] == DATA:
            out[5] = _integer(data, own, 3)
            statistics = _find(data, own, 5)[0]
            if statistics >= 0:
                out[6] = _integer(data, statistics, 3)
    return end
