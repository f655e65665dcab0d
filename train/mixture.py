"""Which language each sample is of: weights in; the language of sample n, and how often each came before n, out.

Sample n stands at u(n) = (c + n * A) mod 2^64, with A / 2^64 close to the inverse golden ratio, and its language is the
one whose interval, as long as its weight, holds u(n). That sequence covers every interval as evenly as can be (any
stretch of samples is close to the weights, so is every batch), and the visits to an interval among the first n have a
closed form: a sum of floors, found in O(log n) steps. So nothing has to be drawn, stored or replayed to start at any
sample.

Where languages have a cap on their samples, the row is parted at the samples where one is used up: from there on the
others share its weight. Within a part the weights are constant, so the closed form still holds; the parts, at most one
more than there are languages, are found by bisection (:class:`CappedMixture`).
"""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from train.permutation import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_CIRCLE = 1 << 64
_STRIDE = 0x9E3779B97F4A7C15  # the odd number nearest to 2^64 divided by the golden ratio
_UNEVEN = 1000
"""More than a count of visits can be off from what the length of its interval promises: a row of samples falls into at
most 225 blocks, the sum of the partial quotients of _STRIDE / 2^64 (Ostrowski's expansion), and each of them is off by
less than 2 at each of the two borders."""


class LanguageMixture:
    """The languages of an endless row of samples.

    Args:
        weights: share of each language, in any scale; languages with weight 0 never come. The order of the keys has
            no effect.
        seed: where the row begins.
    """

    def __init__(self, weights: Mapping[str, float | Fraction], seed: int) -> None:
        kept = {name: Fraction(weights[name]) for name in sorted(weights) if weights[name] > 0}
        total = sum(kept.values())
        self.languages = list(kept)
        # Exact fractions: the borders do not hang on the order in which floats are added.
        self._ends = [int(end * _CIRCLE / total) for end in accumulate(kept.values())]
        self._ends_L = np.array(self._ends[:-1], np.uint64)
        self._offset = key_of("mixture", seed)

    def of_samples(self, first: int, count: int) -> NDArray[np.int64]:
        """Indices into ``languages`` of samples first .. first + count - 1, int64[count]."""
        start = np.uint64((self._offset + first * _STRIDE) % _CIRCLE)
        places = start + np.arange(count, dtype=np.uint64) * np.uint64(_STRIDE)  # wraps around at 2^64
        return np.searchsorted(self._ends_L, places, side="right")

    def counts_before(self, sample: int) -> NDArray[np.int64]:
        """How many of the samples 0 .. sample - 1 are of each language, int64[languages]."""
        whole = _floor_sum(sample, self._offset)
        return np.diff(np.array([0, *(self._below(sample, end, whole) for end in self._ends)], np.int64))

    def count_before(self, sample: int, language: int) -> int:
        """How many of the samples 0 .. sample - 1 are of the language with this index."""
        whole = _floor_sum(sample, self._offset)
        before = self._below(sample, self._ends[language - 1], whole) if language else 0
        return self._below(sample, self._ends[language], whole) - before

    def width(self, language: int) -> int:
        """Length of the language's interval; 0 if its weight is below 2^-64 of the sum, so that it never comes."""
        return self._ends[language] - (self._ends[language - 1] if language else 0)

    def nth(self, language: int, number: int) -> int:
        """The sample that is number ``number``, from 0, of the language with this index; its ``width`` is above 0."""
        guess = (number + 1) * _CIRCLE // self.width(language)
        # The visits are even, so the sample is near: widen a bracket around the guess, then halve it.
        low, high, step = guess, guess, 1
        while low > 0 and self.count_before(low, language) > number:
            low, step = max(0, low - step), 2 * step
        step = 1
        while self.count_before(high, language) <= number:
            high, step = high + step, 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            if self.count_before(middle, language) > number:
                high = middle
            else:
                low = middle
        return high - 1

    def _below(self, sample: int, end: int, whole: int | None = None) -> int:
        """How many of the samples 0 .. sample - 1 stand below ``end``; ``whole`` is the sum of floors without it."""
        if end >= _CIRCLE:
            return sample
        whole = _floor_sum(sample, self._offset) if whole is None else whole
        return whole - _floor_sum(sample, self._offset - end + _CIRCLE) + sample


