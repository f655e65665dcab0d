"""What the figures compute from records: a smoothed loss, the evenness of expert load, experts without work."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from train.plot.read import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.plot.read import RunRecords

DEAD_RECORDS = 5
"""An expert that got no token in any of so many last records is called dead."""


def smoothed(steps: Sequence[int], values: Sequence[float | None], width: float) -> list[float | None]:
    """The mean of all values so far, weighted by exp(-age / ``width``), with the age counted in steps.

    ``y(t) = sum_i exp(-(t - t_i) / width) x_i / sum_i exp(-(t - t_i) / width)`` over records with ``t_i <= t`` that
    have a value. In steps, and not in records, so that runs that log at other intervals are smoothed alike. With
    ``width`` 0 the values are as they were.

    Args:
        steps: growing steps.
        values: a value each, or None.
        width: steps after which a record counts 1/e.

    Returns:
        As many values; None where there was none.
    """
    if width <= 0:
        return list(values)
    total = weight = 0.0
    last = steps[0] if steps else 0
    result: list[float | None] = []
    for step, value in zip(steps, values, strict=True):
        decay = math.exp(-(step - last) / width)
        total, weight, last = total * decay, weight * decay, step
        if value is not None:
            total, weight = total + value, weight + 1.0
        result.append(None if value is None else total / weight)
    return result


def smoothing_width(runs: Sequence[RunRecords]) -> int:
    """Width by default, in steps: a fiftieth of the longest run."""
    return max(1, round(max(run.step for run in runs) / 50))


def layer_loads(record: dict[str, Any]) -> dict[int, list[float | None]]:
    """Share of tokens of each expert, by number of the layer; empty where there are no MoE layers."""
    load = record.get("load")
    found: dict[int, list[float | None]] = {}
    for layer, shares in load.items() if isinstance(load, dict) else ():
        if isinstance(shares, list) and shares and str(layer).isdigit():
            found[int(layer)] = [number({"x": share}, "x") for share in shares]
    return dict(sorted(found.items()))


def last_loads(run: RunRecords) -> tuple[int, dict[int, list[float | None]]]:
    """Step and loads of the last record that has any; step 0 and nothing if none has."""
    for record in reversed(run.train):
        if loads := layer_loads(record):
            return record["step"], loads
    return 0, {}


def evenness(shares: Sequence[float | None]) -> float | None:
    """Entropy of a load over its largest possible value: ``-sum p ln p / ln E``, 1 if all experts get as much.

    None where a share is missing, nothing was sent, or there is one expert.
    """
    known = [share for share in shares if share is not None and share >= 0]
    total = sum(known)
    if len(known) < len(shares) or len(known) < 2 or total <= 0:
        return None
    entropy = -sum(share / total * math.log(share / total) for share in known if share)
    return entropy / math.log(len(known)) + 0.0  # no negative zero


def dead_experts(run: RunRecords) -> set[tuple[int, int]]:
    """(layer, expert) of each that got no token in any of the last :data:`DEAD_RECORDS` records with a load."""
    recent = [loads for record in run.train if (loads := layer_loads(record))][-DEAD_RECORDS:]
    empty = (
        {(layer, expert) for layer, shares in loads.items() for expert, share in enumerate(shares) if share == 0}
        for loads in recent
    )
    return set.intersection(*empty) if recent else set()


def median_speed(run: RunRecords) -> float | None:
    """Median of the recorded tokens per second."""
    speeds = sorted(speed for record in run.train if (speed := number(record, "tokens_per_second")) is not None)
    if not speeds:
        return None
    middle = len(speeds) // 2
    return speeds[middle] if len(speeds) % 2 else (speeds[middle - 1] + speeds[middle]) / 2
