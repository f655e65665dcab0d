"""Shuffles without an index in memory: a number below n in, its place in a random order of n out.

A Feistel network permutes the integers of b bits; where its result is n or more it is applied again until it is not
(cycle walking, Black and Rogaway 2002), which leaves a permutation of 0 .. n-1. The order hangs on the key and n alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 6  # even, so that the two halves end up where they began
_MASK64 = (1 << 64) - 1


def key_of(*parts: int | str) -> int:
    """A 64-bit key from a seed, names and numbers: the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Permutation:
    """A random order of 0 .. size-1, a pure function of (size, key).

    >>> sorted(Permutation(5, key=7)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        bits = max(4, (size - 1).bit_length())
        self._low_bits, self._high_bits = bits - bits // 2, bits // 2
        self._keys = [np.uint64(_splitmix64(key + round_)) for round_ in range(_ROUNDS)]

    def __call__(self, places: NDArray[np.integer]) -> NDArray[np.int64]:
        """The items at ``places`` (ints in [0, size), any shape) of the shuffled order, int64."""
        items = self._feistel(np.asarray(places).astype(np.uint64))
        outside = np.flatnonzero(items >= self.size)
        while outside.size:
            walked = self._feistel(items.flat[outside])
            items.flat[outside] = walked
            outside = outside[walked >= self.size]
        return items.astype(np.int64)

    def _feistel(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        high, low = values >> np.uint64(self._low_bits), values & np.uint64((1 << self._low_bits) - 1)
        high_bits, low_bits = self._high_bits, self._low_bits
        for key in self._keys:
            high = high ^ (_mix(low + key) >> np.uint64(64 - high_bits))
            high, low = low, high
            high_bits, low_bits = low_bits, high_bits
        return (high << np.uint64(low_bits)) | low


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64; products wrap around at 2^64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
