from __future__ import annotations

from typing import Any

import pytest

from tests.train.parallel_worker import exchange, results_of


def by_hand(rows: list[list[list[float]]], counts: list[list[int]]) -> list[dict[str, Any]]:
    """What :func:`exchange` comes to, row by row: process p owns the experts from p * E / G on."""
    world, experts = len(rows), len(counts[0])
    per_owner = experts // world
    found: list[dict[str, Any]] = [
        {"arrived": [], "expert": [], "sent": [0] * world, "received": [0] * world, "home": [], "x_grad": [],
         "weight_grad": 0.0}
        for _ in range(world)
    ]  # fmt: skip
    for source in range(world):
        expert_of_row = [expert for expert, count in enumerate(counts[source]) for _ in range(count)]
        for row, expert in zip(rows[source], expert_of_row, strict=True):
            owner, number = divmod(expert, per_owner)
            factor = 100.0 * (owner + 1) + number
            there, here = found[owner], found[source]
            there["arrived"].append(row)
            there["expert"].append(number)
            there["received"][source] += 1
            here["sent"][owner] += 1
            here["home"].append([factor * x for x in row])
            # d/dx (w f x)^2 = 2 f^2 x at w = 1, and d/dw of it = 2 f^2 x^2, which lands where w is: at the owner.
            here["x_grad"].append([2 * factor**2 * x for x in row])
            there["weight_grad"] += sum(2 * factor**2 * x**2 for x in row)
    return found


@pytest.mark.parametrize(
    "counts",
    [
        [[1, 2, 0, 3], [0, 1, 4, 0]],
        [[0, 0, 0, 0], [2, 0, 0, 1]],  # a process without a row
        [[3, 1, 0, 0], [0, 2, 0, 0]],  # all rows go to one process
        [[0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    ids=["uneven", "none-sent", "none-received", "none-at-all"],
)
def test_rows_reach_the_owner_of_their_expert_and_come_home(counts: list[list[int]]):
    number = iter(range(1, 100))
    rows = [[[float(next(number)), -1.0] for _ in range(sum(one))] for one in counts]
    found = results_of(2, exchange, rows, counts)
    for got, wanted in zip(found, by_hand(rows, counts), strict=True):
        assert got.pop("weight_grad") == pytest.approx(wanted.pop("weight_grad"), rel=1e-6)
        assert got == wanted
