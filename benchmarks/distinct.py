"""Which texts to leave out so that no two of the rest are alike: an exact all-pairs test, not an estimate.

In: texts in order. Out: for each whether it is kept: it is unless its Jaccard similarity to a text kept before it
reaches the limit. Work is the sum over all n-grams of the squared number of texts that hold it, which is small where
few n-grams are common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lola_data.shingles import shingle_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence


@numba.njit(cache=True, nogil=True)
def _keep(grams, offsets, starts, holders, limit, kept):
    """``grams``: the numbered n-grams of each text; ``holders[starts[g]:starts[g + 1]]``: ascending, who holds g."""
    common = np.zeros(kept.size, dtype=np.int64)
    touched = np.empty(kept.size, dtype=np.int64)
    for text in range(kept.size):
        count = 0
        size = offsets[text + 1] - offsets[text]
        for place in range(offsets[text], offsets[text + 1]):
            gram = grams[place]
            for holder in range(starts[gram], starts[gram + 1]):
                other = holders[holder]
                if other >= text:
                    break
                if kept[other]:
                    if common[other] == 0:
                        touched[count] = other
                        count += 1
                    common[other] += 1
        alike = False
        for number in range(count):
            other = touched[number]
            both = size + offsets[other + 1] - offsets[other] - common[other]
            alike |= common[other] >= limit * both
            common[other] = 0
        kept[text] = not alike


def keep_distinct(texts: Sequence[str], *, limit: float, ngram: int = 5) -> npt.NDArray[np.bool_]:
    """Which texts to keep so that no two have a Jaccard similarity of ``limit`` or more; (n,) bool, in favour of the
    earlier. A text without any n-gram is not kept.

    >>> keep_distinct(["a b c d e f", "g h i j k l", "a b c d e f g"], limit=0.5).tolist()
    [True, True, False]
    """
    if not texts:
        return np.zeros(0, dtype=np.bool_)
    hashes, offsets = shingle_hashes(pa.array(texts, pa.large_string()), ngram)
    distinct, grams = np.unique(hashes, return_inverse=True)
    order = np.argsort(grams, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(grams, minlength=distinct.size))])
    owner = np.repeat(np.arange(len(texts)), np.diff(offsets))
    kept = np.ones(len(texts), dtype=np.bool_)
    _keep(grams, offsets, starts, owner[order], limit, kept)
    return kept & (np.diff(offsets) > 0)


def jaccard(pairs: Sequence[tuple[str, str]], *, ngram: int = 5) -> list[float]:
    """Exact Jaccard similarity of the sets of word n-grams of each pair of texts; 1 where neither has any."""
    sides = [shingle_hashes(pa.array([pair[side] for pair in pairs], pa.large_string()), ngram) for side in (0, 1)]
    found: list[float] = []
    for number in range(len(pairs)):
        one, other = (hashes[offsets[number] : offsets[number + 1]] for hashes, offsets in sides)
        common = np.intersect1d(one, other, assume_unique=True).size
        union = one.size + other.size - common
        found.append(common / union if union else 1.0)
    return found
