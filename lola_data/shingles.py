"""Shingles: word hashes in, the set of each document's runs of n words out.

The hash of a run is a polynomial in the hashes of its words, taken modulo 2**64 and rolled along (Karp and Rabin 1987,
doi:10.1147/rd.312.0249), then mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from lola_data.hashes import mix64
from lola_data.words import word_hashes

if TYPE_CHECKING:
    from lola_data.buffers import Offsets, Text
    from lola_data.words import Hashes

_SHINGLE_STEP = np.uint64(0xC2B2AE3D27D4EB4F)


@numba.njit(cache=True, nogil=True)
def _shingle_in_place(words, offsets, size, top_step, out_offsets):
    """Turn each document's word hashes into those of its runs of ``size`` words, packed to the front of ``words``."""
    count = 0
    out_offsets[0] = 0
    start = np.int64(0)
    for document in range(offsets.size - 1):
        end = offsets[document + 1]
        if end - start >= size:
            rolling = np.uint64(0)
            for place in range(start, start + size):
                rolling = rolling * _SHINGLE_STEP + words[place]
            for place in range(start + size, end):
                leaving = words[place - size]
                words[count] = mix64(rolling)
                count += 1
                rolling = (rolling - leaving * top_step) * _SHINGLE_STEP + words[place]
            words[count] = mix64(rolling)
            count += 1
        start = end
        out_offsets[document + 1] = count


def shingle(words: Hashes, offsets: Offsets, n: int) -> tuple[Hashes, Offsets]:
    """Hashes of all runs of ``n`` words, in text order and with repeats; overwrites ``words``.

    A document of w words gives max(0, w - n + 1) of them.
    """
    if n < 1:
        raise ValueError(f"a shingle has at least 1 word, not {n}")
    top_step = np.uint64(pow(int(_SHINGLE_STEP), n - 1, 1 << 64))
    out_offsets = np.empty_like(offsets)
    _shingle_in_place(words, offsets, n, top_step, out_offsets)
    return words[: out_offsets[-1]], out_offsets


@numba.njit(cache=True, nogil=True)
def _insertion_sort(values, start, end):
    for place in range(start + 1, end):
        value = values[place]
        hole = place
        while hole > start and values[hole - 1] > value:
            values[hole] = values[hole - 1]
            hole -= 1
        values[hole] = value


@numba.njit(cache=True, nogil=True)
def _unique_in_place(values, offsets, out_offsets):
    """Sort each document's hashes, drop repeats, pack to the front of ``values``.

    Hashes are uniform, so their top bits deal them into buckets of a few; only a bucket that repeats have filled needs
    a general sort.
    """
    longest = 0
    for document in range(offsets.size - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    bits = 0
    while (2 << bits) < longest and bits < 16:
        bits += 1
    scratch = np.empty(longest, dtype=np.uint64)
    starts = np.empty((1 << bits) + 1, dtype=np.int64)
    count = 0
    start = np.int64(0)
    out_offsets[0] = 0
    for document in range(offsets.size - 1):
        end = offsets[document + 1]
        size = end - start
        if size <= 24:
            for place in range(size):
                scratch[place] = values[start + place]
            _insertion_sort(scratch, 0, size)
        else:
            bits = 0
            while (2 << bits) < size and bits < 16:
                bits += 1
            shift = np.uint64(64 - bits)
            buckets = 1 << bits
            starts[: buckets + 1] = 0
            for place in range(start, end):
                starts[np.int64(values[place] >> shift) + 1] += 1
            for bucket in range(buckets):
                starts[bucket + 1] += starts[bucket]
            for place in range(start, end):
                bucket = np.int64(values[place] >> shift)
                scratch[starts[bucket]] = values[place]
                starts[bucket] += 1
            bucket_start = np.int64(0)
            for bucket in range(buckets):
                bucket_end = starts[bucket]
                if bucket_end - bucket_start <= 48:
                    _insertion_sort(scratch, bucket_start, bucket_end)
                else:
                    scratch[bucket_start:bucket_end].sort()
                bucket_start = bucket_end
        for place in range(size):
            if place == 0 or scratch[place] != scratch[place - 1]:
                values[count] = scratch[place]
                count += 1
        start = end
        out_offsets[document + 1] = count


def unique_sorted(values: Hashes, offsets: Offsets) -> tuple[Hashes, Offsets]:
    """Each document's distinct hashes in ascending order; overwrites ``values``."""
    out_offsets = np.empty_like(offsets)
    _unique_in_place(values, offsets, out_offsets)
    return values[: out_offsets[-1]], out_offsets


def shingle_hashes(text: Text, n: int = 5) -> tuple[Hashes, Offsets]:
    """The set of each document's runs of ``n`` words: (S,) uint64, ascending and distinct within a document, and
    (N + 1,) int64 offsets. A document of fewer than ``n`` words has none.

    >>> values, offsets = shingle_hashes(pa.array(["a b c a b c a", "a b"]), n=3)
    >>> offsets.tolist()
    [0, 3, 3]
    """
    return unique_sorted(*shingle(*word_hashes(text), n))
