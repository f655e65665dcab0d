"""How the figures look, and how one drawing becomes a PNG file and an SVG element that follows light and dark.

Colours are named as in ``resources/report.css``. A PNG has their light values. In an SVG element each is replaced by
the CSS variable of its name, so that the page decides, and text by the page's font. Everything that depends on the day,
the version or the user's own matplotlib settings is left out: the same records give the same bytes.

matplotlib is imported in the functions: the command line must not wait for it.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

COLOURS = {
    "card": "#ffffff", "ink": "#1d2227", "soft": "#59626b", "line": "#dedbd3", "grid": "#ebe8e1",
    "accent": "#0b5fa5", "subject": "#c24e0a", "url": "#17907b", "plan": "#7a3f99", "low-score": "#b87c0e",
    "relabelled": "#b85c98", "other-1": "#637939", "first": "#7f8993",
}  # fmt: skip
"""Light value of each CSS variable used."""
RUN_COLOURS = ("accent", "subject", "url", "plan", "low-score", "relabelled", "other-1", "first")
"""Names of the colours of runs, in order."""
WIDE, NARROW = 9.0, 3.3
"""Widths of a figure in inches: for a screen and for a phone."""
FONT = 8.5
"""Size of text in points."""

LEVELS = 24
"""Shades between even load and either end of the scale."""
_DPI = 180
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_FONT_FAMILY = re.compile(r"font-family: [^;\"]*(; )?")


def run_colour(place: int) -> str:
    """Colour of the run at that place, counted from 0."""
    return COLOURS[RUN_COLOURS[place]]


def shade(level: int) -> str:
    """Colour of a level from -``LEVELS`` (less than even) over 0 (the background) to ``LEVELS`` (more)."""
    end, share = COLOURS["accent" if level > 0 else "subject"], abs(level) / LEVELS
    mixed = [round(share * a + (1 - share) * b) for a, b in zip(_rgb(end), _rgb(COLOURS["card"]), strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def css_colours() -> dict[str, str]:
    """What stands in an SVG element for each colour of a drawing."""
    css = {
        shade(level): f"color-mix(in srgb,var(--{'accent' if level > 0 else 'subject'}) "
        f"{100 * abs(level) / LEVELS:.4g}%,var(--card))"
        for level in range(-LEVELS, LEVELS + 1)
    }
    return css | {value: f"var(--{name})" for name, value in COLOURS.items()}


def wrapped(text: str, width: float) -> str:
    """``text`` in lines that fit a figure of ``width`` inches."""
    return "\n".join(textwrap.wrap(text, int(width * 72 / (FONT * 0.53))))


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, and matplotlib's settings for as long as it is drawn and written."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not the user's matplotlibrc: its fonts and colours would end up in the files.
    plain = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    own: dict[str, Any] = {
        "font.family": ["DejaVu Sans"], "font.size": FONT, "axes.titlesize": FONT, "axes.labelsize": FONT,
        "xtick.labelsize": FONT - 1, "ytick.labelsize": FONT - 1, "legend.fontsize": FONT,
        "axes.titlelocation": "left", "axes.titlepad": 5.0, "axes.titlecolor": COLOURS["ink"],
        "text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["soft"], "axes.edgecolor": COLOURS["line"],
        "xtick.color": COLOURS["line"], "ytick.color": COLOURS["line"], "xtick.labelcolor": COLOURS["soft"],
        "ytick.labelcolor": COLOURS["soft"], "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": COLOURS["grid"], "grid.linewidth": 0.7, "axes.axisbelow": True,
        "axes.facecolor": "none", "figure.facecolor": COLOURS["card"], "axes.linewidth": 0.8,
        "legend.frameon": False, "legend.handlelength": 1.8, "legend.columnspacing": 1.6, "legend.borderpad": 0.2,
        "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "lola-data", "path.simplify": True,
    }  # fmt: skip
    settings: dict[Any, Any] = plain | own
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes in the PNG; the page has the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def png_bytes(figure: Figure) -> bytes:
    """The drawing as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def svg_element(figure: Figure, *, name: str, label: str) -> str:
    """The drawing as an ``<svg>`` element for an HTML page.

    Args:
        figure: the drawing.
        name: set before each id, so that several elements can stand in one page.
        label: what a screen reader says in place of the drawing.
    """
    from html import escape

    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None,
                                                                 "Type": None})  # fmt: skip
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", out.getvalue(), flags=re.DOTALL)
    head, _, body = text[text.index("<svg") :].partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names of parts, which nothing refers to
    body = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    css = css_colours()
    body = _HEX.sub(lambda found: css.get(found.group(), found.group()), _FONT_FAMILY.sub("", body))
    body = re.sub(r">\s*\n\s*<", "><", body)
    return f'<svg {box.group()} role="img" aria-label="{escape(label)}">{body.rstrip()}'


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
