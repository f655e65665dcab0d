"""Single pages of a Parquet column of strings: what lets a sample of a large tree be read instead of the whole of it.

In: a column chunk of a row group in a local file. Out: where its data pages lie, how many rows and about how many bytes
of text each holds, from their headers alone; and of the pages that are asked for the size of each text, and the texts.
pyarrow reads whole chunks only. Plain and dictionary encoding are read here, of pages version 1 and 2, which is how
strings are written; for anything else :func:`find_pages` says None, and the chunk is left to pyarrow.

Source: the specification "Apache Parquet Format" (``parquet.thrift``, ``Encodings.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa

from lola_data.balance.thrift import (
    DATA,
    DATA_V2,
    DICTIONARY,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE,
    RLE_DICTIONARY,
    page_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import pyarrow.parquet as pq

    from lola_data.balance.thrift import PageHeader, Read
    from lola_data.buffers import Bytes

    Numbers = npt.NDArray[np.int64]

_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD")
_HEADER_BYTES = 256
"""Read at a time for a header: most are shorter, but it may hold the smallest and largest text of its page."""
_MOST_HEADER_BYTES = 2**22
_LENGTH_BYTES = 4
"""Before each value in plain encoding."""


class DamagedPage(Exception):
    """A page that does not hold what its header says."""


@dataclass(frozen=True, slots=True)
class Page:
    """A data page.

    Attributes:
        first_row: of the row group, from 0.
        rows: nulls included.
        text_bytes: UTF-8 bytes of its texts as nearly as headers tell: exact in plain encoding without nulls.
        at: place of its body in the file.
        header: of the page.
    """

    first_row: int
    rows: int
    text_bytes: int
    at: int
    header: PageHeader

    @property
    def in_dictionary(self) -> bool:
        """Whether its values are numbers of entries of the chunk's dictionary."""
        return self.header.encoding != PLAIN


@dataclass(frozen=True, slots=True)
class ChunkPages:
    """The data pages of a column chunk, in order, and what is needed to read them."""

    pages: tuple[Page, ...]
    dictionary: tuple[int, PageHeader] | None
    """Place of its body in the file, and its header."""
    codec: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class PageTexts:
    """The texts of a page: ``data`` uint8, with ``starts``, ``sizes`` (UTF-8 bytes) and ``characters`` int64[rows]. A
    null is an empty text. Bytes that are not UTF-8 stay as they are."""

    data: Bytes
    starts: Numbers
    sizes: Numbers
    characters: Numbers

    def take(self, chosen: npt.NDArray[np.bool_] | None = None) -> pa.Array:
        """The texts of the chosen rows (None: all), large_string."""
        if chosen is None:
            return join_texts(self.data, self.starts, self.sizes)
        return join_texts(self.data, self.starts[chosen], self.sizes[chosen])


def join_texts(data: Bytes, starts: Numbers, sizes: Numbers) -> pa.Array:
    """Texts that lie anywhere in ``data``, large_string[n]; a copy."""
    offsets = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    joined = np.empty(max(1, int(offsets[-1])), np.uint8)
    _gather(data, starts, offsets, joined)
    return pa.LargeStringArray.from_buffers(sizes.size, pa.py_buffer(offsets), pa.py_buffer(joined))


def find_pages(read: Read, chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema, rows: int) -> ChunkPages | None:
    """The pages of a chunk by their headers, or None where they cannot be read one by one.

    Args:
        read: from the file.
        chunk: of the row group.
        column: its column in the file's schema.
        rows: of the row group.
    """
    codec, nullable = chunk.compression, bool(column.max_definition_level)
    if (
        column.physical_type != "BYTE_ARRAY"
        or column.max_repetition_level
        or column.max_definition_level > 1
        or codec not in _CODECS
    ):
        return None
    start, dictionary_start = chunk.data_page_offset, chunk.dictionary_page_offset
    start = min(start, dictionary_start) if dictionary_start else start
    found: list[tuple[int, PageHeader]] = []
    dictionary: tuple[int, PageHeader] | None = None
    for at, header in _headers(read, start, start + chunk.total_compressed_size):
        if header is None or min(header.packed, header.unpacked, header.values) < 0:
            return None
        if header.kind == DICTIONARY:
            dictionary = (at, header)
            if header.encoding not in (PLAIN, PLAIN_DICTIONARY):
                return None
        elif header.kind in (DATA, DATA_V2):
            found.append((at, header))
            if header.encoding not in (PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY):
                return None
            if header.kind == DATA and nullable and header.level_encoding != RLE:
                return None
    pages = _placed(found, dictionary, nullable=nullable)
    if sum(page.rows for page in pages) != rows or any(page.in_dictionary for page in pages) > (dictionary is not None):
        return None
    return ChunkPages(tuple(pages), dictionary, "" if codec == "UNCOMPRESSED" else codec.lower(), nullable)


