"""Logarithmic axes: equal factors are equal distances, and ticks lie where they say."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.report.scale import LogScale, log_scale
from lola_data.text_tables import readable_bytes


def test_equal_factors_are_equal_distances() -> None:
    scale = LogScale(1.0, 10_000.0)
    assert [scale.at(value) for value in (1, 10, 100, 1000, 10_000)] == [0, 25, 50, 75, 100]


def test_what_lies_outside_stays_at_the_edge() -> None:
    scale = LogScale(10.0, 1000.0)
    assert (scale.at(0), scale.at(1), scale.at(1e9)) == (0, 0, 100)


@given(st.lists(st.integers(min_value=0, max_value=10**14), max_size=20))
def test_every_value_is_on_the_scale_in_its_order(values: list[int]) -> None:
    scale = log_scale(values, str)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 < scale.at(value) < 100 for value in values if value)
    named = [tick.at for tick in scale.ticks if tick.label]
    assert named
    assert all(after - before >= 22 for before, after in pairwise(named))
    assert all(0 <= tick.at <= 100 for tick in scale.ticks)


def test_ticks_stand_at_what_they_say() -> None:
    scale = log_scale([4_000, 2_600_000], readable_bytes)
    size = {"kB": 1e3, "MB": 1e6}
    found = [re.fullmatch(r"(\d+) (kB|MB)", tick.label) for tick in scale.ticks if tick.label]
    assert [match[0] for match in found if match] == ["10 kB", "100 kB", "1 MB"]
    for tick, match in zip([tick for tick in scale.ticks if tick.label], found, strict=True):
        assert match
        assert tick.at == scale.at(int(match[1]) * size[match[2]])


def test_one_value_is_an_axis_too() -> None:
    scale = log_scale([70, 70], str)
    assert scale.at(70) == pytest.approx(50)
    assert any(tick.label for tick in scale.ticks)
