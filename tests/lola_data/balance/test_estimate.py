"""Intervals against tables and closed forms, and against the truth in populations that are known whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lola_data.balance.estimate import effective_documents, quantile_ranks, ratio, student_quantile
from lola_data.balance.fill import apportion


@pytest.mark.parametrize(
    ("degrees", "table"), [(4, 2.776), (5, 2.571), (10, 2.228), (23, 2.069), (30, 2.042), (120, 1.980), (1e9, 1.960)]
)
def test_student_quantile_is_that_of_the_tables(degrees: float, table: float) -> None:
    assert student_quantile(degrees) == pytest.approx(table, rel=3e-3)


def test_ratio_by_hand() -> None:
    # R = 12 / 6 = 2; residuals 1, -2, 1, so s^2 = 6 / 2 = 3; v = (1 - 1/4) 3 * 3 / 36; t with 2 degrees.
    found, half = ratio([3.0, 2.0, 7.0], [1.0, 2.0, 3.0], fraction=0.25)
    assert found == 2.0
    assert half == pytest.approx(student_quantile(2) * math.sqrt(0.75 * 3 * 3 / 36))


def test_nothing_is_left_open_where_all_was_taken_or_all_agree() -> None:
    assert ratio([3.0, 2.0], [1.0, 2.0], fraction=1.0) == (5 / 3, 0.0)
    assert ratio([10.0, 20.0, 70.0], [1.0, 2.0, 7.0], fraction=0.1) == (10.0, 0.0)
    assert ratio([], [], fraction=0.5) == (0.0, 0.0)
    assert ratio([1.0], [2.0], fraction=0.5) == (0.5, math.inf)


def test_ratio_of_means_is_the_textbook_interval_of_a_mean() -> None:
    """With x = 1 the ratio is the mean, and its interval Student's."""
    y = np.random.default_rng(0).normal(5, 2, 50)
    found, half = ratio(y, np.ones(50), fraction=0.0)
    assert found == pytest.approx(y.mean())
    assert half == pytest.approx(student_quantile(49) * y.std(ddof=1) / math.sqrt(50))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1)
    x = draws.lognormal(8, 0.5, 600)
    y = x * draws.normal(0.8, 0.05, 600) + draws.normal(0, 30, 600)
    truth, held = y.sum() / x.sum(), 0
    for _ in range(2000):
        chosen = draws.permutation(600)[:40]
        found, half = ratio(y[chosen], x[chosen], fraction=40 / 600)
        held += abs(found - truth) <= half
    assert 0.93 < held / 2000 < 0.97


def test_pages_of_unlike_documents_tell_as_much_as_single_documents() -> None:
    draws = np.random.default_rng(2)
    pages = [draws.lognormal(7, 1, 100).astype(np.int64) for _ in range(200)]
    found = effective_documents(pages, [0.5], fraction=1e-9)
    assert 0.75 * 20_000 < found < 1.05 * 20_000


def test_pages_of_equal_documents_tell_as_much_as_one_document_each() -> None:
    draws = np.random.default_rng(3)
    pages = [np.full(100, value) for value in draws.integers(1, 1000, 200)]
    assert effective_documents(pages, [0.5], fraction=1e-9) == pytest.approx(200, rel=0.1)
    assert effective_documents(pages, [0.5], fraction=1.0) == math.inf
    assert effective_documents(pages, [0.5], fraction=0.5) == pytest.approx(400, rel=0.1)


def test_quantile_ranks_are_the_normal_interval_of_a_share() -> None:
    low, high = quantile_ranks(0.1, 0.1 * 0.9 / 400)
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.015, 0.1 + 1.96 * 0.015), abs=1e-5)
    assert quantile_ranks(0.99, 1.0) == (0.0, 1.0)


@pytest.mark.parametrize("total", [0, 1, 7, 100, 12_345_678_901])
def test_apportioned_numbers_add_up_and_are_nearly_proportional(total: int) -> None:
    weights = np.array([0.0, 1.0, 2.5, 3.25, 1e-9])
    found = apportion(weights, total)
    assert found.sum() == total
    assert np.abs(found - weights / weights.sum() * total).max() < 1
    assert apportion(np.zeros(3), total).tolist() == [0, 0, 0]
