"""The page: complete, the same every time, fetching nothing, with the numbers that the balance has."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.balance import measure
from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.report import report_html, write_report
from lola_data.report_charts import REASON_COLOURS, SCRIPT_NAMES, charts
from lola_data.schemas import RAW
from tests.lola_data.balance_trees import write_rows, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance import Balance


class Page(HTMLParser):
    """Tags with their attributes, and the cells of the table of every language."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.script: list[str] = []
        self._table = self._cell = self._script = False
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in ("meta", "input", "path"):
            self.open.append(tag)
        self._table = self._table or given.get("id") == "all"
        self._script = given.get("id") == "views"
        if self._table and tag == "tr":
            self.cells.append([])
        if self._table and tag in ("td", "th"):
            self._cell = True
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._table = self._table and tag != "table"
        self._script = False
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[-1][-1] += data
        if self._script:
            self.script.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [given for name, given in self.tags if name == tag]


@pytest.fixture(scope="module")
def balance(tmp_path_factory: pytest.TempPathFactory) -> Balance:
    root = tmp_path_factory.mktemp("work")
    write_run(root)
    return measure(root)


@pytest.fixture(scope="module")
def page(balance: Balance) -> str:
    return report_html(balance, title="Bytes & <tags>", min_documents=2)


def test_nothing_is_fetched(page: str) -> None:
    parsed = Page(page)
    policy = next(m["content"] for m in parsed.attributes("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.split("; ")[0] == "default-src 'none'"
    assert not re.search(r"https?:|\*|'self'|connect-src|font-src", policy)
    for tag, given in parsed.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert not {"src", "href", "srcset", "data", "action", "poster"} & given.keys(), (tag, given)
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert "http" not in "".join(parsed.script)
    # The bundled library is left aside: its addresses are names of XML vocabularies and links it is told not to show.
    outside = page.replace(page[page.index('<script type="module">') : page.rindex('<script type="module">')], "")
    assert "http:" not in outside
    assert "https:" not in outside
    assert "actions: false" in outside


def test_the_library_is_in_it_once(page: str) -> None:
    assert page.count("window.vegaEmbed=") == 1
    assert page.count("</script>") == 3
    assert len(page.encode()) < 2_000_000


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
    assert not re.search(r"\{\{\w+\}\}", page[page.index("<body>") : page.index('<script type="module">')])


def test_charts_and_tables_can_be_read_without_seeing_them(page: str) -> None:
    parsed = Page(page)
    places = [given for given in parsed.attributes("div") if given.get("class") == "chart"]
    assert len(places) == 5
    for given in places:
        assert given["role"] == "img"
        assert len(given["aria-label"] or "") > 20
    assert all(given.get("scope") in ("col", "row") for given in parsed.attributes("th"))
    labels = {given["for"] for given in parsed.attributes("label")}
    assert labels == {given["id"] for given in parsed.attributes("input")} == {"find"}


def test_the_table_has_every_language_and_its_numbers(page: str, balance: Balance) -> None:
    head, *rows, total = Page(page).cells
    assert [row[0] for row in rows] == ["Yoruba yo", "German de", "Breton br", "Welsh cy"]
    german = dict(zip(head, rows[1], strict=True))
    assert [german[stage] for stage in ("raw", "identified", "deduped", "sampled")] == ["6", "4", "3", "2"]
    assert (german["bytes"], german["removed"], german["epochs"], german["tokens"]) == ("16 B", "50.0%", "0.75", "7")
    assert dict(zip(head, total, strict=True))["sampled"] == str(balance.totals()["documents"])


def test_warnings_are_on_the_page(page: str) -> None:
    assert "Welsh <span class=code>cy</span>: of 1 in raw" in page
    assert "Breton <span class=code>br</span>: 1 of at least 2" in page


def values(views: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each view; the specification keeps them apart under a name."""
    return {name: spec["datasets"][spec["data"]["name"]] for name, spec in views.items()}


def test_charts_show_the_counts(page: str) -> None:
    drawn = json.loads("".join(Page(page).script))
    assert set(drawn) == {"stages", "removed", "shares", "lengths", "by-family"}  # all is in one script
    stages = values(drawn["stages"])
    assert set(stages) == {"bytes", "documents"}
    german = {row["stage"]: row["value"] for row in stages["documents"] if row["language"] == "German (de)"}
    assert german == {"raw": 6, "identified": 4, "deduped": 3, "sampled": 2}
    # A logarithmic axis has no zero: a language that has lost everything keeps its dots of before.
    assert {row["stage"] for row in stages["documents"] if row["language"] == "Welsh (cy)"} == {"raw"}
    left = values(drawn["removed"])["share of documents"]
    assert {row["reason"]: row["documents"] for row in left if row["language"] == "German (de)"} == {
        "kept": "2", "not_sampled": "1", "near": "1", "wrong_language": "1", "empty": "1",
    }  # fmt: skip
    for language in {row["language"] for row in left}:
        assert sum(row["share"] for row in left if row["language"] == language) == pytest.approx(1)


def test_colours_named_in_charts_are_in_the_page_for_light_and_dark(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    script = "".join(Page(page).script)
    named = set(re.findall(r'"var:([\w-]+)"', script)) | {colour[4:] for colour in REASON_COLOURS.values()}
    assert {"stage-0", "stage-3", "plan", "kept"} <= named
    for name in named:
        assert f"--{name}:" in light, name
        assert f"--{name}:" in dark, name


def test_only_the_largest_are_drawn(tmp_path: Path) -> None:
    for i, lang in enumerate(("de", "fr", "sw", "yo")):
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, [{"text": "x" * 10 * (i + 1)}])
    stages = charts(measure(tmp_path / "raw"), top=2)[0]
    assert {row["language"] for row in values(stages.views)["bytes"]} == {"Yoruba (yo)", "Swahili (sw)"}
    assert "2 largest of 4" in stages.caption


def test_pages_of_little(tmp_path: Path, balance: Balance) -> None:
    write_rows(tmp_path / "one/yo/a.parquet", RAW, [{"text": "x"}])
    assert {chart.key for chart in charts(measure(tmp_path / "one"), top=5)} == {"stages", "lengths"}
    write_rows(tmp_path / "none/yo/a.parquet", RAW, [])
    assert charts(measure(tmp_path / "none"), top=5) == []
    assert '<div class="chart"' not in report_html(measure(tmp_path / "none"))
    write_run(tmp_path / "run")
    tokens = charts(measure(tmp_path / "run" / "tokens"), top=5)
    assert {chart.key for chart in tokens} == {"stages", "by-family"}
    assert set(tokens[0].views) == {"tokens", "documents"}


def test_text_of_a_folder_name_or_domain_cannot_break_out(tmp_path: Path) -> None:
    name = "x<script>alert(1)"
    write_rows(tmp_path / "raw" / name / "a.parquet", RAW, [{"text": "x", "url": "https://</script><b>/"}] * 20)
    page = report_html(measure(tmp_path / "raw"))
    assert "<script>alert" not in page
    assert page.count("</script>") == 3
    assert Page(page).open == []


def test_every_usual_script_has_a_name() -> None:
    assert {language.script for language in LANGUAGES.values()} <= SCRIPT_NAMES.keys()


def test_a_page_that_cannot_be_written(balance: Balance, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ShardError, match=r"page\.html: cannot be written"):
        write_report(balance, tmp_path / "file" / "page.html")
