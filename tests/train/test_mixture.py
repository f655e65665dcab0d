from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.mixture import LanguageMixture


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1e-6, 1e6), min_size=1),
    st.integers(0, 2**62),
    st.integers(0, 3000),
)
def test_counts_are_those_of_counting(weights: dict[str, float], seed: int, samples: int):
    mixture = LanguageMixture(weights, seed)
    counted = np.bincount(mixture.of_samples(0, samples), minlength=len(weights))
    assert np.array_equal(mixture.counts_before(samples), counted)


def test_counts_far_away_agree_with_the_samples_there():
    mixture = LanguageMixture({"de": 0.7, "en": 0.2, "sw": 0.1}, 5)
    far = 10**13
    counted = np.bincount(mixture.of_samples(far, 1000), minlength=3)
    assert np.array_equal(mixture.counts_before(far + 1000) - mixture.counts_before(far), counted)


def test_shares_follow_the_weights_closely():
    weights = {"a": 0.9, "b": 0.1, "c": 1e-3, "d": 0.0}
    mixture = LanguageMixture(weights, 1)
    assert mixture.languages == ["a", "b", "c"]
    counts = np.bincount(mixture.of_samples(0, 10_010), minlength=3)
    wanted = np.array([0.9, 0.1, 1e-3]) / 1.001 * 10_010
    # A random draw would be off by sqrt(n w (1 - w)): 30 of 9,000. The golden-ratio sequence is off by O(log n).
    assert np.abs(counts - wanted).max() < 6


def test_order_of_the_keys_does_not_matter():
    a, b = (LanguageMixture(dict(items), 3) for items in ([("x", 1.0), ("y", 2.0)], [("y", 2.0), ("x", 1.0)]))
    assert a.languages == b.languages
    assert np.array_equal(a.of_samples(0, 100), b.of_samples(0, 100))
