"""The page: well formed, harmless, and with every text as it is."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.inspect.documents import Seen, sample_documents
from lola_data.inspect.page import document_html, documents_page, journey_page, language_tag, page, pair_html, text_html
from lola_data.inspect.places import Place, find_places
from lola_data.inspect.rows import Row
from lola_data.inspect.trace import trace
from lola_data.layout import Layout
from tests.lola_data.inspect.trees import write_small_run

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "br", "link", "img", "input"}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "article", "span", "dl",
           "dt", "dd", "div", "footer", "del", "ins", "bdi", "details", "summary"}  # fmt: skip


class Reader(HTMLParser):
    """Checks that elements nest, and keeps tags and the content of those with the class ``text``."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[dict[str, Any]] = []
        self._open: list[tuple[str, bool]] = []
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            is_text = given.get("class") == "text"
            self._open.append((tag, is_text))
            if is_text:
                self.texts.append({**given, "content": ""})

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any(is_text for _, is_text in self._open):
            self.texts[-1]["content"] += data


EVIL = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    '"></div><style>*{display:none}</style>',
    "&lt;b&gt; &amp; ' \"",
    "]]> <!-- -- > <![CDATA[",
    "<a href='javascript:x'>a</a>\n\n  two  spaces",
]


@pytest.mark.parametrize("text", EVIL)
def test_nothing_of_a_document_becomes_markup(text: str) -> None:
    row = Row("/t/de/a.parquet", "de", 0, 0, text.encode(), {"url": text, "source": text, "id": text, "reason": text})
    place = Place(text, "removed", "/t", (), None)
    survivor = Row("/t/de/a.parquet", "de", 1, 0, (text + " more").encode(), {"url": text})
    content = documents_page([Seen(place, row, row, survivor)], text, text, None)
    read = Reader(content)
    assert {tag for tag, _ in read.tags} <= ALLOWED
    for _, attributes in read.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("href", "src")}
    assert [one["content"] for one in read.texts] == [text, text + " more"]


def test_the_browser_may_run_and_fetch_nothing() -> None:
    policy = next(a["content"] for tag, a in Reader(page("t", "l", "")).tags if "http-equiv" in a and tag == "meta")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_text_has_its_direction_and_language(tmp_path: Path) -> None:
    truth = {one.id: one for one in write_small_run(tmp_path, model=False)}
    seen, _ = sample_documents(find_places(str(tmp_path)), 100, 0)
    texts = Reader(documents_page(seen, "t", "l", None)).texts
    assert [one["content"] for one in texts] == [truth[str(one.row.id)].text for one in seen]
    assert [one["lang"] for one in texts] == [one.row.lang for one in seen]
    assert {one["dir"] for one in texts} == {"auto"}


@pytest.mark.parametrize(
    ("folder", "tag"),
    [("yo", "yo"), ("als", "gsw"), ("zh", "zh"), ("a b", "und"), ('x" onx="', "und"), ("und", "und")],
)
def test_language_tags(folder: str, tag: str) -> None:
    assert language_tag(folder) == tag


def test_what_acts_is_marked_and_named() -> None:
    read = Reader(text_html("a\u202eb\x00\xff".encode() + b"\xff", "ar", None))
    marks = [attributes["title"] for tag, attributes in read.tags if tag == "span"]
    assert marks == ["U+202E RIGHT-TO-LEFT OVERRIDE", "U+0000", "byte 0xFF, not valid UTF-8"]
    assert read.texts[0]["content"] == "a‹RLO›b‹NUL›ÿ\\xff"


def test_a_pair_side_by_side() -> None:
    read = Reader(pair_html(b"one two three four", b"one 2 three four", "en", ("removed", "kept: x/y/1"), None))
    assert [one["content"] for one in read.texts] == ["one two three four", "one 2 three four"]
    assert [tag for tag, _ in read.tags if tag in ("del", "ins")] == ["del", "ins"]
    far = Reader(pair_html(b"one two", b"three four", "en", ("a", "b"), None))
    assert not [tag for tag, _ in far.tags if tag in ("del", "ins")]


def test_long_texts_are_cut_and_missing_ones_said() -> None:
    assert "… 7 more characters" in text_html(b"0123456789", "en", 3)
    assert Reader(text_html(b"", "en", 3)).texts[0]["content"] == "[empty]"
    place = Place("raw", "text", "/t", (), None)
    assert "no text" in document_html(Seen(place, Row("/t/de/a", "de", 0, 0, None)), None)
    assert "--raw" in document_html(Seen(Place("removed/identify", "removed", "/t", (), None),
                                         Row("/t/de/a", "de", 0, 0, None, {"reason": "x"})), None)  # fmt: skip


def test_the_page_of_a_document_s_way(tmp_path: Path) -> None:
    truth = {one.id: one for one in write_small_run(tmp_path)}
    gone = truth["de/de_part_00001/2"]
    content = journey_page(trace(Layout(str(tmp_path)), gone.id), "work", None)
    texts = [one["content"] for one in Reader(content).texts]
    assert texts == [gone.text, truth[str(gone.kept_id)].text]
    assert "0.812" in content
    kept = journey_page(trace(Layout(str(tmp_path)), "de/de_part_00000/1"), "work", None)
    assert "de/de_part_00001/2" in kept
    assert "<summary>pieces</summary>" in kept
    assert Reader(kept).texts[-1]["content"] == truth["de/de_part_00000/1"].text
