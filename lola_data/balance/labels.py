"""What hangs on the columns beside the text, summed as fast as they are read: batches of one language in, frames out.

A tree has as many URLs and timestamps as documents, but few hosts and days. The beginnings of either that can differ in
what is counted are counted first, in a compiled table; the expressions that find host and year are asked of those only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numba
import numpy as np
import polars as pl

from lola_data.balance.pages import join_texts
from lola_data.balance.rows import label_rows
from lola_data.balance.sums import Sums, host_sums, label_sums, year_sums
from lola_data.buffers import string_buffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

_URL, _DATE = 0, 1
_SCHEME = np.frombuffer(b"https://", np.uint8)
_DATE_BYTES = 12


class LabelSums:
    """Sums of the labels of one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self._parts = _empty()

    def add(self, batch: Mapping[str, pa.Array], present: Sequence[str]) -> None:
        """Take in the rows of a batch, which has the columns ``present``."""
        labels, hosts, years = self._parts
        labels.add(label_rows(batch, [name for name in present if name not in ("url", "timestamp")], self.lang))
        if "url" in present:
            hosts.add(_counted(batch["url"], "url", _URL, self.lang))
        if "timestamp" in present:
            years.add(_counted(batch["timestamp"], "date", _DATE, self.lang))

    def absorb(self, other: LabelSums) -> None:
        """Take over all that ``other`` has, which is empty then."""
        for own, more in zip(self._parts, other._parts, strict=True):
            own.absorb(more)
        other._parts = _empty()

    def part(self) -> dict[str, pl.DataFrame]:
        """Every frame of :data:`lola_data.balance.sums.FRAMES` that labels give."""
        found: dict[str, pl.DataFrame] = {}
        for sums in self._parts:
            found |= sums.result()
        return found


def _empty() -> tuple[Sums, Sums, Sums]:
    return Sums(label_sums), Sums(host_sums), Sums(year_sums)


def _counted(column: pa.Array, name: str, what: int, lang: str) -> pl.DataFrame:
    """lang, beginning (under ``name``) | documents; nulls as empty texts."""
    data, offsets = string_buffer(column)
    rows = offsets.size - 1
    starts, ends, counts = (np.empty(rows, np.int64) for _ in range(3))
    table = np.full(1 << max(4, (2 * rows - 1).bit_length()), -1, np.int32)
    found = _distinct(data, offsets, what, _SCHEME, table, np.empty(rows, np.uint64), starts, ends, counts)
    texts = join_texts(data, starts[:found], ends[:found] - starts[:found])
    series = cast("pl.Series", pl.from_arrow(texts))
    return pl.DataFrame({name: series, "documents": counts[:found]}).with_columns(pl.lit(lang).alias("lang"))


@numba.njit(cache=True, nogil=True)
def _distinct(data, offsets, what, scheme, table, keys, starts, ends, counts):
    """Count the beginnings of the texts: of URLs up to the slash that ends the host (where one of another scheme than
    http ends is not looked for), of timestamps so many bytes as have a date. How many there are; ``table``: of twice as
    many places or more, -1 in each.

    Beginnings with the same 64-bit hash are taken to be the same: of a batch of 65,536 different ones two are not with
    a chance of 1e-10.
    """
    mask = table.size - 1
    found = 0
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if what == _URL:
            same = 0
            while same < 4 and start + same < end and data[start + same] == scheme[same]:
                same += 1
            if same == 4 and start + 7 < end:
                at = start + 4 + (data[start + 4] == scheme[4])
                if data[at] == 0x3A and data[at + 1] == 0x2F and data[at + 2] == 0x2F:
                    at += 3
                    while at < end and data[at] != 0x2F:
                        at += 1
                    end = at
        else:
            while start < end and (data[start] == 0x20 or 0x09 <= data[start] <= 0x0D):
                start += 1
            if end - start > _DATE_BYTES:
                end = start + _DATE_BYTES
                while end > start and data[end] & 0xC0 == 0x80:
                    end -= 1
        # FNV-1a, and its high bits mixed in, for the table is addressed by the low ones.
        key = np.uint64(0xCBF29CE484222325)
        for at in range(start, end):
            key = (key ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        place = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(mask))
        while True:
            known = table[place]
            if known < 0:
                table[place] = found
                keys[found] = key
                starts[found], ends[found], counts[found] = start, end, 1
                found += 1
                break
            if keys[known] == key:
                counts[known] += 1
                break
            place = (place + 1) & mask
    return found
