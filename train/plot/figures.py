"""The three figures of a set of runs, drawn once for each width and kind of file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from train.plot import experts, languages
from train.plot.loss import draw_loss
from train.plot.style import NARROW, WIDE, drawing, png_bytes, svg_element

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from train.plot.read import RunRecords

_Out = TypeVar("_Out")

NAMES = ("loss", "languages", "experts")


@dataclass(frozen=True)
class Figures:
    """What is drawn.

    Attributes:
        runs: the runs, in the order of their colours.
        languages: the scores by language.
        x: ``tokens`` or ``step``.
        smooth: width of the smoothing of losses, in steps; 0 for none.
    """

    runs: tuple[RunRecords, ...]
    languages: languages.Languages
    x: str
    smooth: float

    @cached_property
    def loads(self) -> list[experts.Load]:
        """The last loads of runs with MoE layers."""
        return experts.loads(self.runs)

    def png(self, name: str) -> bytes:
        """One of :data:`NAMES` as a PNG file."""
        return self._draw(name, WIDE, png_bytes)

    def svg(self, name: str, *, narrow: bool, label: str) -> str:
        """One of :data:`NAMES` as an SVG element that says ``label`` to a screen reader."""
        prefix = f"{name}-{'narrow' if narrow else 'wide'}"
        return self._draw(
            name, NARROW if narrow else WIDE, lambda figure: svg_element(figure, name=prefix, label=label)
        )  # fmt: skip

    def _draw(self, name: str, width: float, write: Callable[[Figure], _Out]) -> _Out:
        wide = width == WIDE
        heights = {
            "loss": 4.6 if wide else 4.6 + 0.2 * len(self.runs),
            "languages": languages.height(self.languages, len(self.runs), width),
            "experts": experts.height(self.loads, width),
        }
        with drawing(width, heights[name]) as figure:
            if name == "loss":
                draw_loss(figure, self.runs, x=self.x, width=self.smooth)
            elif name == "languages":
                languages.draw_languages(figure, self.runs, self.languages)
            else:
                experts.draw_experts(figure, self.runs, self.loads, x=self.x, smooth=self.smooth)
            return write(figure)
