from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lola_data.languages import LANGUAGES
from tests.train.plot.conftest import EVEN_LOADS, RECORDS, train_record, valid_record
from train.plot.experts import draw_experts, level, loads
from train.plot.figures import NAMES, Figures
from train.plot.languages import language_scores
from train.plot.loss import draw_loss
from train.plot.measures import smoothed
from train.plot.read import read_runs
from train.plot.style import COLOURS, LEVELS, WIDE, css_colours, drawing, run_colour, shade

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def figures_of(*paths: Path, x: str = "tokens", smooth: float = 5) -> Figures:
    runs = tuple(read_runs(paths))
    return Figures(runs, language_scores(runs), x, smooth)


def lines_of(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]


def test_the_loss_figure_shows_the_records(make_run: Callable[..., Path]):
    runs = read_runs([make_run()])
    with drawing(WIDE, 4) as figure:
        draw_loss(figure, runs, x="step", width=10)
        above, below = figure.axes
        raw, bold, held_out, unigram = lines_of(above)
        (rate,) = lines_of(below)
        legends = [text.get_text() for text in figure.legends[0].get_texts()]
        told = below.get_xlabel()
    losses = [8.0, 6.0, 5.0, 4.5]
    assert raw == ([5, 10, 15, 20], losses)
    assert bold == ([5, 10, 15, 20], smoothed([5, 10, 15, 20], losses, 10))
    assert held_out == ([0, 10, 20], [8.25, 5.5, 4.2])
    assert unigram[1] == [5.0, 5.0]
    assert rate == ([5, 10, 15, 20], [1e-3 / step for step in (5, 10, 15, 20)])
    assert legends[0] == "first"
    assert "exp(−age / 10 steps)" in told


def test_tokens_and_no_smoothing(make_run: Callable[..., Path]):
    with drawing(WIDE, 4) as figure:
        draw_loss(figure, read_runs([make_run()]), x="tokens", width=0)
        lines = lines_of(figure.axes[0])
    assert lines[0] == ([500, 1000, 1500, 2000], [8.0, 6.0, 5.0, 4.5])
    assert lines[1][0] == [0, 1000, 2000]


def test_what_is_no_number_and_what_is_far_off_is_marked(make_run: Callable[..., Path]):
    records = [train_record(1, 4.0), train_record(2, None), train_record(3, 1e9), train_record(4, 3.0)]
    with drawing(WIDE, 4) as figure:
        draw_loss(figure, read_runs([make_run(records=records)]), x="step", width=0)
        above, below = figure.axes
        raw, off, none = (line for line in lines_of(above) if line[0])
        assert above.get_ylim()[1] <= 8.0  # twice the first loss
        label = below.get_xlabel()
    assert raw[0] == [1, 2, 3, 4]
    assert math.isnan(raw[1][1])
    assert (off[0], none[0]) == ([3], [2])
    assert "×: a loss that is no number" in label
    assert "▲: a loss above the plot" in label


@pytest.mark.parametrize(
    ("share", "experts", "wanted"),
    [(0.0, 16, -LEVELS), (1 / 16, 16, 0), (3 / 16, 16, LEVELS / 2), (1 / 48, 16, -LEVELS / 2), (1.0, 1, 0)],
)
def test_shade_of_a_share(share: float, experts: int, wanted: float):
    """(r - 1) / (r + 1) of r times the even share: 1/2 at three times, -1/2 at a third."""
    assert level(share, experts) == wanted


def test_the_heat_map_shows_the_last_load(make_run: Callable[..., Path]):
    """Layer 1 sends half of the tokens to expert 2 and none to expert 3; layer 3 is even."""
    runs = read_runs([make_run()])
    with drawing(WIDE, 4) as figure:
        draw_experts(figure, runs, loads(runs), x="step", smooth=0)
        _, heat, entropy = figure.axes
        cells: dict[str, int] = {}
        from matplotlib.colors import to_hex

        for patch in heat.patches:
            cells[to_hex(patch.get_facecolor())] = patch.get_path().vertices.shape[0] // 5  # pyright: ignore
        (crosses,) = lines_of(heat)
        title, layers = heat.get_title(loc="left"), [label.get_text() for label in heat.get_yticklabels()]
        lines = lines_of(entropy)
    assert cells == {shade(-LEVELS): 1, shade(0): 6, shade(level(0.5, 4)): 1}
    assert crosses == ([3], [0])
    assert title == "first, step 20, 1 dead"
    assert layers == ["layer 1", "layer 3"]
    uneven = 0.75  # (2 * 1/4 * ln 4 + 1/2 * ln 2) / ln 4
    assert [line[1] for line in lines] == [pytest.approx([value] * 4) for value in (uneven, 1.0, (uneven + 1) / 2)]


