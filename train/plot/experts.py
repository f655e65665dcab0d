"""The expert figure: a heat map of each run's last expert load, and how even the load was over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.plot.languages import empty
from train.plot.measures import DEAD_RECORDS, dead_experts, evenness, last_loads, layer_loads, smoothed
from train.plot.read import number
from train.plot.style import COLOURS, LEVELS, WIDE, run_colour, shade, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.plot.read import RunRecords

_TICKS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
_MOST_MARKS = 1024
"""Crosses drawn in one heat map; more would hide it."""


@dataclass(frozen=True)
class Load:
    """Last load of a run: its step, the share of each expert by layer, and (layer, expert) of the dead ones."""

    run: RunRecords
    colour: str
    step: int
    layers: dict[int, list[float | None]]
    dead: set[tuple[int, int]]

    @property
    def experts(self) -> int:
        """Experts of the layer that has the most."""
        return max(map(len, self.layers.values()))


def loads(runs: Sequence[RunRecords]) -> list[Load]:
    """The runs that have MoE layers."""
    found = [Load(run, run_colour(place), *last_loads(run), dead_experts(run)) for place, run in enumerate(runs)]
    return [load for load in found if load.layers]


def level(share: float, experts: int) -> int:
    """Shade of a share of ``experts``: with r = share / even share it is (r - 1) / (r + 1), in steps.

    So half and twice the even share are as far from the middle, and there is an end for every load.
    """
    ratio = share * experts
    return round(LEVELS * (ratio - 1) / (ratio + 1))


def draw_experts(figure: Figure, runs: Sequence[RunRecords], found: Sequence[Load], *, x: str, smooth: float) -> None:
    """Draw into an empty figure of the height that :func:`height` tells."""
    if not found:
        have = any(run.train for run in runs)
        empty(figure, "No mixture-of-experts layers." if have else "No training step was recorded yet.")
        return
    columns = _columns(found, figure.get_figwidth())
    rows = -(-len(found) // columns)
    heights = [_heat_height(found[row * columns : (row + 1) * columns]) for row in range(rows)]
    grid = figure.add_gridspec(rows + 2, columns, height_ratios=[0.14, *heights, _LINES])
    _scale(figure.add_subplot(grid[0, :]))
    for place, load in enumerate(found):
        _heat(figure.add_subplot(grid[1 + place // columns, place % columns]), load)
    lines = figure.add_subplot(grid[rows + 1, :])
    _entropy(lines, found, x, smooth)
    label = "tokens trained on" if x == "tokens" else "steps"
    thin = "each layer" if any(len(load.layers) > 1 for load in found) else "each record"
    label += f". Bold: mean{' of layers' * (thin == 'each layer')}{', smoothed' * (smooth > 0)}; thin: {thin}. "
    label += "1: all experts get as much"
    if any(load.dead for load in found):
        label += f". ×: dead, no token in the last {DEAD_RECORDS} records"
    lines.set_xlabel(wrapped(label, figure.get_figwidth() - 0.6), loc="left")


def height(found: Sequence[Load], width: float) -> float:
    """Inches that the figure needs."""
    columns = _columns(found, width) if found else 1
    rows = [found[start : start + columns] for start in range(0, len(found), columns)]
    return sum(_heat_height(row) + 0.75 for row in rows) + _LINES + 1.5 if found else 1.4


_LINES = 1.6
"""Height of the lower plot, in inches."""


def _columns(found: Sequence[Load], width: float) -> int:
    return 2 if width >= WIDE and len(found) > 1 else 1


def _heat_height(row: Sequence[Load]) -> float:
    return min(4.0, max(0.4, *(0.2 * len(load.layers) for load in row), 0.0))


def _heat(axes: Axes, load: Load) -> None:
    cells: dict[int, list[tuple[float, float]]] = {}
    for row, shares in enumerate(load.layers.values()):
        total = sum(share for share in shares if share is not None) or 1.0
        for expert, share in enumerate(shares):
            if share is not None:
                cells.setdefault(level(share / total, len(shares)), []).append((expert, row))
    _squares(axes, cells, 0.06 if load.experts <= 64 else 0.0)
    order = list(load.layers)
    crosses = sorted((order.index(layer), expert) for layer, expert in load.dead if layer in load.layers)[:_MOST_MARKS]
    axes.plot([expert for _, expert in crosses], [row for row, _ in crosses], linestyle="", marker="x",
              color=COLOURS["card"], markersize=4.5, markeredgewidth=1.0)  # fmt: skip
    axes.set_xlim(-0.5, load.experts - 0.5)
    axes.set_ylim(len(order) - 0.5, -0.5)
    every = -(-len(order) // max(1, int(_heat_height([load]) / 0.17)))
    axes.set_yticks(range(0, len(order), every), [f"layer {layer}" for layer in order[::every]])
    across = max(1, -(-load.experts // 16))
    axes.set_xticks(range(0, load.experts, across), [str(number) for number in range(0, load.experts, across)])
    dead = f", {len(load.dead)} dead" if load.dead else ""
    axes.set_title(f"{load.run.name}, step {load.step:,}{dead}", color=load.colour)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _squares(axes: Axes, cells: dict[int, list[tuple[float, float]]], gap: float) -> None:
    """Cells of one shade are one path: a model of many layers and experts stays a small drawing."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for shade_level, places in sorted(cells.items()):
        corners = [(-0.5 + gap, -0.5 + gap), (0.5 - gap, -0.5 + gap), (0.5 - gap, 0.5 - gap), (-0.5 + gap, 0.5 - gap)]
        points = [(x + dx, y + dy) for x, y in places for dx, dy in (*corners, corners[0])]
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(places)
        edge = COLOURS["line"] if gap else "none"
        axes.add_patch(PathPatch(Path(points, codes), facecolor=shade(shade_level), edgecolor=edge, linewidth=0.4))


