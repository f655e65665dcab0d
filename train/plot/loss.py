"""The loss figure: training and held-out loss of several runs over steps or tokens, and the learning rate below."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from train.plot.measures import smoothed
from train.plot.read import number
from train.plot.style import COLOURS, WIDE, run_colour, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.plot.read import RunRecords

HIGHEST = 2.0
"""Losses above this many times the first are marked at the upper edge: one spike must not flatten the rest."""


def draw_loss(figure: Figure, runs: Sequence[RunRecords], *, x: str, width: float) -> None:
    """Draw into an empty figure.

    Args:
        figure: as :func:`train.plot.style.drawing` gives it.
        runs: a colour each.
        x: ``tokens`` or ``step``.
        width: of the smoothing, in steps; 0 draws the records alone.
    """
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top = _top(runs)
    rate = False
    for place, run in enumerate(runs):
        colour = run_colour(place)
        losses = [number(record, "loss") for record in run.train]
        points = _points(run.train, losses, x)
        if width > 0:
            above.plot(*points, color=colour, linewidth=0.6, alpha=0.4)
            mean = smoothed([record["step"] for record in run.train], losses, width)
            above.plot(*_points(run.train, mean, x), color=colour, linewidth=1.5)
        else:
            above.plot(*points, color=colour, linewidth=1.0)
        held_out = _points(run.valid, [number(record, "mean") for record in run.valid], x)
        above.plot(*held_out, color=colour, linewidth=1.1, linestyle=(0, (4, 2)), marker="o", markersize=3.5)
        _mark_above(above, run, losses, top, x, colour)
        lr = _points(run.train, [number(record, "lr") for record in run.train], x)
        rate = rate or any(math.isfinite(value) for value in lr[1])
        below.plot(*lr, color=colour, linewidth=1.1)
    for bar in sorted({round(bar, 9) for run in runs for r in run.valid[-1:] if (bar := number(r, "unigram_mean"))}):
        above.axhline(bar, color=COLOURS["soft"], linewidth=1.0, linestyle=(0, (1, 2)))
    if top is not None and above.get_ylim()[1] > top:
        above.set_ylim(top=top)
    above.set_title("Loss (nats a token)")
    below.set_title("Learning rate" if rate else "Learning rate: not recorded")
    below.set_ylim(bottom=0)
    below.set_xlabel(wrapped(_x_label(runs, x, width), figure.get_figwidth() - 0.6), loc="left")
    _ticks(above, below)
    _legend(figure, runs, width)


def _points(records: Sequence[dict[str, Any]], values: Sequence[float | None], x: str) -> tuple[list, list]:
    """Where the records stand, and their values; NaN, which interrupts a line, where there is none."""
    places = [number(record, x) for record in records]
    kept = [(place, value) for place, value in zip(places, values, strict=True) if place is not None]
    return [place for place, _ in kept], [math.nan if value is None else value for _, value in kept]


def _top(runs: Sequence[RunRecords]) -> float | None:
    """Where the plot ends if a loss is higher: twice the largest of the runs' first losses."""
    firsts = [
        next((value for r in records if (value := number(r, key)) is not None), None)
        for run in runs
        for records, key in ((run.train, "loss"), (run.valid, "mean"))
    ]
    known = [first for first in firsts if first is not None]
    return HIGHEST * max(known) if known and max(known) > 0 else None


def _mark_above(axes: Axes, run: RunRecords, losses: Sequence[float | None], top: float | None, x: str, colour: str):
    """Triangles for losses above the plot, crosses for records whose loss is no number, both at the upper edge."""
    off = [number(r, x) for r, loss in zip(run.train, losses, strict=True) if loss is not None and top and loss > top]
    none = [number(r, x) for r, loss in zip(run.train, losses, strict=True) if loss is None]
    none += [number(r, x) for r in run.valid if number(r, "mean") is None and r.get("loss")]
    for places, marker in ((off, "^"), (none, "x")):
        kept = [place for place in places if place is not None]
        if kept:
            axes.plot(
                kept, [0.97] * len(kept), transform=axes.get_xaxis_transform(), linestyle="", marker=marker,
                color=colour, markersize=5,
            )  # fmt: skip


def _x_label(runs: Sequence[RunRecords], x: str, width: float) -> str:
    label = "tokens trained on" if x == "tokens" else "steps"
    if width > 0:
        label += f". Bold: mean of all records so far, weighted by exp(−age / {width:,.3g} steps)"
    if any(number(record, "loss") is None for run in runs for record in run.train):
        label += ". ×: a loss that is no number"
    top = _top(runs)
    if top and any((number(record, "loss") or 0) > top for run in runs for record in run.train):
        label += ". ▲: a loss above the plot"
    return label


def _ticks(above: Axes, below: Axes) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    below.xaxis.set_major_formatter(EngFormatter(sep=""))
    below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    below.yaxis.set_major_locator(MaxNLocator(3))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    for axes in (above, below):
        axes.tick_params(length=0)
        axes.margins(x=0.01)


def _legend(figure: Figure, runs: Sequence[RunRecords], width: float) -> None:
    from matplotlib.lines import Line2D

    soft = COLOURS["soft"]
    entries = [(Line2D([], [], color=run_colour(place), linewidth=2), run.name) for place, run in enumerate(runs)]
    if width > 0:
        entries.append((Line2D([], [], color=soft, linewidth=0.6), "training, each record"))
    entries.append((Line2D([], [], color=soft, linewidth=1.5), "training, smoothed" if width > 0 else "training"))
    if any(run.valid for run in runs):
        dashed = Line2D([], [], color=soft, linewidth=1.1, linestyle=(0, (4, 2)), marker="o", markersize=3.5)
        entries.append((dashed, "held out, mean of languages"))
    if any(number(record, "unigram_mean") for run in runs for record in run.valid[-1:]):
        dotted = Line2D([], [], color=soft, linewidth=1.0, linestyle=(0, (1, 2)))
        entries.append((dotted, "held out, token frequencies alone"))
    legend(figure, entries)


def legend(figure: Figure, entries: Sequence[tuple[Any, str]]) -> None:
    """A legend above the plots: in columns where there is room."""
    wide = figure.get_figwidth() >= WIDE
    figure.legend(
        [handle for handle, _ in entries],
        # A name that begins with an underscore would be left out.
        [f" {label}" if label.startswith("_") else label for _, label in entries],
        loc="outside upper left",
        ncols=3 if wide else 1,
    )