def hard_runs() -> dict[str, dict[str, Any]]:
    """Runs that have little, too much, or nothing of what a figure shows."""
    codes = sorted(LANGUAGES)
    many: dict[str, float | None] = dict.fromkeys(codes, 3.0)
    wide = {str(layer): [1 / 256] * 256 for layer in range(1, 40, 2)}
    return {
        "going on": {"summary": None},
        "no evaluation": {"records": [train_record(1, 4.0)]},
        "evaluation alone": {"records": [valid_record(0, {"de": 8.0})], "summary": None},
        "no languages": {"records": [valid_record(0, {}, mean=None, unigram_mean=None)]},
        "dense": {"records": [train_record(1, 4.0, load={}), valid_record(1, {"de": 3.0})]},
        "nothing known": {"records": [{"kind": "train", "step": 0}, {"kind": "valid", "step": 0}], "config": {"a": 1}},
        "null": {"records": [dict.fromkeys(one) | {"kind": one["kind"], "step": one["step"]} for one in RECORDS]},
        "no number": {"records": [train_record(1, math.nan, load={"1": [None, 1.0]}), valid_record(1, {"de": None})]},
        "no load": {"records": [train_record(1, 2.0, load={"1": [0.0, 0.0]})]},
        "one expert": {"records": [train_record(1, 2.0, load={"1": [1.0]})]},
        "all languages": {"records": [valid_record(1, many), train_record(1, 2.0, load=EVEN_LOADS)], "summary": None},
        "many experts": {"records": [train_record(1, 2.0, load=wide)]},
        "$x^$ _{ & <b>": {},
        "_語 names": {},
        "zero": {"records": [train_record(1, 0.0, lr=0.0), valid_record(1, {"de": 0.0}, unigram={"de": 0.0})]},
        "huge": {"records": [train_record(10**12, 1e300), valid_record(10**12, {"de": 1e300})]},
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(hard_runs()))
def test_every_run_gives_a_picture(make_run: Callable[..., Path], name: str):
    figures = figures_of(make_run(name, **hard_runs()[name]), make_run("beside"))
    for figure in NAMES:
        with Image.open(io.BytesIO(figures.png(figure))) as image:
            image.load()
            assert 1000 < image.width < 2500
            assert 150 < image.height < 6000
            assert len(image.convert("L").getcolors() or []) > 3
        assert figures.svg(figure, narrow=True, label=name).endswith("</svg>")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_runs_give_the_same_bytes(make_run: Callable[..., Path], name: str):
    import matplotlib as mpl

    first, second = make_run("first"), make_run("second", RECORDS[:5])
    one = figures_of(first, second)
    png, svg = one.png(name), one.svg(name, narrow=False, label="x")
    # Neither the user's own settings nor what was drawn before matters.
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.facecolor": "red", "svg.hashsalt": None}):
        two = figures_of(first, second)
        assert two.svg(name, narrow=False, label="x") == svg
        assert two.png(name) == png
        assert mpl.rcParams["font.size"] == 20
    for word in (b"matplotlib", b"Matplotlib", b"Software", b"date"):
        assert word not in png
        assert word.decode() not in svg


def test_colours_are_those_of_the_pages():
    import re
    from importlib.resources import files

    css = (files("lola_data") / "resources" / "report.css").read_text("utf-8")
    light = dict(re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}),", css))
    assert {name: light[name] for name in COLOURS} == COLOURS
    assert run_colour(7) == light["first"]


def test_each_shade_stands_for_one_colour():
    shades = [shade(number) for number in range(-LEVELS, LEVELS + 1)]
    assert len(set(shades)) == len(shades)
    assert shade(LEVELS) == COLOURS["accent"]
    assert not set(shades) & (set(COLOURS.values()) - {COLOURS[name] for name in ("card", "accent", "subject")})
    assert css_colours()[shade(12)] == "color-mix(in srgb,var(--accent) 50%,var(--card))"


@pytest.mark.parametrize("name", NAMES)
def test_every_colour_of_a_drawing_follows_the_page(make_run: Callable[..., Path], name: str):
    import re

    svg = figures_of(make_run("first"), make_run("second")).svg(name, narrow=False, label="x")
    assert "var(--" in svg
    left = re.findall(r"#[0-9a-f]{3,6}\b(?!-)", re.sub(r"(href=\"|url\()#[^\")]*", "", svg))
    assert not left
