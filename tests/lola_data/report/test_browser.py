"""The page in a real browser: what a reader does with mouse, keyboard and a small screen."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lola_data.balance.evenness import evenness
from lola_data.balance.measure import measure
from lola_data.languages import LANGUAGES
from lola_data.report.page import write_report
from lola_data.sampling import methods as sampling
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW
from tests.lola_data import browser as browsers
from tests.lola_data.balance.trees import write_rows, write_run
from tests.lola_data.report.test_page import hostile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lola_data.balance.measure import Balance
    from tests.lola_data.browser import Browser

pytestmark = pytest.mark.skipif(browsers.find() is None, reason="needs Chromium or Chrome on the PATH; none was found")

WIDTHS = (360, 768, 1280)
LANGS = ("de", "en", "fr", "yo", "sw", "hr", "sr", "fi", "eu", "ja", "zh", "am")


def write_corpus(root: Path) -> None:
    """A run of a dozen languages, each some times as large as the next; a tenth is taken for the next language."""
    for place, lang in enumerate(LANGS):
        other = LANGS[(place + 1) % len(LANGS)]
        rows = [
            {
                "text": f"{lang} {n} " * max(5, 1000 >> place),
                "source": "mC4",
                "url": f"https://{lang}{n % 3}.example/{n}",
            }
            for n in range(2 ** (len(LANGS) - place) // 8 + 12)
        ]
        seen = [
            {**row, "id": f"{lang}/a/{n}", "claimed_lang": lang, "lang": lang if n % 10 else other, "lang_score": 0.9,
             "script": "Latn"} for n, row in enumerate(rows)
        ]  # fmt: skip
        write_rows(root / f"raw/{lang}/a.parquet", RAW, rows, group=1000)
        write_rows(root / f"identified/{lang}/a.parquet", IDENTIFIED, seen, group=1000)
        left = [{**row, "cluster_size": 1} for row in seen[2:]]
        write_rows(root / f"deduped/{lang}/a.parquet", DEDUPED, left, group=1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = browsers.find()
    assert executable
    opened = browsers.Browser(executable)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Balance:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return measure(root)


@pytest.fixture(scope="module")
def page(corpus: Balance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    write_run(root / "run")
    write_report(corpus, root / "page.html", against=measure(root / "run"), names=("mine", "theirs"))
    return root / "page.html"


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The page, fresh; whatever a test did with it, it has neither complained nor asked for anything."""
    browser.open(page)
    yield browser
    assert browser.console == []
    assert browser.requests == [page.resolve().as_uri()]


def column(browser: Browser, table: str, number: int) -> list[str]:
    """Texts of a column of the rows that are seen."""
    return browser.run(
        f"[...document.querySelectorAll('#{table} tbody tr')].filter((row) => !row.hidden)"
        f".map((row) => row.cells[{number}].textContent)"
    )


def values(browser: Browser, table: str, number: int) -> list[float]:
    """Numbers that a column is sorted by."""
    return browser.run(
        f"[...document.querySelectorAll('#{table} tbody tr')].map((row) => Number(row.cells[{number}].dataset.v))"
    )


def focus(browser: Browser) -> str:
    """What has the focus: its id, or its tag and text."""
    return browser.run(
        "document.activeElement.id || document.activeElement.tagName + ' ' + document.activeElement.textContent"
    )


