"""Logarithmic axes of the page: the values to show in, where each lies and which ticks to draw out.

Positions are per cent of the width of the plot, so that the browser does the rest at any width.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_GAP = 22.0
"""Per cent of the plot between two labels, at least: closer ones would touch on a phone."""
_MARGIN = 0.04
"""Part of the axis left free at both ends, so that the smallest is not a bar of no length."""
_STEPS = ((1, 2, 5), (1, 3), (1,))
"""Ticks within a power of ten, from a narrow axis to a wide one."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the plot at ``at`` per cent, with its ``label``, which may be empty."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class LogScale:
    """From ``low`` at 0 % to ``high`` at 100 %, with 0 < low < high."""

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Position of a value in per cent, two decimals; what lies outside stays at the edge."""
        if value <= self.low:
            return 0.0
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(100 * min(1.0, share), 2)


def log_scale(
    values: Iterable[float], label: Callable[[float], str], *, gap: float = _GAP, whole: bool = True
) -> LogScale:
    """The scale on which all of ``values`` that are above 0 can be seen.

    Args:
        values: what will be drawn.
        label: text of a tick.
        gap: per cent of the plot between two labels, at least.
        whole: they are counts: no tick below 1.
    """
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found), max(found)
    if high / low < 2:  # one size, or nearly: an axis must still have a length
        low, high = low / 2, high * 2
    room = (high / low) ** _MARGIN
    scale = LogScale(low / room, high * room)
    return LogScale(scale.low, scale.high, tuple(_ticks(scale, label, gap, 1.0 if whole else 0.0)))


def _ticks(scale: LogScale, label: Callable[[float], str], gap: float, least: float) -> Iterable[Tick]:
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    decades = math.log10(scale.high / scale.low)
    steps = _STEPS[0] if decades < 1.5 else _STEPS[1] if decades < 3 else _STEPS[2]
    powers = [10.0**power for power in range(first, last + 1)]
    values = [value for power in powers for step in steps if scale.low <= (value := step * power) <= scale.high]
    values = [value for value in values if value >= least]
    tens = [value for value in values if value in powers]
    choice = tens if len(tens) > 1 else values
    named: list[float] = []
    for value in reversed(choice):  # the largest language is what the eye looks for first
        if not named or scale.at(named[-1]) - scale.at(value) >= gap:
            named.append(value)
    for value in values:
        yield Tick(scale.at(value), _plain(label(value)) if value in named else "")


def _plain(label: str) -> str:
    """Without noughts that say nothing: a tick is exactly where it is."""
    return re.sub(r"\.0+(?=\D|$)", "", label)
