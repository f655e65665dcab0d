"""Evenness figures against values worked out by hand from their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.balance.evenness import evenness


def test_equal_languages_are_perfectly_even() -> None:
    figures = evenness([7, 7, 7, 7])
    assert figures.languages == 4
    assert figures.entropy == pytest.approx(math.log(4))
    assert figures.normalised_entropy == pytest.approx(1)
    assert figures.effective_languages == pytest.approx(4)
    assert figures.gini == pytest.approx(0)
    assert figures.smallest_half_share == pytest.approx(0.5)
    assert figures.smallest_100_share == pytest.approx(1)


def test_one_language_with_everything_of_four() -> None:
    figures = evenness([0, 0, 12, 0])
    assert figures.entropy == 0
    assert figures.effective_languages == 1
    assert figures.gini == pytest.approx(3 / 4)  # (n - 1) / n
    assert figures.smallest_half_share == 0


def test_shares_of_a_half_a_quarter_and_two_eighths() -> None:
    # H = 1/2 ln 2 + 1/4 ln 4 + 2/8 ln 8 = 1.75 ln 2, so exp(H) = 2^1.75.
    figures = evenness([4, 1, 2, 1])
    assert figures.entropy == pytest.approx(1.75 * math.log(2))
    assert figures.effective_languages == pytest.approx(2**1.75)
    assert figures.normalised_entropy == pytest.approx(1.75 / 2)
    # Ascending 1 1 2 4: (-3*1 - 1*1 + 1*2 + 3*4) / (4 * 8) = 10 / 32.
    assert figures.gini == pytest.approx(10 / 32)
    assert figures.smallest_half_share == pytest.approx(2 / 8)


def test_the_smallest_hundred_and_the_smaller_half_of_an_odd_number() -> None:
    figures = evenness([1] * 100 + [100])
    assert figures.smallest_100_share == pytest.approx(0.5)
    assert figures.smallest_half_share == pytest.approx(50 / 200)  # floor(101 / 2) languages


def test_one_language_and_none() -> None:
    assert evenness([5]).normalised_entropy == 1
    assert evenness([5]).smallest_half_share == 0
    assert evenness([]).languages == 0
    assert evenness([0, 0]).effective_languages == 0


@pytest.mark.parametrize("sizes", [[1, -1], [float("nan")], [float("inf")], [[1, 2]]])
def test_sizes_that_are_none_are_refused(sizes: list[float]) -> None:
    with pytest.raises(ValueError):
        evenness(sizes)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(sizes: list[int]) -> None:
    n, total = len(sizes), sum(sizes)
    expected = sum(abs(a - b) for a in sizes for b in sizes) / (2 * n * total) if total else 0.0
    assert evenness(sizes).gini == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60))
def test_effective_languages_lie_between_one_and_all(sizes: list[int]) -> None:
    assert 1 - 1e-9 <= evenness(sizes).effective_languages <= len(sizes) * (1 + 1e-9)
