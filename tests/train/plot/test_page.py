from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.lola_data import browser
from tests.train.plot.conftest import settings
from train.plot.figures import Figures
from train.plot.languages import language_scores
from train.plot.page import page_html
from train.plot.read import read_runs
from train.plot.tables import run_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def page_of(*paths: Path) -> str:
    runs = tuple(read_runs(paths))
    return page_html(Figures(runs, language_scores(runs), "tokens", 5), run_rows(runs, 5))


class Reader(HTMLParser):
    """Tags, ids and references of a page; text of table cells by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.references += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href", "action")]
        if tag == "tr":
            self.rows.append([])
        self._cell = self._cell or tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1].append(data)


def test_the_page_needs_nothing_but_itself(make_run: Callable[..., Path]):
    page = page_of(make_run("first"), make_run("second"))
    read = Reader(page)
    assert "://" not in page
    assert "script" not in read.tags
    assert "link" not in read.tags
    assert all(reference.startswith("#") for reference in read.references)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert len(read.ids) == len(set(read.ids))
    used = {reference[1:] for reference in read.references} | set(re.findall(r"url\(#([^)]*)\)", page))
    assert used
    assert used <= set(read.ids)
    assert "default-src 'none'" in page


def test_the_tables_of_the_page(make_run: Callable[..., Path]):
    read = Reader(page_of(make_run("first"), make_run("second", config=settings(layers=9))))
    first = next(row for row in read.rows if row[0] == "first")
    assert first[1:5] == ["20", "2,000", "123,456", "23,456"]
    assert first[6:] == ["4.200", "5.000", "6.300", "1,012"]  # 1012.5, half to even
    assert ["model.layers", "4", "9"] in read.rows
    assert any(row[:2] == ["de", "9,000"] for row in read.rows)


def test_names_are_text(make_run: Callable[..., Path]):
    page = page_of(make_run("<img src=x onerror=alert(1)>\u202e"))
    assert "<img" not in page
    assert "&lt;img" in page
    assert "\u202e" not in page


def test_the_same_runs_give_the_same_page(make_run: Callable[..., Path]):
    first = make_run()
    assert page_of(first) == page_of(first)


@pytest.mark.skipif(browser.find() is None, reason="no Chromium")
def test_in_a_browser(make_run: Callable[..., Path], tmp_path: Path):
    """No error, no request, nothing wider than the window, one drawing of each figure, legible in both schemes."""
    path = tmp_path / "page.html"
    path.write_text(page_of(make_run("first"), make_run("second")), "utf-8")
    window = browser.Browser(browser.find() or "")
    try:
        inks = set()
        for width, kind in ((1280, "wide"), (360, "narrow")):
            for dark in (False, True):
                window.open(path, width=width, dark=dark)
                assert window.console == []
                assert window.requests == [path.resolve().as_uri()]
                assert window.run("document.documentElement.scrollWidth") <= width
                drawn = (
                    "[...document.querySelectorAll('.drawing svg')].filter((s) => s.getBoundingClientRect().width > 0)"
                )
                assert window.run(f"{drawn}.map((s) => s.parentElement.className)") == [kind] * 3
                text = "document.querySelector('#loss svg text')"
                inks.add(window.run(f"getComputedStyle({text}).fill"))
                line = f"{drawn}[0].querySelectorAll('path[style*=accent]').length"
                assert window.run(line) > 0
        assert len(inks) == 2
    finally:
        window.close()
