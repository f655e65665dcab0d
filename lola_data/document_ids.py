"""Document ids ``<lang>/<shard>/<row>`` taken apart in one pass over their bytes.

A row is a decimal number of at most 18 digits without leading zeros. An id of another form is all name, with row -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
import numpy.typing as npt

from lola_data.buffers import string_buffer

if TYPE_CHECKING:
    import pyarrow as pa

Indices = npt.NDArray[np.int64]

_SLASH, _ZERO, _NINE = ord("/"), ord("0"), ord("9")
_MOST_DIGITS = 18


@numba.njit(cache=True, nogil=True)
def _split(data, offsets, ends, rows, first):
    for document in range(offsets.size - 1):
        start, end = offsets[document], offsets[document + 1]
        place = end
        row = np.int64(0)
        unit = np.int64(1)
        while place > start and _ZERO <= data[place - 1] <= _NINE and end - place <= _MOST_DIGITS:
            place -= 1
            if end - place <= _MOST_DIGITS:
                row += unit * (data[place] - _ZERO)
                unit *= 10
        digits = end - place
        sound = 0 < digits <= _MOST_DIGITS and place > start and data[place - 1] == _SLASH
        if sound and not (digits > 1 and data[place] == _ZERO):
            ends[document], rows[document] = place - 1, row
        else:
            ends[document], rows[document] = end, -1
        first[document] = True
        if document and ends[document] - start == ends[document - 1] - offsets[document - 1]:
            before = offsets[document - 1]
            first[document] = False
            for place in range(start, ends[document]):
                if data[place] != data[before + place - start]:
                    first[document] = True
                    break


def split_ids(ids: pa.Array) -> tuple[list[bytes], Indices, Indices]:
    """Names, name of each document (N,) int64 and row (N,) int64. A name may be listed more than once.

    >>> split_ids(pa.array(["de/a/0", "de/a/12", "x", "de/a/007"]))
    ([b'de/a', b'x', b'de/a/007'], array([0, 0, 1, 2]), array([ 0, 12, -1, -1]))
    """
    data, offsets = string_buffer(ids)
    ends = np.empty(offsets.size - 1, dtype=np.int64)
    rows = np.empty(offsets.size - 1, dtype=np.int64)
    first = np.empty(offsets.size - 1, dtype=np.bool_)
    _split(data, offsets, ends, rows, first)
    names = [data[offsets[place] : ends[place]].tobytes() for place in np.flatnonzero(first)]
    return names, np.cumsum(first) - 1, rows
