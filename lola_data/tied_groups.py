"""Which of up to 2^32 documents hang together by ties, in little memory: union-find over the tied ones alone.

Two passes over the ties: one marks the documents that have any, the other joins them. A marked document is known by its
rank among the marked. Memory: 4 bytes for each marked document and 1.5 bits for each document; nothing for a tie.
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from lola_data.hashes import mix64
from lola_data.union_find import find_root, join

Numbers: TypeAlias = npt.NDArray[np.uint32]

_ONE = np.uint64(1)
_LOW6 = np.uint64(63)
_S1, _S2, _S4, _S6, _S32, _S56 = (np.uint64(shift) for shift in (1, 2, 4, 6, 32, 56))
_M1, _M2, _M4, _M8 = (
    np.uint64(mask)
    for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)
)  # fmt: skip


@numba.njit(cache=True, nogil=True, inline="always")
def _ones(word):
    """Bits set in a uint64."""
    word = word - ((word >> _S1) & _M1)
    word = (word & _M2) + ((word >> _S2) & _M2)
    return (((word + (word >> _S4)) & _M4) * _M8) >> _S56


@numba.njit(cache=True, nogil=True)
def _mark(bits, documents):
    for document in documents:
        bits[np.uint64(document) >> _S6] |= _ONE << (np.uint64(document) & _LOW6)


@numba.njit(cache=True, nogil=True)
def _rank_words(bits, ranks):
    total = np.uint64(0)
    for word in range(bits.size):
        ranks[word] = total
        total += _ones(bits[word])
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _rank(bits, ranks, document):
    word = np.uint64(document) >> _S6
    below = (_ONE << (np.uint64(document) & _LOW6)) - _ONE
    return np.uint64(ranks[word]) + _ones(bits[word] & below)


@numba.njit(cache=True, nogil=True)
def _join_ties(bits, ranks, parent, one, other):
    for tie in range(one.size):
        join(parent, _rank(bits, ranks, one[tie]), _rank(bits, ranks, other[tie]))


@numba.njit(cache=True, nogil=True)
def _cut(parent, counts):
    """Make each member's parent its root, and count the members of each part."""
    for item in range(parent.size):
        root = find_root(parent, item)
        parent[item] = root
        counts[_part(root, counts.size)] += 1


@numba.njit(cache=True, nogil=True, inline="always")
def _part(root, parts):
    """By hash: first documents of large groups come early, so parts cut in order would be uneven."""
    return ((mix64(np.uint64(root)) >> _S32) * np.uint64(parts)) >> _S32


@numba.njit(cache=True, nogil=True)
def _members(bits, ranks, parent, parts, start, end, rows, part_of):
    found = 0
    for document in range(start, end):
        if bits[np.uint64(document) >> _S6] >> (np.uint64(document) & _LOW6) & _ONE:
            rows[found] = document - start
            part_of[found] = _part(parent[_rank(bits, ranks, document)], parts)
            found += 1
    return found


class TiedGroups:
    """Groups of documents 0 to ``count`` - 1: :meth:`mark` all ties, :meth:`join` all ties, :meth:`cut` into parts."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._bits = np.zeros((count + 63) // 64, dtype=np.uint64)
        self._ranks = np.empty(0, dtype=np.uint32)
        self._parent = np.empty(0, dtype=np.uint32)
        self.parts = 0
        """Parts, after :meth:`cut`."""
        self.largest = 0
        """Members of the largest of them."""

    @property
    def members(self) -> int:
        """Documents that have a tie; known from the first :meth:`join` or :meth:`cut` on."""
        return self._parent.size

    def mark(self, documents: Numbers) -> None:
        """Note (n,) uint32 documents that have a tie."""
        _mark(self._bits, documents)

    def join(self, one: Numbers, other: Numbers) -> None:
        """Join the groups of (n,) and (n,) uint32 documents, all of them marked before."""
        self._rank()
        _join_ties(self._bits, self._ranks, self._parent, one, other)

    def cut(self, most: int) -> None:
        """Deal whole groups, by hash, into so many parts that about ``most`` members come to each."""
        self._rank()
        self.parts = -(-self.members // most)
        counts = np.zeros(self.parts, dtype=np.int64)
        _cut(self._parent, counts)
        self.largest = int(counts.max(initial=0))

    def groups(self) -> int:
        """Number of groups, after :meth:`cut`."""
        return int(np.count_nonzero(self._parent == np.arange(self.members, dtype=np.uint32)))

    def between(self, start: int, end: int) -> tuple[Numbers, Numbers]:
        """Of the marked documents from ``start`` to ``end``: their numbers less ``start``, and their parts."""
        rows = np.empty(end - start, dtype=np.uint32)
        parts = np.empty(end - start, dtype=np.uint32)
        found = _members(self._bits, self._ranks, self._parent, self.parts, start, end, rows, parts)
        return rows[:found].copy(), parts[:found].copy()

    def _rank(self) -> None:
        if self._ranks.size == self._bits.size and self._bits.size:
            return
        self._ranks = np.empty(self._bits.size, dtype=np.uint32)
        self._parent = np.arange(_rank_words(self._bits, self._ranks), dtype=np.uint32)
