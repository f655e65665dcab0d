"""Minimum scores by the rule of FineWeb-2, against NumPy on the scores themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.lid.thresholds import BINS, ScoreCounts, threshold

SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200)


@given(SCORES, SCORES)
def test_median_and_deviation_are_numpys_to_a_bin(left: list[float], right: list[float]) -> None:
    counts, more = ScoreCounts(), ScoreCounts()
    counts.add(np.array(left, np.float32))
    more.add(np.array(right, np.float32))
    counts += ScoreCounts.from_json(more.to_json())
    both = np.array([*left, *right])
    median, deviation = counts.median_and_deviation()
    assert counts.documents == both.size
    assert median == pytest.approx(float(np.median(both)), abs=1 / BINS)
    assert deviation == pytest.approx(float(np.std(both)), abs=1 / BINS)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9] * 100, 0.9),  # no spread: 0.9 less 0
        ([0.99] * 100, 0.9),  # not above 0.9
        ([0.1, 0.2], 0.3),  # not below 0.3
        ([0.5, 0.7, 0.9], 0.7 - 0.16330),  # the deviation of 0.5, 0.7, 0.9 is sqrt(0.08 / 3)
        ([], 0.3),
    ],
)
def test_hand_checked_cases(scores: list[float], expected: float) -> None:
    counts = ScoreCounts()
    counts.add(np.array(scores, np.float32))
    assert threshold(counts) == pytest.approx(expected, abs=2 / BINS)
