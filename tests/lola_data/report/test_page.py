"""The page: complete, the same every time, fetching nothing, with the numbers that the balance has."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from lola_data.balance.measure import measure
from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.report.charts import KEPT, REASON_COLOURS, SCRIPT_NAMES, charts
from lola_data.report.page import report_html, write_report
from lola_data.report.scale import LogScale
from lola_data.schemas import IDENTIFIED, RAW, REMOVED
from tests.lola_data.balance.trees import write_rows, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.measure import Balance
    from lola_data.report.charts import Chart, Row

VOID = ("meta", "input", "br", "hr", "img", "link")
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' onfocus='alert(3)' \u202e\u2066\0&amp;{{7*7}}"
"""What a hostile corpus could have in any of its names."""


class Page(HTMLParser):
    """Tags with their attributes, rows of each table by its id, and the JSON for the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._table = ""
        self._json: list[str] = []
        self.feed(page)
        self.close()
        self.data: Any = json.loads("".join(self._json))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = given.get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "script" and given.get("type") is None:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            if self.scripts:
                self.scripts[-1] += data
            else:
                self._json.append(data)
        elif "style" not in self.open:
            self.text.append(data)
            if {"td", "th"} & set(self.open):
                self.tables[self._table][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [given for name, given in self.tags if name == tag]


@pytest.fixture(scope="module")
def balance(tmp_path_factory: pytest.TempPathFactory) -> Balance:
    root = tmp_path_factory.mktemp("work")
    write_run(root)
    return measure(root)


@pytest.fixture(scope="module")
def page(balance: Balance) -> str:
    return report_html(balance, title="Bytes & <tags>", min_documents=2, against=balance)


def test_nothing_is_fetched(page: str) -> None:
    parsed = Page(page)
    policy = next(m["content"] for m in parsed.attributes("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["style-src"] == "'unsafe-inline'"
    assert set(allowed) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    for tag, given in parsed.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form")
        assert not {"src", "srcset", "data", "action", "poster"} & given.keys(), (tag, given)
        assert not any(name.startswith("on") for name in given), (tag, given)
        assert (given.get("href") or "#").startswith("#")
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face", style)
    # An address stands in the page only as the name of the vocabulary that SVG is written in.
    assert set(re.findall(r"https?:[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}


def test_only_the_scripts_of_the_page_may_run(page: str) -> None:
    parsed = Page(page)
    policy = next(m["content"] for m in parsed.attributes("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in parsed.scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy or "")) == digests
    assert len(digests) == 3
    assert "unsafe-inline" not in re.findall(r"script-src[^;]*", policy or "")[0]


def test_the_same_balance_gives_the_same_bytes(balance: Balance, tmp_path: Path) -> None:
    write_report(balance, tmp_path / "a.html")
    write_run(tmp_path / "elsewhere")
    write_report(measure(tmp_path / "elsewhere", workers=3), tmp_path / "new" / "b.html")
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "new" / "b.html").read_bytes()
    assert str(tmp_path).encode() not in first


def test_headings_are_escaped_and_the_page_is_well_formed(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert "<title>Bytes &amp; &lt;tags&gt;</title>" in page
    assert parsed.attributes("html") == [{"lang": "en"}]
    assert not re.search(r"\{\{|\{%|%\}", page)
    named = [given["id"] for _, given in parsed.tags if "id" in given]
    assert len(named) == len(set(named))


def test_all_that_is_pointed_at_is_there(page: str) -> None:
    parsed = Page(page)
    named = {given["id"] for _, given in parsed.tags if "id" in given}
    pointed = {href[1:] for given in parsed.attributes("a") if (href := given["href"])}
    assert len(pointed) >= 8
    for given in (given for _, given in parsed.tags):
        names = ("for", "aria-controls", "aria-describedby", "data-filter")
        pointed |= {value for name in names if (value := given.get(name))}
    assert pointed <= named
    scripts = "".join(parsed.scripts)
    assert set(re.findall(r"\$\(\"([\w-]+)\"\)", scripts)) <= named


def test_charts_and_tables_can_be_read_without_seeing_them(page: str) -> None:
    parsed = Page(page)
    plots = [given for tag, given in parsed.tags if given.get("class") == "plot"]
    assert sum(given.get("aria-hidden") == "true" for given in plots) > 20
    assert all(given.get("scope") in ("col", "row") for given in parsed.attributes("th"))
    labels = {given["for"] for given in parsed.attributes("label")}
    fields = {given["id"] for tag in ("input", "select") for given in parsed.attributes(tag)}
    assert labels == fields
    for given in parsed.attributes("div"):
        if given.get("class", "") in ("scroll", "scroll short"):
            assert given["tabindex"] == "0"
            assert given["role"] == "region"
            assert given["aria-label"]
    headings = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_the_table_has_every_language_and_its_numbers(page: str, balance: Balance) -> None:
    head, *rows, total = Page(page).tables["all"]
    assert [row[0] for row in rows] == ["Yoruba yo", "German de", "Breton br", "Welsh cy"]
    german = dict(zip(head, rows[1], strict=True))
    assert [german[stage] for stage in ("raw", "identified", "deduped", "sampled")] == ["6", "4", "3", "2"]
    assert (german["bytes"], german["removed"], german["epochs"], german["tokens"]) == ("16 B", "50.0%", "0.75", "7")
    assert dict(zip(head, total, strict=True))["sampled"] == str(balance.totals()["documents"])


def test_warnings_are_on_the_page(page: str) -> None:
    assert '<bdi>Welsh</bdi> <span class="code">cy</span>: of 1 in raw' in page
    assert '<bdi>Breton</bdi> <span class="code">br</span>: 1 of at least 2' in page


def test_estimates_are_marked_and_told_from_counts(balance: Balance) -> None:
    off = pl.DataFrame({"stage": ["sampled"], "lang": ["de"], "figure": ["bytes"], "half_width": [4.0]})
    page = report_html(replace(balance, estimates=off))
    head, *rows, total = Page(page).tables["all"]
    place = head.index("bytes")
    assert [row[place][0] == "~" for row in rows] == [row[0] == "German de" for row in rows]
    assert '<td class="n" data-v="16" title="95% interval: 12 B to 20 B">~16 B</td>' in page
    assert total[place].startswith("~")
    assert "A ~ stands before what is estimated" in page
    assert "~" not in "".join(Page(report_html(balance)).text)


def test_numbers_of_the_sample_are_those_of_a_count() -> None:
    """Every language of the embedded corpus, counted document by document."""
    root = files("lola_data") / "resources" / "sample"
    measured = measure(str(root))
    parsed = Page(report_html(measured))
    head, *rows, total = parsed.tables["all"]
    shown = {row[0].split(" ")[-1]: dict(zip(head, row, strict=True)) for row in rows}
    codes = [code for code, *_ in parsed.data["languages"]]
    assert len(codes) == 103
    everything = 0
    for place, code in enumerate(codes):
        texts: list[str] = []
        hosts = Counter[str]()
        for shard in sorted((root / code).iterdir(), key=str):
            table = pq.read_table(str(shard), columns=["text", "url"])
            texts += table["text"].to_pylist()
            hosts.update((urlsplit(url).hostname or "").removeprefix("www.") for url in table["url"].to_pylist() if url)
        size = sum(len(text.encode()) for text in texts)
        everything += size
        (stage,) = parsed.data["stages"]
        assert (stage["documents"][place], stage["bytes"][place]) == (len(texts), size), code
        assert stage["characters"][place] == sum(map(len, texts)), code
        assert shown[code]["documents"] == f"{len(texts):,}"
        assert shown[code]["median length"] == f"{np.median([len(text) for text in texts]):,.0f}"
        assert parsed.data["pools"][0]["sizes"][place] == size
        top = [(value, count) for lang, value, count in parsed.data["domains"] if lang == place]
        assert [count for _, count in top] == sorted((hosts[host] for host, _ in top), reverse=True)
        assert top[0][1] == max(hosts.values())
    assert dict(zip(head, total, strict=True))["bytes"] == f"{everything / 1e6:.1f} MB"


def rows_of(chart: Chart, view: int = 0) -> dict[str, Row]:
    """Rows of a chart by code."""
    return {row.code: row for block in chart.views[view].blocks for row in block.rows}


def test_charts_show_the_counts(balance: Balance) -> None:
    drawn = {chart.key: chart for chart in charts(balance, top=40)}
    assert set(drawn) == {"sizes", "shares", "removed", "lengths"}  # all is in one script
    sizes = drawn["sizes"]
    assert [view.name for view in sizes.views] == ["bytes", "documents", "tokens"]
    german = rows_of(sizes, 1)["de"]
    assert (german.figures, german.aside) == ("2", "of 6 in raw")
    assert [(mark.kind, mark.colour) for mark in german.marks] == [("ghost", "first"), ("bar", "subject")]
    assert rows_of(sizes, 2)["de"].figures == "7"
    # A logarithmic axis has no zero: a language that has lost everything keeps its bar of before.
    assert [mark.kind for mark in rows_of(sizes, 1)["cy"].marks] == ["ghost"]
    left = rows_of(drawn["removed"])
    assert {mark.about.split(" (")[0] for mark in left["de"].marks} == {
        "kept 2", "not sampled 1", "near 1", "wrong language 1", "empty 1",
    }  # fmt: skip
    for row in left.values():
        assert sum(mark.width or 0 for mark in row.marks) == pytest.approx(100, abs=0.05)
    shares = rows_of(drawn["shares"])["yo"]
    text = balance.table().filter(pl.col("lang") == "yo")["share"][0]
    assert (shares.figures, shares.aside) == (f"{100 * text:.1f}%", "plan 25.0%")


def test_bars_of_one_family_stand_together_on_one_scale(tmp_path: Path) -> None:
    sizes = {"de": 1000, "fr": 100, "fi": 500, "hu": 50, "eu": 10, "ja": 2000}
    for lang, size in sizes.items():
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, [{"text": "x" * size}])
    blocks = charts(measure(tmp_path / "raw"), top=2)[0].views[0].blocks
    assert [(block.title, block.note, [row.code for row in block.rows]) for block in blocks] == [
        ("Indo-European", "2 languages, 30.1%", ["de", "fr"]),
        ("Uralic", "2 languages, 15.0%", ["fi", "hu"]),
        ("Families of one language", "2 languages, 54.9%", ["ja", "eu"]),
    ]
    widths = {row.code: row.marks[-1].width or 0 for block in blocks for row in block.rows}
    scale = LogScale(10 / 200**0.04, 2000 * 200**0.04)  # a margin of 4 % of the axis at both ends
    assert widths == {code: scale.at(size) for code, size in sizes.items()}
    assert widths["de"] - widths["fr"] == pytest.approx(widths["fi"] - widths["hu"], abs=0.02)


def colours(name: str) -> tuple[str, str]:
    """A colour of the style sheet in the light and the dark scheme."""
    style = (files("lola_data") / "resources" / "report.css").read_text()
    found = re.search(rf"--{name}: light-dark\((#[0-9a-f]{{6}}), (#[0-9a-f]{{6}})\)", style)
    assert found, name
    return found[1], found[2]


def luminance(colour: Any) -> float:
    """Relative luminance, WCAG 2.2, of a colour of three channels in [0, 255]."""
    channels = np.asarray(colour, np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def channels(colour: str) -> np.ndarray[Any, Any]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def contrast(one: Any, other: Any) -> float:
    """Contrast ratio, WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(scheme: int) -> None:
    def colour(name: str) -> np.ndarray[Any, Any]:
        return channels(colours(name)[scheme])

    assert contrast(channels("#000000"), channels("#ffffff")) == pytest.approx(21)
    texts = {
        "paper": ("ink", "soft", "accent"),
        "card": ("ink", "soft", "accent", "warn"),
        "warn-paper": ("ink", "soft", "warn"),
        "accent": ("on-accent",),
    }
    for behind, text in ((behind, text) for behind, names in texts.items() for text in names):
        assert contrast(colour(text), colour(behind)) >= 4.5, (text, behind)
    marks = {*REASON_COLOURS.values(), "first", "subject", "plan", "more", "less", "edge"}
    marks |= {"other-0", "other-1", "other-2"}
    for mark in marks - {"not-sampled"}:  # what was left out is a gap, between marks that are seen
        assert contrast(colour(mark), colour("card")) >= 3, mark
    for per_cent in np.arange(0, 100.1, 0.5):
        part = per_cent / 100
        for heat, most in (("heat", 1.0), ("agree", 0.28)):
            behind = most * part * colour(heat) + (1 - most * part) * colour("card")
            assert contrast(colour("ink"), behind) >= 4.5, (heat, per_cent)


def test_every_mark_has_a_colour(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    used = set(re.findall(r"\bc-([\w-]+)", body)) | set(REASON_COLOURS.values())
    used |= set(Page(page).data["colours"].values())
    assert {"first", "subject", "plan", "kept"} <= used
    for name in used:
        assert f".c-{name} {{ background: var(--{name}); }}" in style, name
        colours(name)
    assert set(Page(page).data["colours"]) == {"near", "not_sampled", "wrong_language", "empty", "relabelled"}
    assert KEPT not in Page(page).data["colours"]


def test_only_the_largest_are_drawn(tmp_path: Path) -> None:
    for i, lang in enumerate(("de", "fr", "sw", "yo")):
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, [{"text": "x" * 10 * (i + 1)}])
    drawn = {chart.key: chart for chart in charts(measure(tmp_path / "raw"), top=2)}
    assert set(rows_of(drawn["lengths"])) == {"yo", "sw"}
    assert "2 largest of 4" in drawn["lengths"].caption
    assert set(rows_of(drawn["sizes"])) == {"de", "fr", "sw", "yo"}


def test_pages_of_little(tmp_path: Path) -> None:
    write_rows(tmp_path / "one/yo/a.parquet", RAW, [{"text": "x"}])
    assert {chart.key for chart in charts(measure(tmp_path / "one"), top=5)} == {"sizes", "lengths"}
    write_rows(tmp_path / "none/yo/a.parquet", RAW, [])
    assert charts(measure(tmp_path / "none"), top=5) == []
    assert "<figure" not in report_html(measure(tmp_path / "none"))
    write_run(tmp_path / "run")
    tokens = charts(measure(tmp_path / "run" / "tokens"), top=5)
    assert {chart.key for chart in tokens} == {"sizes"}
    assert [view.name for view in tokens[0].views] == ["tokens", "documents"]
    assert Page(report_html(measure(tmp_path / "run" / "tokens"))).open == []


def hostile(root: Path) -> Balance:
    """A run in which every name that can come from outside is hostile."""
    folder = EVIL.replace("/", "\u2215").replace("\0", "")
    row = {"text": "x", "source": EVIL, "url": f"https://{EVIL.replace('/', '').replace('#', '')}/", "timestamp": EVIL}
    seen = {**row, "id": EVIL, "claimed_lang": folder, "lang": EVIL, "lang_score": 0.5, "script": EVIL}
    gone = {"id": EVIL, "claimed_lang": folder, "lang": EVIL, "source": EVIL, "bytes": 1, "reason": EVIL}
    write_rows(root / f"raw/{folder}/a.parquet", RAW, [row] * 30)
    write_rows(root / f"identified/{folder}/a.parquet", IDENTIFIED, [seen] * 20)
    write_rows(root / f"removed/identify/{folder}/a.parquet", REMOVED, [gone] * 10)
    return measure(root)


def test_no_name_can_break_out(tmp_path: Path, balance: Balance) -> None:
    page = report_html(hostile(tmp_path), title=EVIL, against=balance, names=(EVIL, EVIL))
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.attributes("script")) == 4
    assert not parsed.attributes("img")
    assert page.count("</script") == 4
    for tag, given in parsed.tags:
        assert not any(name.startswith("on") for name in given), (tag, given)
    # Neither in the text nor in an attribute nor in the data is there a character that a browser obeys.
    for character in "\u202e\u2066\0":
        assert character not in page
        assert json.dumps(character)[1:-1] not in page
    text = "".join(parsed.text)
    assert "<script>alert(1)</script>" in text  # shown for what it is
    assert "‹U+202E›‹U+2066›‹U+0000›&amp;{{7*7}}" in text
    assert any("‹U+202E›" in domain for _, domain, _ in parsed.data["domains"])
    assert [script for script in parsed.scripts if "alert(" in script] == []


def test_every_usual_script_has_a_name() -> None:
    assert {language.script for language in LANGUAGES.values()} <= SCRIPT_NAMES.keys()


def test_all_languages_of_culturax_fit_in_a_small_page(tmp_path: Path) -> None:
    for number, lang in enumerate(LANGUAGES):
        rows = [{"text": "word " * (number + 1), "url": f"https://site-{lang}-{i}.example/"} for i in range(8)]
        seen = [
            {**row, "id": f"{lang}/a/{i}", "claimed_lang": lang, "lang": list(LANGUAGES)[(number + i) % 167],
             "lang_score": 0.5, "script": "Latn"} for i, row in enumerate(rows)
        ]  # fmt: skip
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, rows, group=8)
        write_rows(tmp_path / f"identified/{lang}/a.parquet", IDENTIFIED, seen, group=8)
    measured = measure(tmp_path)
    page = report_html(measured, against=measured, top=167)
    assert len(Page(page).tables["all"]) == 167 + 2
    assert len(page.encode()) < 1_500_000


def test_a_page_that_cannot_be_written(balance: Balance, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ShardError, match=r"page\.html: cannot be written"):
        write_report(balance, tmp_path / "file" / "page.html")
