from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.mixture import CappedMixture, LanguageMixture


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


def counted_one_by_one(weights: dict[str, float], seed: int, most: dict[str, int], samples: int) -> list[str]:
    """The row by its definition: each sample of the mixture of what is left, which is told anew after each sample."""
    left = {name: weight for name, weight in weights.items() if most.get(name, 1)}
    taken: dict[str, int] = dict.fromkeys(weights, 0)
    row: list[str] = []
    while left and len(row) < samples:
        mixture = LanguageMixture(left, seed)
        name = mixture.languages[int(mixture.of_samples(len(row), 1)[0])]
        taken[name] += 1
        row.append(name)
        if taken[name] == most.get(name):
            del left[name]
    return row


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-3, 10.0), min_size=1),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40)),
    st.integers(0, 2**62),
)
def test_a_capped_row_is_that_of_counting(weights: dict[str, float], most: dict[str, int], seed: int):
    expected = counted_one_by_one(weights, seed, most, 250)
    mixture = CappedMixture(weights, seed, most)
    endless = any(name not in most for name in weights)
    assert mixture.end == (None if endless else sum(most[name] for name in weights))
    row = [mixture.languages[n] for n in mixture.of_samples(0, len(expected))]
    assert row == expected
    # Any stretch of it, by a reader that has seen nothing of it yet, and the counts before it.
    for first in (0, len(row) // 3, len(row) // 2, len(row)):
        fresh = CappedMixture(weights, seed, most)
        counts = [row[:first].count(name) for name in fresh.languages]
        assert fresh.counts_before(first).tolist() == counts
        assert [fresh.languages[n] for n in fresh.of_samples(first, len(row) - first)] == row[first:]


def test_a_row_without_caps_is_that_of_the_weights():
    weights = {"de": 0.7, "en": 0.2, "sw": 0.1}
    plain, capped = LanguageMixture(weights, 5), CappedMixture(weights, 5, {})
    assert np.array_equal(plain.of_samples(10**12, 500), capped.of_samples(10**12, 500))
    assert np.array_equal(plain.counts_before(10**12), capped.counts_before(10**12))


def test_large_caps_are_spent_to_the_last_sample():
    # Far beyond what can be counted one by one: the counts at the end are the caps, and each part begins at the sample
    # behind the last of the language that is used up.
    rng = np.random.default_rng(3)
    weights = {f"l{n:02d}": 1 / (n + 1) for n in range(30)}
    most = {name: int(10 ** rng.uniform(0, 9)) for name in weights}
    mixture = CappedMixture(weights, 7, most)
    assert mixture.end is not None
    assert mixture.end == sum(most.values())
    assert mixture.counts_before(mixture.end).tolist() == list(most.values())
    for stop in (mixture.end // 7, mixture.end // 2, mixture.end - 3):
        assert (mixture.counts_before(stop) <= list(most.values())).all()
        assert mixture.counts_before(stop).sum() == stop
        near = np.bincount(mixture.of_samples(stop - 1000, 1000), minlength=30)
        assert np.array_equal(mixture.counts_before(stop) - mixture.counts_before(stop - 1000), near)


def test_samples_beyond_the_end_are_refused():
    mixture = CappedMixture({"a": 1.0, "b": 1.0}, 0, {"a": 3, "b": 4})
    assert mixture.of_samples(0, 7).size == 7
    with pytest.raises(IndexError, match="up to 8 of a row of 7"):
        mixture.of_samples(3, 5)
    with pytest.raises(IndexError):
        mixture.counts_before(8)


def test_a_weight_too_small_for_an_interval_comes_when_the_others_are_used_up():
    mixture = CappedMixture({"a": 1.0, "b": 1e-30}, 1, {"a": 5, "b": 3})
    assert mixture.of_samples(0, 8).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