def _scale(axes: Axes) -> None:
    """What the shades mean."""
    count = 2 * LEVELS + 1
    for place in range(count):
        axes.axvspan(place - 0.5, place + 0.5, facecolor=shade(place - LEVELS), linewidth=0)
    axes.set_xlim(-0.5, count * (1.0 if axes.figure.get_figwidth() < WIDE else 2.2) - 0.5)  # pyright: ignore
    at = [LEVELS + LEVELS * ((r - 1) / (r + 1) if math.isfinite(r) else 1.0) for r in _TICKS]
    axes.set_xticks(at, ["none", "¼", "½", "even", "2×", "4×", "all"])
    axes.set_yticks([])
    axes.set_title("Share of tokens by expert")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _entropy(axes: Axes, found: Sequence[Load], x: str, smooth: float) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    lowest = 1.0
    for load in found:
        rows = [
            (record["step"], place, {layer: evenness(shares) for layer, shares in layer_loads(record).items()})
            for record in load.run.train
            if (place := number(record, x)) is not None
        ]
        places = [place for _, place, _ in rows]
        for layer in sorted({layer for _, _, values in rows for layer in values}):
            line = [_or_nan(values.get(layer)) for _, _, values in rows]
            axes.plot(places, line, color=load.colour, linewidth=0.6, alpha=0.4)
        means = [_mean([value for value in values.values() if value is not None]) for _, _, values in rows]
        bold = smoothed([step for step, _, _ in rows], means, smooth)
        axes.plot(places, list(map(_or_nan, bold)), color=load.colour, linewidth=1.5)
        lowest = min([lowest, *(value for _, _, values in rows for value in values.values() if value is not None)])
    axes.set_ylim(max(0.0, lowest - 0.03 - 0.1 * (1 - lowest)), 1.02)
    axes.set_title("Entropy of the load / log experts")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(length=0)
    axes.margins(x=0.01)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
