"""A shard as its headers and labels tell of it: a Parquet file in, sums of its labels and the units of its texts out.

A unit is what is read or left of the texts: a page, or a row group where pages cannot be read one by one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from lola_data import storage
from lola_data.balance.labels import LabelSums
from lola_data.balance.pages import find_pages
from lola_data.balance.rows import LABELS, TEXTS, plain_column, present_columns, read_group
from lola_data.balance.thrift import text_bytes_by_group
from lola_data.remote_parquet import foresee
from lola_data.shards import open_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from lola_data.balance.pages import ChunkPages
    from lola_data.balance.thrift import Read
    from lola_data.balance.trees import Shard

WHOLE_GROUP = -1
"""In the place of a page: all of the row group."""
UNIT = np.dtype([("key", "u8"), ("shard", "i4"), ("group", "i4"), ("page", "i4"), ("rows", "i8"), ("size", "i8")])
"""A hash to choose it by, where it is, its rows, and its bytes of text as headers tell."""

_LABEL_ROWS = 131_072
"""Rows whose labels are read at a time, of as many row groups as it takes."""
_ENCODINGS = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}


@dataclass
class Survey:
    """A shard. ``text_bytes``: None unless its footer tells them. ``units``: of :data:`UNIT`."""

    labels: LabelSums
    documents: int
    text_bytes: int | None
    units: NDArray[np.void]


def survey_shard(shard: Shard, seed: int) -> Survey:
    """Sum up the labels of a shard and find the units of its texts."""
    sums = LabelSums(shard.lang)
    with open_parquet(shard.path) as file, reading(shard.path) as (read, cheap):
        present = present_columns(file, shard.path, TEXTS)
        plain_column(pa.array([], file.schema_arrow.field("text").type), "text", shard.path)
        labels = [name for name in present if name != "text"]
        rows = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        foresee(file, range(len(rows)), labels)
        for groups in _together(rows):
            for batch in read_group(file, shard.path, groups, LABELS, labels):
                sums.add(batch, labels)
        sizes = text_bytes_by_group(read, "text") or [None] * len(rows)
        if not all(_tells_sizes(file, group) for group in range(len(rows))):
            sizes = [None]
        whole = sum(size for size in sizes if size is not None) if None not in sizes else None
        return Survey(sums, sum(rows), whole, _units(shard, file, read if cheap else None, rows, seed))


def _tells_sizes(file: pq.ParquetFile, group: int) -> bool:
    """Whether the footer can be believed: of texts written as differences (DELTA_BYTE_ARRAY) Arrow 26 tells too few."""
    return _ENCODINGS.issuperset(file.metadata.row_group(group).column(text_column(file)).encodings)


def _together(rows: Sequence[int]) -> Iterator[list[int]]:
    """Row groups side by side of about ``_LABEL_ROWS`` rows."""
    held: list[int] = []
    count = 0
    for group, size in enumerate(rows):
        if held and count + size > _LABEL_ROWS:
            yield held
            held, count = [], 0
        held.append(group)
        count += size
    if held:
        yield held


def _units(shard: Shard, file: pq.ParquetFile, read: Read | None, rows: Sequence[int], seed: int) -> NDArray[np.void]:
    place = text_column(file)
    name = f"{seed}/balance/pages/{shard.lang}/{PurePosixPath(shard.path).stem}"
    found: list[tuple[int, int, int, int, int, int]] = []
    for group, count in enumerate(rows):
        pages = pages_of(file, read, group, place) if read is not None else None
        key = f"{name}/{group}"
        if pages is None:
            size = file.metadata.row_group(group).column(place).total_uncompressed_size
            found.append((xxhash.xxh64_intdigest(key.encode()), 0, group, WHOLE_GROUP, count, size))
            continue
        for number, page in enumerate(pages.pages):
            found.append(
                (xxhash.xxh64_intdigest(f"{key}/{number}".encode()), 0, group, number, page.rows, page.text_bytes)
            )
    units = np.array(found, UNIT)
    return units[units["rows"] > 0]


def text_column(file: pq.ParquetFile) -> int:
    """Place of the column among the leaves of the schema."""
    return next(number for number in range(len(file.schema)) if file.schema.column(number).path == "text")


def pages_of(file: pq.ParquetFile, read: Read, group: int, place: int) -> ChunkPages | None:
    """The pages of the column at ``place`` in a row group; see :func:`lola_data.balance.pages.find_pages`."""
    meta = file.metadata.row_group(group)
    return find_pages(read, meta.column(place), file.schema.column(place), meta.num_rows)


@contextmanager
def reading(path: str) -> Iterator[tuple[Read, bool]]:
    """Bytes of a file by their place, and whether small reads cost little."""
    if storage.is_remote(path):
        with storage.open_input(path) as handle:

            def seek_and_read(at: int, size: int) -> bytes:
                handle.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
                return handle.read(size)

            yield seek_and_read, False
        return
    number = os.open(path.removeprefix("file://"), os.O_RDONLY)
    try:
        end = os.fstat(number).st_size
        yield lambda at, size: os.pread(number, size, at if at >= 0 else max(0, end + at)), True
    finally:
        os.close(number)
