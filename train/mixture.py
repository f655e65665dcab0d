"""Which language each sample is of: weights in; the language of sample n, and how often each came before n, out.

Sample n stands at u(n) = (c + n * A) mod 2^64, with A / 2^64 close to the inverse golden ratio, and its language is the
one whose interval, as long as its weight, holds u(n). That sequence covers every interval as evenly as can be (any
stretch of samples is close to the weights, so is every batch), and the visits to an interval among the first n have a
closed form: a sum of floors, found in O(log n) steps. So nothing has to be drawn, stored or replayed to start at any
sample.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from train.permutation import key_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CIRCLE = 1 << 64
_STRIDE = 0x9E3779B97F4A7C15  # the odd number nearest to 2^64 divided by the golden ratio


class LanguageMixture:
    """The languages of an endless row of samples.

    Args:
        weights: share of each language, in any scale; languages with weight 0 never come. The order of the keys has
            no effect.
        seed: where the row begins.
    """

    def __init__(self, weights: dict[str, float], seed: int) -> None:
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
        below = [
            whole - _floor_sum(sample, self._offset - end + _CIRCLE) + sample if end < _CIRCLE else sample
            for end in self._ends
        ]
        return np.diff(np.array([0, *below], np.int64))


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
