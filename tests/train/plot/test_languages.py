from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lola_data.errors import RecipeError
from tests.train.plot.conftest import RECORDS, SUMMARY, valid_record
from train.plot.languages import Score, draw_languages, language_scores
from train.plot.read import read_runs
from train.plot.style import WIDE, drawing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_last_evaluation_counts(make_run: Callable[..., Path]):
    found = language_scores(read_runs([make_run()]))
    assert found.unit == "bits per byte"
    assert found.scores[0]["de"].value == 6.0
    assert found.scores[0]["de"].unigram == pytest.approx(7.5)  # 5 nats a token, at 1.5 bits per byte a nat
    assert found.note == ""


def test_loss_where_a_run_has_no_bits_per_byte(make_run: Callable[..., Path]):
    other = make_run("other", [valid_record(3, {"de": 4.0, "sw": None}, bits_per_byte={}, unigram={"de": None})])
    found = language_scores(read_runs([make_run(), other]))
    assert found.unit == "nats a token"
    assert found.scores[0]["de"] == Score(4.0, 5.0)
    assert found.scores[1] == {"de": Score(4.0, None), "sw": Score(None, None)}


def test_the_largest_by_training_tokens_sorted_by_score(make_run: Callable[..., Path]):
    codes = [f"x{place:02d}" for place in range(50)]
    loss: dict[str, float | None] = {code: 9.0 - place / 10 for place, code in enumerate(codes)}
    sizes = {code: {"train_tokens": place} for place, code in enumerate(codes)}
    record = valid_record(3, loss)
    found = language_scores(read_runs([make_run(records=[record], summary=SUMMARY | {"languages": sizes})]))
    assert found.shown == tuple(reversed(codes[10:]))  # the ten smallest are left out; the lowest loss comes first
    assert found.note == "the 40 languages with the most training tokens, 10 more are not drawn"
    unknown = language_scores(read_runs([make_run("on", [record], summary=None)]))
    assert set(unknown.shown) == set(codes[:40])
    assert "first by code" in unknown.note


def test_languages_that_are_asked_for(make_run: Callable[..., Path]):
    runs = read_runs([make_run()])
    found = language_scores(runs, ["yo"])
    assert (found.shown, found.note) == (("yo",), "1 of 2 languages")
    with pytest.raises(RecipeError, match=r"--languages yoo: .* did you mean 'yo'\?"):
        language_scores(runs, ["yoo"])


def test_bars_are_as_long_as_the_scores(make_run: Callable[..., Path]):
    runs = read_runs([make_run("a"), make_run("b", RECORDS[:4])])
    with drawing(WIDE, 3) as figure:
        draw_languages(figure, runs, language_scores(runs))
        (axes,) = figure.axes
        bars = [(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches]  # pyright: ignore
        names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["German  de", "Yoruba  yo"]
    assert bars == [(0, 6.0), (1, pytest.approx(6.6)), (0, 7.5), (1, 9.0)]
