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

_HALF = np.uint64(32)


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
def _stars(keys, order, documents, one, other):
    found = 0
    start = 0
    for place in range(1, order.size):
        if keys[order[place]] != keys[order[start]]:
            start = place
            continue
        left, right = documents[order[start]], documents[order[place]]
        if left != right:
            one[found] = left
            other[found] = right
            found += 1
    return found


def find_ties(keys: Keys, documents: Rows) -> tuple[Rows, Rows]:
    """Ties among the entries of one part: (T,) and (T,) uint32, each tie from the first entry of a group to another."""
    order = np.argsort(keys)
    one = np.empty(keys.size, dtype=np.uint32)
    other = np.empty(keys.size, dtype=np.uint32)
    found = _stars(keys, order, documents, one, other)
    return one[:found].copy(), other[:found].copy()