class CappedMixture:
    """A row of samples in which a language comes no more often than its cap; it ends when all are used up.

    Args:
        weights: as of :class:`LanguageMixture`.
        seed: where the row begins.
        most: samples a language has, at most; a language that is not in it has no end, one with none never comes.

    Attributes:
        languages: those that come, in order.
        end: samples in all; None if the row has no end.
    """

    def __init__(self, weights: Mapping[str, float], seed: int, most: Mapping[str, int]) -> None:
        self._left = {
            name: Fraction(weights[name]) for name in sorted(weights) if weights[name] > 0 and most.get(name, 1) > 0
        }
        self.languages = list(self._left)
        capped = [most[name] for name in self.languages if name in most]
        self.end = sum(capped) if len(capped) == len(self.languages) else None
        self._seed, self._most = seed, most
        self._number = {name: place for place, name in enumerate(self.languages)}
        # Part p: its first sample (and that of the next), its mixture, the mixture's languages as indices into
        # ``languages``, and counts before sample n less those of the mixture as if it had run from sample 0.
        self._firsts: list[int] = [0]
        self._parts: list[tuple[LanguageMixture, NDArray[np.int64], NDArray[np.int64]]] = []

    def of_samples(self, first: int, count: int) -> NDArray[np.int64]:
        """Indices into ``languages`` of samples first .. first + count - 1, int64[count].

        Raises:
            IndexError: samples beyond ``end``.
        """
        self._check(first + count)
        pieces: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        stop = first + count
        while first < stop:
            part = self._part(first)
            until = min([stop, *self._firsts[part + 1 : part + 2]])
            mixture, members, _ = self._parts[part]
            pieces.append(members[mixture.of_samples(first, until - first)])
            first = until
        return np.concatenate(pieces)

    def counts_before(self, sample: int) -> NDArray[np.int64]:
        """How many of the samples 0 .. sample - 1 are of each language, int64[languages].

        Raises:
            IndexError: samples beyond ``end``.
        """
        self._check(sample)
        # The last sample counted, not the one behind it: behind the last of all there is no part.
        return self._counts_in(self._part(sample - 1), sample) if sample else np.zeros(len(self.languages), np.int64)

    def _counts_in(self, part: int, sample: int) -> NDArray[np.int64]:
        mixture, members, offset = self._parts[part]
        counts = offset.copy()
        counts[members] += mixture.counts_before(sample)
        return counts

    def _part(self, sample: int) -> int:
        """The part that holds ``sample``; parts are found when they are first asked for, each from the one before."""
        while len(self._firsts) == len(self._parts) + 1 and self._firsts[-1] <= sample:
            self._add_part()
        return min(bisect_right(self._firsts, sample), len(self._parts)) - 1

    def _add_part(self) -> None:
        first = self._firsts[-1]
        counts = self.counts_before(first)
        mixture = LanguageMixture(self._left, self._seed)
        members = np.array([self._number[name] for name in self._left], np.int64)
        counts[members] -= mixture.counts_before(first)
        self._parts.append((mixture, members, counts))
        wanted = {
            place: self._most[name] - int(counts[self._number[name]])
            for place, name in enumerate(self._left)
            if name in self._most and mixture.width(place)
        }
        # In the order in which they should be used up. The visits are even to within _UNEVEN, which rules most out.
        guesses = sorted((number * _CIRCLE // mixture.width(place), place) for place, number in wanted.items())
        last: tuple[int, int] | None = None
        for guess, place in guesses:
            early = guess - _UNEVEN * _CIRCLE // mixture.width(place)
            if last is None or (early <= last[0] and mixture.count_before(last[0], place) >= wanted[place]):
                last = (mixture.nth(place, wanted[place] - 1), place)
        if last is not None:
            self._firsts.append(last[0] + 1)
            del self._left[mixture.languages[last[1]]]

    def _check(self, stop: int) -> None:
        if self.end is not None and stop > self.end:
            raise IndexError(f"samples up to {stop:,} of a row of {self.end:,}")


def _floor_sum(count: int, offset: int) -> int:
    """Sum over i < count of floor((stride * i + offset) / 2^64), by the steps of Euclid's algorithm."""
    total, modulus, stride = 0, _CIRCLE, _STRIDE
    while count > 0:
        total += (count - 1) * count // 2 * (stride // modulus) + count * (offset // modulus)
        stride %= modulus
        reach = stride * count + offset % modulus
        if reach < modulus:
            return total
        count, offset = divmod(reach, modulus)
        modulus, stride = stride, modulus
    return total
