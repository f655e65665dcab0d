"""Minimum scores of languages, from the scores that their own documents get.

In: counts of scores of one language, added up over as many batches as there are. Out: the score below which a document
is not believed to be in it, by the rule of FineWeb-2 (Penedo et al. 2025, arXiv 2506.20920, section 3.1): the median
less one standard deviation, kept between 0.3 and 0.9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 1 << 14
"""Scores are counted in bins of 1/16,384: the median is found to within half of that."""
LOWEST, HIGHEST = 0.3, 0.9


def _empty() -> npt.NDArray[np.int64]:
    return np.zeros(BINS, dtype=np.int64)


@dataclass
class ScoreCounts:
    """How often each score was given to documents of one language: ``bins`` int64[BINS] over [0, 1]."""

    bins: npt.NDArray[np.int64] = field(default_factory=_empty)

    def add(self, scores: npt.NDArray[np.floating]) -> None:
        """Count scores, any number in [0, 1]."""
        places = np.minimum((scores.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
        self.bins += np.bincount(np.maximum(places, 0), minlength=BINS)

    def __iadd__(self, other: ScoreCounts) -> ScoreCounts:
        self.bins += other.bins
        return self

    @property
    def documents(self) -> int:
        """Scores counted."""
        return int(self.bins.sum())

    def to_json(self) -> dict[str, int]:
        """The bins that are not empty."""
        return {str(place): int(self.bins[place]) for place in np.flatnonzero(self.bins)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ScoreCounts:
        """The inverse of :meth:`to_json`."""
        found = cls()
        for place, count in value.items():
            found.bins[int(place)] = count
        return found

    def median_and_deviation(self) -> tuple[float, float]:
        """Median and (population) standard deviation, of the middles of the bins.

        Raises:
            ValueError: nothing was counted.
        """
        if not self.documents:
            raise ValueError("no scores")
        middles = (np.arange(BINS) + 0.5) / BINS
        upto = np.cumsum(self.bins)
        low, high = (int(np.searchsorted(upto, rank, side="right")) for rank in _middle_ranks(self.documents))
        mean = float((middles * self.bins).sum() / self.documents)
        spread = float((self.bins * (middles - mean) ** 2).sum() / self.documents)
        return float(middles[low] + middles[high]) / 2, float(np.sqrt(spread))


def _middle_ranks(count: int) -> tuple[int, int]:
    return (count - 1) // 2, count // 2


def threshold(counts: ScoreCounts) -> float:
    """The minimum score of a language: median less standard deviation, within [0.3, 0.9], to four decimals.

    A language without documents of its own gets 0.3: there is nothing to be stricter by.
    """
    if not counts.documents:
        return LOWEST
    median, deviation = counts.median_and_deviation()
    return round(min(HIGHEST, max(LOWEST, median - deviation)), 4)