def read_pages(read: Read, chunk: ChunkPages, pages: Sequence[Page]) -> Iterator[PageTexts]:
    """The texts of each of ``pages``.

    Raises:
        DamagedPage: a page does not hold what its header says.
    """
    entries: PageTexts | None = None
    for page in pages:
        values, valid = _body(read, chunk, page)
        present = page.rows if valid is None else int(np.count_nonzero(valid))
        if page.in_dictionary:
            if entries is None:
                entries = _entries(read, chunk)
            texts = _looked_up(values, present, entries)
        else:
            texts = _plain(values, present)
        if valid is not None:
            places = np.maximum(np.cumsum(valid) - 1, 0) if present else np.zeros(page.rows, np.int64)
            parts = [part[places] * valid if present else places for part in (texts.sizes, texts.characters)]
            texts = PageTexts(texts.data, texts.starts[places] if present else places, *parts)
        yield texts


def _headers(read: Read, at: int, end: int) -> Iterator[tuple[int, PageHeader | None]]:
    """Where each page's body begins, and its header; None for one that is none, after which there is no going on."""
    while at < end:
        size = _HEADER_BYTES
        found = page_header(read(at, min(size, end - at)))
        while found is None and size < min(_MOST_HEADER_BYTES, end - at):
            size *= 16
            found = page_header(read(at, min(size, end - at)))
        if found is None or found[0].packed < 0:
            yield at, None
            return
        header, length = found
        yield at + length, header
        at += length + header.packed


def _placed(
    found: list[tuple[int, PageHeader]], dictionary: tuple[int, PageHeader] | None, *, nullable: bool
) -> list[Page]:
    """Pages with their rows; the bytes of the dictionary, whose entries are mostly used once, go to the rows that use
    it."""
    by_number = sum(header.values for _, header in found if header.encoding != PLAIN)
    shared = max(0, dictionary[1].unpacked - _LENGTH_BYTES * dictionary[1].values) if dictionary else 0
    pages: list[Page] = []
    first = 0
    for at, header in found:
        rows = header.values
        size = shared * rows // by_number if header.encoding != PLAIN else _plain_bytes(header, nullable=nullable)
        pages.append(Page(first, rows, max(0, size), at, header))
        first += rows
    return pages