def set_slider(browser: Browser, name: str, value: float) -> None:
    """As a hand on the slider: its value, and the event."""
    browser.run(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = '{value}'; "
        "e.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    browser.settle()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(opened: Browser, page: Path, width: int, dark: bool) -> None:
    opened.open(page, width=width, dark=dark)
    assert opened.run("document.documentElement.scrollWidth") == width
    # Nothing sticks out but what lies in a box of its own that scrolls, or is only read aloud.
    outside = opened.run(
        """[...document.querySelectorAll('main *')].filter((e) => {
          const r = e.getBoundingClientRect();
          const sticksOut = r.width > 1 && (r.right > innerWidth + 0.5 || r.left < -0.5);
          return sticksOut && !e.closest('.scroll') && !e.closest('.vh');
        }).map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert outside == []
    background = opened.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 26)" if dark else "rgb(251, 250, 247)")


@pytest.mark.parametrize("first", [1000, 1400])
def test_a_window_that_changes_its_width(opened: Browser, page: Path, first: int) -> None:
    opened.open(page, width=first)
    for width in (1400, 1399, 1000, 360, 1400):
        opened.resize(width)
        opened.settle()
        drawn = opened.run("document.querySelector('#curves svg').getBoundingClientRect().width")
        assert drawn == pytest.approx(opened.run("document.querySelector('#curves').clientWidth"), abs=2)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_lies_on_another(opened: Browser, page: Path, width: int) -> None:
    opened.open(page, width=width)
    overlapping = opened.run(
        """(() => {
          const found = [];
          const meet = (p, q) => p.width && q.width && p.left < q.right - 1 && q.left < p.right - 1
            && p.top < q.bottom - 1 && q.top < p.bottom - 1;
          for (const group of document.querySelectorAll('.axis .plot, .rows > li, .tiles, .sections, .stage')) {
            const rows = group.matches('li');
            const inside = [...(rows ? group.children : group.querySelectorAll('span, dt, dd, a'))]
              .filter((e) => e.offsetParent).map((e) => [e.textContent, e.getBoundingClientRect()]);
            for (const [i, [text, box]] of inside.entries()) {
              for (const [other, its] of inside.slice(i + 1)) if (meet(box, its)) found.push(text + ' | ' + other);
            }
          }
          return found;
        })()"""
    )
    assert overlapping == []


def test_the_table_sorts(opened: Browser) -> None:
    heads: list[str] = opened.run("[...document.querySelectorAll('#all thead th')].map((e) => e.textContent)")
    size, name = heads.index("bytes"), 0
    assert values(opened, "all", size) == sorted(values(opened, "all", size), reverse=True)
    opened.click(f"#all thead th:nth-child({size + 1}) button")
    assert values(opened, "all", size) == sorted(values(opened, "all", size))
    opened.click("#all thead th:nth-child(1) button")
    assert column(opened, "all", name) == sorted(column(opened, "all", name))
    marked = opened.run("[...document.querySelectorAll('#all thead th')].map((e) => e.getAttribute('aria-sort'))")
    assert marked == ["ascending", *[None] * (len(heads) - 1)]
    opened.click("#all thead th:nth-child(1) button")
    assert column(opened, "all", name) == sorted(column(opened, "all", name), reverse=True)
    assert opened.run("document.querySelector('#all tfoot th').textContent") == "total"


def test_unknown_numbers_come_last_either_way(opened: Browser) -> None:
    # Languages that only one of the two corpora has are without a factor.
    place = opened.run("[...document.querySelectorAll('#both thead th')].findIndex((e) => e.textContent === 'factor')")
    unknown = column(opened, "both", place).count("")
    assert unknown > 0
    for _ in range(2):
        opened.click(f"#both thead th:nth-child({place + 1}) button")
        texts = column(opened, "both", place)
        assert texts[-unknown:] == [""] * unknown
        assert "" not in texts[:-unknown]


def test_the_table_filters(opened: Browser) -> None:
    opened.click("#all-find")
    for key in "uralic":
        opened.press(key)
    opened.settle()
    assert column(opened, "all", 0) == ["Finnish fi"]
    assert opened.run("document.getElementById('all-shown').textContent") == f"1 of {len(LANGS)} shown"
    opened.run("document.getElementById('all-find').select()")
    for key in "LATN o":  # every word, in any case
        opened.press(key)
    opened.settle()
    latin = {lang for lang in LANGS if LANGUAGES[lang].script == "Latn"}
    expected = {
        lang for lang in latin if any("o" in text for text in (LANGUAGES[lang].name, lang, LANGUAGES[lang].family))
    }
    assert {text.split(" ")[-1] for text in column(opened, "all", 0)} == expected


def test_the_scheme_switches_and_stays(opened: Browser, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert opened.run(paper) == "rgb(251, 250, 247)"
    opened.click("[data-scheme=dark]")
    assert opened.run(paper) == "rgb(20, 23, 26)"
    assert opened.run("document.querySelector('[data-scheme=dark]').getAttribute('aria-pressed')") == "true"
    opened.open(page)
    assert opened.run(paper) == "rgb(20, 23, 26)"
    opened.click("[data-scheme=light]")
    opened.prefer(dark=True)
    assert opened.run(paper) == "rgb(251, 250, 247)"
    opened.click("[data-scheme=auto]")
    assert opened.run(paper) == "rgb(20, 23, 26)"


def test_charts_have_views(opened: Browser) -> None:
    shown = "[...document.querySelectorAll('#sizes .view')].filter((e) => e.offsetParent).map((e) => e.id)"
    assert opened.run(shown) == ["sizes-bytes"]
    opened.click("#sizes .views button:nth-child(2)")
    assert opened.run(shown) == ["sizes-documents"]


def test_the_stages_of_one_language(opened: Browser, corpus: Balance) -> None:
    def stages() -> list[list[str]]:
        return opened.run(
            "[...document.querySelectorAll('#funnel .stage')].map((e) => [...e.children].map((c) => c.textContent))"
        )

    table = {row["lang"]: row for row in corpus.table().iter_rows(named=True)}
    total = corpus.totals()
    assert [row[2].split(" ")[0] for row in stages()] == [f"{total[f'{s}_documents']:,}" for s in corpus.stages]
    opened.run("document.getElementById('language-picker').focus()")
    for key in "Yoruba":
        opened.press(key)
    opened.settle()
    assert opened.run("document.getElementById('language-name').textContent") == "Yoruba yo"
    found = stages()
    assert [row[0] for row in found] == list(corpus.stages)
    assert [row[2].split(" ")[0] for row in found] == [
        str(table["yo"][f"{stage}_documents"]) for stage in corpus.stages
    ]
    assert found[2][3] == f"{100 * table['yo']['deduped_documents'] / table['yo']['raw_documents']:.1f}%"
    facts = opened.run("document.getElementById('facts').textContent")
    assert "Swahili" in facts  # a tenth is taken for it
    assert "yo0.example" in facts
    opened.click("#language-after")
    assert opened.run("document.getElementById('language-name').textContent") == "All languages"


def plan_of(browser: Browser, method: str, sizes: list[int], **options: Any) -> dict[str, Any]:
    return browser.run(f"sampling.plan({json.dumps(method)}, {json.dumps(sizes)}, {json.dumps(options)})")


def check(found: dict[str, Any], expected: sampling.SamplingPlan) -> None:
    budgets = [expected.languages[code] for code in sorted(expected.languages)]
    assert found["budgets"] == [budget.budget for budget in budgets]
    assert (found["total"], found["unspent"]) == (expected.total, expected.unspent)
    assert found["shares"] == pytest.approx([budget.share for budget in budgets], rel=1e-12, abs=1e-300)
    assert found["epochs"] == pytest.approx([budget.epochs for budget in budgets], rel=1e-12)


def test_budgets_are_those_of_lola_data(opened: Browser) -> None:
    """Unit for unit, at sizes from nothing to the whole of CulturaX."""
    rng = random.Random(4)
    published = {code: LANGUAGES[code].documents for code in LANGUAGES}
    cases = [published, {code: size * 3000 for code, size in published.items()}]
    cases += [
        {
            f"x{i:03}": rng.choice([0, 1, rng.randrange(100), rng.randrange(10 ** rng.randrange(1, 12))])
            for i in range(n)
        }
        for n in (1, 2, 7, 50, 167)
        for _ in range(4)
    ]
    cases.append({"a": 5, "b": 5, "c": 5})  # ties go to the first code
    for case in cases:
        sizes = [case[code] for code in sorted(case)]
        there = sum(sizes)
        for _ in range(6):
            total = rng.choice([1, 2, max(1, there // 3), there + 1, 3 * there + 7, rng.randrange(1, 10 * there + 10)])
            alpha = rng.randrange(101) / 100
            epochs = rng.choice([0.5, 1.0, 1.5, 4.0, 20.0, 0.3])
            options = {"total": total, "alpha": alpha, "maxEpochs": epochs}
            for method in ("temperature", "unimax", "proportional"):
                expected = sampling.plan(method, case, total=total, alpha=alpha, max_epochs=epochs)
                check(plan_of(opened, method, sizes, **options), expected)
        check(plan_of(opened, "all", sizes), sampling.plan("all", case))
        check(plan_of(opened, "temperature", sizes, alpha=0.3, maxEpochs=4), sampling.plan("temperature", case))


def test_lola_v1_is_that_of_the_release(opened: Browser) -> None:
    """The page's own pool of published sizes, against the counts of the release where they follow the rule."""
    opened.run("document.getElementById('pool').selectedIndex = document.getElementById('pool').options.length - 1")
    opened.run("document.getElementById('pool').dispatchEvent(new Event('change'))")
    opened.settle()
    opened.click("#method-lola-v1")
    budgets = dict(zip(column(opened, "sample-table", 0), values(opened, "sample-table", 2), strict=True))
    assert len(budgets) == 167
    expected = sampling.plan("lola-v1", {code: LANGUAGES[code].documents for code in LANGUAGES})
    for code, language in LANGUAGES.items():
        found = budgets[f"{language.name} {code}"]
        assert found == expected.languages[code].budget
        assert abs(found - language.lola_v1_docs) <= 1  # the release is one short where it took a part


def test_sliders_change_the_numbers(opened: Browser, corpus: Balance) -> None:
    sizes = dict(corpus.table().select("lang", "deduped_bytes").iter_rows())
    there = sum(sizes.values())

    def compare(**options: Any) -> None:
        expected = sampling.plan("temperature", sizes, **options)
        names = column(opened, "sample-table", 0)
        found = dict(zip((name.split(" ")[-1] for name in names), values(opened, "sample-table", 2), strict=True))
        assert found == {code: budget.budget for code, budget in expected.languages.items()}
        cells = opened.run(
            "[...document.querySelector('[data-method=temperature]').cells].slice(1).map((e) => e.textContent)"
        )
        shares = [budget.share for budget in expected.languages.values()]
        even = evenness(np.array(shares))
        assert cells[2] == f"{even.effective_languages:.1f}"
        assert cells[5] == f"{max(budget.epochs for budget in expected.languages.values()):.2f}"
        assert cells[6] == str(sum(budget.epochs > 1 for budget in expected.languages.values()))
        assert f"{options['alpha']:.2f}" == opened.run("document.getElementById('alpha-shown').textContent")

    compare(alpha=0.3, max_epochs=4.0, total=there)
    set_slider(opened, "alpha", 0.85)
    compare(alpha=0.85, max_epochs=4.0, total=there)
    set_slider(opened, "epochs", 1.5)
    set_slider(opened, "budget", 0.5)
    compare(alpha=0.85, max_epochs=1.5, total=round(there * 10**0.5))
    opened.run("document.getElementById('budget-exact').focus()")
    for key in "12345":
        opened.press(key)
    opened.settle()
    compare(alpha=0.85, max_epochs=1.5, total=12345)
    curves = opened.run("document.getElementById('curves').getAttribute('aria-label')")
    assert "temperature" in curves
    opened.click("#method-unimax")
    assert opened.run("document.getElementById('sample-title').textContent") == "Every language under unimax"
    expected = sampling.plan("unimax", sizes, max_epochs=1.5, total=12345)
    assert sorted(values(opened, "sample-table", 2)) == sorted(b.budget for b in expected.languages.values())


def test_everything_can_be_done_with_the_keyboard(opened: Browser) -> None:
    opened.press("Tab")
    assert focus(opened) == "A Skip to the content"
    assert opened.run("document.activeElement.getBoundingClientRect().top >= 0")  # it shows when it has the focus
    opened.press("Tab")
    opened.press("Enter")
    opened.settle()
    assert focus(opened) == "every-language"
    opened.press("Tab")
    assert focus(opened) == "all-find"
    opened.press("Tab")  # the box of the table, to scroll it with arrows
    opened.press("Tab")
    assert focus(opened) == "BUTTON language"
    opened.press("Enter")
    opened.settle()
    assert column(opened, "all", 0) == sorted(column(opened, "all", 0))
    opened.press("Tab")
    opened.press(" ")
    opened.settle()
    assert opened.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    opened.run("document.getElementById('alpha').focus()")
    opened.press("ArrowRight", 5)
    opened.settle()
    assert opened.run("document.getElementById('alpha-shown').textContent") == "0.35"
    opened.run("document.getElementById('method-temperature').focus()")
    opened.press("ArrowDown")
    opened.settle()
    assert opened.run("document.getElementById('sample-title').textContent") == "Every language under unimax"


def test_every_control_is_reached_and_shows_that_it_is(opened: Browser) -> None:
    wanted: int = opened.run(
        """(() => {
          const controls = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
            .filter((e) => e.offsetParent !== null && !e.disabled && !(e.type === 'radio' && !e.checked));
          window.reached = new Set();
          window.unseen = [];
          document.addEventListener('focusin', (event) => {
            window.reached.add(event.target);
            const style = getComputedStyle(event.target);
            const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
            if (!seen) window.unseen.push(event.target.outerHTML);
          });
          window.controls = controls;
          return controls.length;
        })()"""
    )
    assert wanted > 40
    opened.press("Tab", wanted + 2)
    assert opened.run("window.controls.filter((e) => !window.reached.has(e)).map((e) => e.outerHTML)") == []
    assert opened.run("window.unseen") == []


def test_what_is_read_aloud(opened: Browser) -> None:
    """Every control and region has a name, as the browser's own accessibility tree tells it."""
    opened.send("Accessibility.enable")
    nodes = opened.send("Accessibility.getFullAXTree")["nodes"]
    opened.send("Accessibility.disable")
    roles = (
        "button",
        "link",
        "searchbox",
        "combobox",
        "slider",
        "radio",
        "spinbutton",
        "region",
        "navigation",
        "image",
    )
    named = {role: [] for role in roles}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in named and not node.get("ignored"):
            named[role].append(node.get("name", {}).get("value", ""))
    for role, names in named.items():
        assert names, role
        assert all(names), role
    assert any("share by rank" in name for name in named["image"])


def test_a_hostile_corpus_runs_nothing(browser: Browser, corpus: Balance, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_report(hostile(tmp_path / "run"), page, title="x\u202e\0", against=corpus)
    for width in WIDTHS:
        browser.open(page, width=width)
        assert browser.run("document.documentElement.scrollWidth") == width
        for _ in range(2):
            browser.click("#language-after")
        browser.click("#all thead th:nth-child(1) button")
        assert browser.console == []
        assert browser.requests == [page.resolve().as_uri()]
        assert browser.run("document.querySelectorAll('img, script[src], iframe').length") == 0


def test_pages_of_little(browser: Browser, tmp_path: Path) -> None:
    write_rows(tmp_path / "none/yo/a.parquet", RAW, [])
    write_rows(tmp_path / "one/yo/a.parquet", RAW, [{"text": "x"}])
    write_run(tmp_path / "run")
    for tree in ("none", "one", "run/tokens", "run"):
        write_report(measure(tmp_path / tree), tmp_path / "page.html")
        browser.open(tmp_path / "page.html", width=360)
        assert browser.console == []
        assert browser.run("document.documentElement.scrollWidth") == 360
        set_slider(browser, "alpha", 1)
        assert browser.console == []
