from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.permutation import Permutation, key_of


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_item_comes_once(size: int, key: int):
    assert np.array_equal(np.sort(Permutation(size, key)(np.arange(size))), np.arange(size))


def test_place_by_place_is_the_same_as_all_at_once():
    order = Permutation(1000, 9)
    assert [int(order(np.array([place]))[0]) for place in range(50)] == order(np.arange(50)).tolist()


def test_three_items_come_in_all_six_orders():
    orders = {tuple(Permutation(3, key)(np.arange(3)).tolist()) for key in range(300)}
    assert len(orders) == 6


def test_places_are_evenly_spread():
    # Over many keys, item 0 of 10 stands at each place about as often: chi-squared, 9 degrees, p = 1e-4 is 33.7.
    places = [int(Permutation(10, key)(np.arange(10)).argmin()) for key in range(2000)]
    expected = 200
    assert ((np.bincount(places, minlength=10) - expected) ** 2 / expected).sum() < 33.7


def test_neighbours_are_torn_apart():
    shuffled = Permutation(100_000, 3)(np.arange(100_000))
    assert (np.abs(np.diff(shuffled)) == 1).mean() < 1e-3
    # The rank correlation of two independent orders has standard deviation 1/sqrt(n).
    assert abs(np.corrcoef(np.arange(100_000), shuffled)[0, 1]) < 5 / np.sqrt(100_000)


@pytest.mark.parametrize(("left", "right"), [(("a", 1), ("a", "1")), (("ab", "c"), ("a", "bc")), ((1, 2), (2, 1))])
def test_keys_of_different_things_differ(left: tuple, right: tuple):
    assert key_of(*left) != key_of(*right)
