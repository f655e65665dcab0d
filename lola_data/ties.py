"""Equal keys among more documents than fit in memory: entries dealt into parts by key, the ties of one part.

A *tie* says that two documents may influence each other's fate (:mod:`lola_data.components`): an equal band key,
digest, URL or id. Each such key of a document is an *entry* (key, row). Entries of one key always fall into one part,
so the parts can be looked at one by one, in any order and by any number of tasks; together they find all ties, each
group of equal keys as a star around one of its documents.

Memory: :data:`ENTRY_BYTES` for each entry of the part in hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from lola_data.hashes import mix64

if TYPE_CHECKING:
    from collections.abc import Sequence

Keys: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.uint32]
Mask: TypeAlias = npt.NDArray[np.bool_]

ENTRY_BYTES = 48
"""Most memory that finding the ties of a part takes for each of its entries, reading them included."""
MOST_DOCUMENTS = 2**32 - 1
"""Documents are numbered in 32 bits."""

BUCKET_ENTRIES = 1 << 10

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)


@numba.njit(cache=True, nogil=True)
def _part(key, parts):
    return ((key >> _HALF) * parts) >> _HALF


@numba.njit(cache=True, nogil=True)
def _salted(key, salt):
    # A key of one kind must not meet an equal one of another.
    return mix64(key ^ salt)


@numba.njit(cache=True, nogil=True)
def _count(keys, valid, salt, parts, counts):
    for row in range(keys.size):
        if valid[row]:
            counts[_part(_salted(keys[row], salt), parts)] += 1


@numba.njit(cache=True, nogil=True)
def _deal(keys, valid, salt, parts, places, out_keys, out_rows):
    for row in range(keys.size):
        if valid[row]:
            key = _salted(keys[row], salt)
            part = _part(key, parts)
            place = places[part]
            out_keys[place] = key
            out_rows[place] = row
            places[part] = place + 1


def deal_entries(columns: Sequence[tuple[Keys, Mask]], parts: int) -> tuple[Keys, Rows, npt.NDArray[np.int64]]:
    """Entries of N documents, ordered by part.

    Args:
        columns: of each kind of key, in a fixed order, (N,) uint64 and (N,) bool: which documents have one.
        parts: 1 to 2^31.

    Returns:
        (E,) uint64 keys, (E,) uint32 rows and (parts + 1,) int64: where each part begins.
    """
    salts = [np.uint64(mix64(np.uint64(kind + 1))) for kind in range(len(columns))]
    counts = np.zeros(parts, dtype=np.int64)
    for (keys, valid), salt in zip(columns, salts, strict=True):
        _count(keys, valid, salt, np.uint64(parts), counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    places = starts[:-1].copy()
    out_keys = np.empty(starts[-1], dtype=np.uint64)
    out_rows = np.empty(starts[-1], dtype=np.uint32)
    for (keys, valid), salt in zip(columns, salts, strict=True):
        _deal(keys, valid, salt, np.uint64(parts), places, out_keys, out_rows)
    return out_keys, out_rows, starts


@numba.njit(cache=True, nogil=True)
def _bucket(key, bits):
    # Entries of a part have the upper half of their keys in common, in part.
    return (key & _LOW) >> (_HALF - bits)


@numba.njit(cache=True, nogil=True)
def _shuffle(keys, documents, bits, out_keys, out_documents):
    """Order the entries by bucket, those of one bucket as they come; where each begins."""
    starts = np.zeros((np.uint64(1) << bits) + np.uint64(1), dtype=np.int64)
    for key in keys:
        starts[_bucket(key, bits) + np.uint64(1)] += 1
    for bucket in range(1, starts.size):
        starts[bucket] += starts[bucket - 1]
    places = starts[:-1].copy()
    for entry in range(keys.size):
        bucket = _bucket(keys[entry], bits)
        place = places[bucket]
        out_keys[place] = keys[entry]
        out_documents[place] = documents[entry]
        places[bucket] = place + 1
    return starts


@numba.njit(cache=True, nogil=True)
def _stars(keys, documents, starts, one, other):
    """Look each key of a bucket up in a table of those before it."""
    largest = np.int64(0)
    for bucket in range(starts.size - 1):
        largest = max(largest, starts[bucket + 1] - starts[bucket])
    size = np.int64(2)
    while size < 2 * largest:
        size *= 2
    table = np.empty(size, dtype=np.int64)
    found = 0
    for bucket in range(starts.size - 1):
        start, end = starts[bucket], starts[bucket + 1]
        if end - start < 2:
            continue
        size = np.int64(2)
        while size < 2 * (end - start):
            size *= 2
        mask = np.uint64(size - 1)
        table[:size] = -1
        for entry in range(start, end):
            slot = (keys[entry] >> _HALF) & mask
            while table[slot] >= 0 and keys[table[slot]] != keys[entry]:
                slot = (slot + np.uint64(1)) & mask
            if table[slot] < 0:
                table[slot] = entry
                continue
            left, right = documents[table[slot]], documents[entry]
            if left != right:
                one[found] = left
                other[found] = right
                found += 1
    return found


def find_ties(keys: Keys, documents: Rows) -> tuple[Rows, Rows]:
    """Ties among the entries of one part: (T,) and (T,) uint32, each from the first entry of a key to another.

    Args:
        keys: (E,) uint64, as :func:`deal_entries` makes them.
        documents: (E,) uint32.
    """
    # Buckets that a core's nearest cache holds: sorting all of a part takes ten times as long.
    bits = np.uint64(min(28, max(0, (keys.size // BUCKET_ENTRIES).bit_length())))
    by_bucket = np.empty_like(keys), np.empty_like(documents)
    starts = _shuffle(keys, documents, bits, *by_bucket)
    one = np.empty(keys.size, dtype=np.uint32)
    other = np.empty(keys.size, dtype=np.uint32)
    found = _stars(*by_bucket, starts, one, other)
    return one[:found].copy(), other[:found].copy()
