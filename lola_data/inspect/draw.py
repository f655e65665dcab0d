"""Random documents of a tree, each as likely as any other: a seed in, places of rows out, before a row is read.

The i-th number is drawn by the hash of (seed, i), so the same seed gives the same documents, and a longer draw begins
with those of a shorter one.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw(total: int, count: int, seed: int) -> list[int]:
    """``count`` different numbers in [0, total), or all of them if there are fewer, in the order drawn.

    The first ``count`` steps of a Fisher-Yates shuffle (Durstenfeld, CACM 7(7), 1964), of which only the places that
    were swapped are kept.
    """
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for step in range(min(count, total)):
        value = xxhash.xxh64_intdigest(f"{seed}/inspect/{step}".encode())
        # Lemire's multiplication in the place of a remainder; the bias is below total / 2^64.
        place = step + (value * (total - step) >> 64)
        drawn.append(moved.get(place, place))
        moved[place] = moved.get(step, step)
    return drawn


def located(numbers: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(part, offset in it) of each of ``numbers``, where part i holds the ``sizes[i]`` numbers after those before it.

    >>> located([0, 4, 3], [3, 0, 2])
    [(0, 0), (2, 1), (2, 0)]
    """
    ends = list(accumulate(sizes))
    found: list[tuple[int, int]] = []
    for number in numbers:
        part = bisect_right(ends, number)
        found.append((part, number - (ends[part] - sizes[part])))
    return found
