"""The page of runs whose names, languages and settings are hostile: the same elements as with harmless words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hostile import HOSTILE, TURNING, Shape
from tests.train.plot.conftest import settings, train_record, valid_record
from tests.train.plot.test_page import page_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _pages(make_run: Callable[..., Path], folder: str, word: str) -> str:
    records = [
        valid_record(0, {word: 8.0, "yo": 8.5}),
        train_record(10, 6.0, epochs={word: 0.1, "yo": 0.2}),
        valid_record(10, {word: 5.0, "yo": 6.0}),
    ]
    summary = {
        "steps": 10, "tokens": 1000, "parameters": 1, "active_parameters": 1, "languages": {word: {"train_tokens": 9}}
    }  # fmt: skip
    name = word.replace("/", "\u2215").replace("\0", "")
    runs = [
        make_run(f"{folder}/{one}/{name}", records, summary=summary, config=settings(layers=one, kind=f"{word}{one}"))
        for one in (1, 2)
    ]
    return page_of(*runs)


def test_no_run_changes_what_the_page_is(make_run: Callable[..., Path]) -> None:
    harmless = Shape(_pages(make_run, "harmless", "abc"))
    for name, word in HOSTILE.items():
        page = _pages(make_run, name, word)
        shape = Shape(page)
        # matplotlib draws text as elements of its own, by the letter where a font lacks one.
        known = {tag for tag, _ in harmless.elements} | {"tspan"}
        assert {tag for tag, _ in shape.elements} <= known, name
        assert shape.code == harmless.code, name
        assert not TURNING.search(page), name
