from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.train.plot.conftest import EVEN_LOADS, train_record
from train.plot.measures import dead_experts, evenness, last_loads, median_speed, smoothed, smoothing_width
from train.plot.read import read_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("width", [0.5, 7.0, 1000.0])
def test_smoothing_is_the_formula(width: float):
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 30, 50)).tolist()
    values: list[float | None] = rng.normal(5, 1, 50).tolist()
    values[0] = values[10] = values[11] = None
    found = smoothed(steps, values, width)
    for place, step in enumerate(steps):
        if values[place] is None:
            assert found[place] is None
            continue
        past = [(s, v) for s, v in zip(steps[: place + 1], values, strict=False) if v is not None]
        weights = [math.exp(-(step - s) / width) for s, _ in past]
        wanted = sum(w * v for w, (_, v) in zip(weights, past, strict=True)) / sum(weights)
        assert found[place] == pytest.approx(wanted, rel=1e-12)


def test_smoothing_of_little():
    assert smoothed([], [], 5) == []
    assert smoothed([3], [None], 5) == [None]
    assert smoothed([3, 4], [1.0, 2.0], 0) == [1.0, 2.0]
    assert smoothed([10, 10_000_000], [1.0, 3.0], 2) == [1.0, 3.0]


def test_width_by_default_is_a_fiftieth(make_run: Callable[..., Path]):
    long = read_run(make_run("long", [train_record(1000, 3.0)]))
    assert smoothing_width([read_run(make_run()), long]) == 20
    assert smoothing_width([read_run(make_run("short", [train_record(1, 3.0)]))]) == 1


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ([0.25] * 4, 1.0),
        ([1.0, 0.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.0, 0.0], 0.5),  # ln 2 / ln 4
        ([2.0, 2.0], 1.0),  # more than one expert a token: shares need not sum to 1
        ([0.5, None], None),
        ([0.0, 0.0], None),
        ([1.0], None),
    ],
)
def test_evenness(shares: list[float | None], wanted: float | None):
    assert evenness(shares) == pytest.approx(wanted)


def test_dead_is_without_a_token_in_each_of_the_last_records(make_run: Callable[..., Path]):
    """Expert 3 of layer 1 gets nothing in the last five records; expert 0 of layer 3 something in one of them."""
    records = [train_record(1, 3.0, load=EVEN_LOADS)]
    for step in range(2, 7):
        load = {"1": [0.5, 0.25, 0.25, 0.0], "3": [0.1 if step == 4 else 0.0, 0.5, 0.3, 0.1]}
        records.append(train_record(step, 3.0, load=load))
    run = read_run(make_run(records=records))
    assert dead_experts(run) == {(1, 3)}
    assert last_loads(run)[0] == 6
    alive = read_run(make_run("alive", [*records[:5], train_record(7, 3.0, load=EVEN_LOADS)]))
    assert dead_experts(alive) == set()


@pytest.mark.parametrize("load", [{}, None, 3, {"1": None}, {"1": []}, {"x": [1.0]}])
def test_no_load(make_run: Callable[..., Path], load: object):
    run = read_run(make_run(records=[train_record(1, 3.0, load=load)]))
    assert last_loads(run) == (0, {})
    assert dead_experts(run) == set()


def test_median_speed(make_run: Callable[..., Path]):
    speeds = [
        train_record(step, 3.0, tokens_per_second=speed) for step, speed in ((1, 10), (2, 40), (3, None), (4, 20))
    ]
    assert median_speed(read_run(make_run(records=speeds))) == 20
    assert median_speed(read_run(make_run("two", speeds[:2]))) == 25
    assert median_speed(read_run(make_run("none", speeds[2:3]))) is None
