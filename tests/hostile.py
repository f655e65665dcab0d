"""Hostile words for every place that a stranger's text gets to, and what a browser would make of a page with them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"><img src=x onerror=alert(1)>' autofocus onfocus='alert(1)",
    "closing": "</script></style></title></textarea><svg onload=alert(1)>",
    "comment": "<!--<script> --!> ]]> <![CDATA[",
    "override": "a\u202ecba\u2066\u2069b",
    "nul": "a\0b",
    "address": "javascript:alert(1)//<a href='javascript:alert(1)'>",
    "lines": "a\u2028b\u2029c",
    "template": "{{7*7}}{%raw%}${alert(1)}&lt;script&gt;",
}
PLAIN = "a/b"
"""With a slash, which a folder's name cannot have: so claimed and detected language differ, as with the others."""
TURNING = re.compile("[\u202a-\u202e\0\u2028\u2029]")


class Shape(HTMLParser):
    """What a browser would make of a page: elements with the names of their attributes, and what is run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, tuple[str, ...]]] = set()
        self.code: list[str] = []
        self.data: list[str] = []
        self.text: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), attrs
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "srcdoc", "action", "formaction", "data", "xlink:href")
            assert name != "href" or (value or "").startswith("#")
        # A mark stands for a character that cannot be shown: harmless words have none.
        if given.get("class") != "mark":
            self.elements.add((tag, tuple(sorted(given))))
        if tag not in ("meta", "input", "br", "hr", "link"):
            self._open.append((tag, given.get("type") == "application/json"))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        inside, is_json = self._open[-1] if self._open else ("", False)
        if inside in ("script", "style"):
            (self.data if is_json else self.code).append(data)
        else:
            self.text.append(data)