def _plain_bytes(header: PageHeader, *, nullable: bool) -> int:
    """UTF-8 bytes of a plain page: its body without the lengths of the values and without the definition levels."""
    nulls = max(0, header.nulls)
    lengths = _LENGTH_BYTES * (header.values - nulls)
    if header.kind == DATA_V2:
        return header.unpacked - max(0, header.definition) - max(0, header.repetition) - lengths
    # All rows being there, their levels are one run: its length and, as a varint, twice the number of rows, and a byte.
    levels = 4 + max(1, -(-(2 * header.values).bit_length() // 7)) + 1 if nullable else 0
    return header.unpacked - levels - lengths


def _body(read: Read, chunk: ChunkPages, page: Page) -> tuple[Bytes, npt.NDArray[np.bool_] | None]:
    """The encoded values of a page, and which rows have one (None: all)."""
    header = page.header
    whole = _read(read, page.at, header.packed)
    if header.kind == DATA_V2:
        repetition, definition = max(0, header.repetition), max(0, header.definition)
        levels = whole[repetition : repetition + definition]
        values = whole[repetition + definition :]
        if header.compressed != 0:
            values = _decompressed(values, chunk.codec, header.unpacked - repetition - definition)
    else:
        values = _decompressed(whole, chunk.codec, header.unpacked)
        levels = values[:0]
        if chunk.nullable:
            if values.size < _LENGTH_BYTES:
                raise DamagedPage("no definition levels")
            size = int(values[:_LENGTH_BYTES].view("<u4")[0])
            levels = values[_LENGTH_BYTES : _LENGTH_BYTES + size]
            values = values[_LENGTH_BYTES + size :]
    if not chunk.nullable:
        return values, None
    valid = np.empty(page.rows, np.int32)
    if _runs(levels, 1, valid) != page.rows:
        raise DamagedPage("definition levels that end too soon")
    return values, None if valid.all() else valid.astype(bool)


def _entries(read: Read, chunk: ChunkPages) -> PageTexts:
    assert chunk.dictionary is not None
    at, header = chunk.dictionary
    return _plain(_decompressed(_read(read, at, header.packed), chunk.codec, header.unpacked), header.values)


def _plain(values: Bytes, count: int) -> PageTexts:
    """Values in plain encoding: each after its length, 4 bytes, little-endian."""
    if count * _LENGTH_BYTES > values.size:
        raise DamagedPage("fewer values than its header says")
    starts, sizes, characters = (np.empty(count, np.int64) for _ in range(3))
    if not _measure(values, values.view(np.int8), starts, sizes, characters):
        raise DamagedPage("a text that is longer than its page")
    return PageTexts(values, starts, sizes, characters)


def _looked_up(values: Bytes, count: int, entries: PageTexts) -> PageTexts:
    """Values by their numbers in the dictionary: a byte for the width of a number, then runs of numbers."""
    numbers = np.zeros(count, np.int32)
    if count and (not values.size or values[0] > 32 or _runs(values[1:], int(values[0]), numbers) != count):
        raise DamagedPage("numbers of entries that end too soon")
    if count and (numbers.min() < 0 or numbers.max() >= entries.starts.size):
        raise DamagedPage("a number beyond the dictionary")
    return PageTexts(entries.data, entries.starts[numbers], entries.sizes[numbers], entries.characters[numbers])


def _read(read: Read, at: int, size: int) -> Bytes:
    content = np.frombuffer(read(at, size), np.uint8)
    if content.size != size:
        raise DamagedPage("the file ends inside it")
    return content


def _decompressed(content: Bytes, codec: str, size: int) -> Bytes:
    if not codec:
        return content
    if size <= 0:
        return content[:0]
    unpack: Any = pa.Codec(codec).decompress
    try:
        return np.frombuffer(unpack(pa.py_buffer(content), decompressed_size=size), np.uint8)
    except (pa.ArrowException, OSError) as error:
        raise DamagedPage(str(error).partition("\n")[0]) from error


@numba.njit(cache=True, nogil=True)
def _measure(values, signed, starts, sizes, characters):
    """Where each value starts, its bytes, and its characters: bytes but those that go on with one, 0x80 to 0xBF.
    False if the values are more than there is."""
    at = 0
    for number in range(starts.size):
        if at + 4 > values.size:
            return False
        size = (
            np.int64(values[at])
            | np.int64(values[at + 1]) << 8
            | np.int64(values[at + 2]) << 16
            | np.int64(values[at + 3]) << 24
        )
        at += 4
        if size > values.size - at:
            return False
        begun = 0
        for byte in signed[at : at + size]:
            begun += byte >= -64
        starts[number], sizes[number], characters[number] = at, size, begun
        at += size
    return True


@numba.njit(cache=True, nogil=True)
def _gather(data, starts, offsets, joined):
    for row in range(starts.size):
        size = offsets[row + 1] - offsets[row]
        joined[offsets[row] : offsets[row + 1]] = data[starts[row] : starts[row] + size]


@numba.njit(cache=True, nogil=True)
def _runs(data, width, out):
    """Numbers of ``width`` bits in Parquet's hybrid of runs and bit-packed groups of eight; how many there were."""
    at, filled = 0, 0
    size = np.int64(width + 7) // 8
    while filled < out.size:
        head, shift = np.int64(0), 0
        while True:
            if at >= data.size or shift > 28:
                # A width of no bits needs no runs: all numbers are 0.
                if width == 0:
                    out[filled:] = 0
                    return out.size
                return filled
            byte = np.int64(data[at])
            at += 1
            head |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if head & 1:
            count = (head >> 1) * 8
            bits = np.int64(0)
            for _ in range(count):
                if (bits + width + 7) // 8 > data.size - at:
                    # The last group may leave out what no value needs.
                    break
                value = np.int64(0)
                for bit in range(width):
                    place = bits + bit
                    value |= np.int64(data[at + (place >> 3)] >> (place & 7) & 1) << bit
                bits += width
                if filled < out.size:
                    out[filled] = value
                    filled += 1
            at += (count * width + 7) // 8
        else:
            count = head >> 1
            value = np.int64(0)
            if at + size > data.size:
                return filled
            for place in range(size):
                value |= np.int64(data[at + place]) << (8 * place)
            at += size
            count = min(count, out.size - filled)
            out[filled : filled + count] = value
            filled += count
            if count == 0 and head == 0:
                return filled
    return filled
