"""The balance page: a :class:`Balance` in, one HTML file out that opens offline.

What does not change is written here, as HTML: charts, tables, warnings. What answers the reader (sorting, the stages of
one language, the sampling strategies) is drawn by the scripts in ``resources/report_*.js`` from the JSON in the page.
All is in the one file; its content security policy forbids the browser to fetch anything, and to run any script but
those. Text from outside is made safe in one place, the template's environment: every value that is set is first
stripped of characters that cannot be seen (:func:`lola_data.report.text.visible`), then escaped. The same balance
gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import sqrt
from typing import TYPE_CHECKING, Any

import polars as pl

from lola_data import storage
from lola_data.balance.table import UNKNOWN_FAMILY, UNKNOWN_SCRIPT, described
from lola_data.balance.warnings import KINDS, MIN_DOCUMENTS, warnings_of
from lola_data.errors import ShardError
from lola_data.report.charts import charts
from lola_data.report.compare import NAMES, comparison
from lola_data.report.data import page_data
from lola_data.report.heatmap import heat_map
from lola_data.report.tables import evenness_table, every_language, pairs_table
from lola_data.report.text import short_count, visible
from lola_data.text_tables import readable_bytes, readable_share

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from jinja2 import Environment

    from lola_data.balance.measure import Balance
    from lola_data.report.scale import Tick

DEFAULT_TOP = 40
"""Languages drawn in the charts that have not all of them."""
OPEN_WARNINGS = 8
"""With more warnings the list starts folded."""

_SCRIPTS = ("report_page.js", "report_sampling.js", "report_explorer.js")


def write_report(
    balance: Balance,
    out: str | os.PathLike[str],
    *,
    title: str = "Language balance",
    top: int = DEFAULT_TOP,
    min_documents: int = MIN_DOCUMENTS,
    against: Balance | None = None,
    names: tuple[str, str] = NAMES,
) -> None:
    """Write the page to ``out``, whole or not at all.

    Args:
        balance: what was counted.
        out: the HTML file; its folder is made.
        title: heading of the page.
        top: languages in the charts that have not all of them; the table and the sizes have all.
        min_documents: languages with fewer documents are warned of.
        against: another corpus to compare ``balance`` with.
        names: what the two are called.

    Raises:
        ShardError: ``out`` cannot be written.
    """
    page = report_html(balance, title=title, top=top, min_documents=min_documents, against=against, names=names)
    try:
        with storage.atomic_output(str(out)) as handle:
            handle.write(page.encode())
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({error.strerror or error}); name another file") from error


def report_html(
    balance: Balance,
    *,
    title: str = "Language balance",
    top: int = DEFAULT_TOP,
    min_documents: int = MIN_DOCUMENTS,
    against: Balance | None = None,
    names: tuple[str, str] = NAMES,
) -> str:
    """The page as text; arguments as for :func:`write_report`."""
    from markupsafe import Markup

    figures = charts(balance, top=top)
    compared = None if against is None else comparison(balance, against, names=names, top=top)
    heat = heat_map(balance)
    pairs = pairs_table(balance)
    languages = len(balance.languages)
    sections = [
        ("compared", "Two corpora", compared is not None),
        *((chart.key, chart.title, True) for chart in figures if chart.wide),
        ("language", "One language", languages > 0),
        *((chart.key, chart.title, True) for chart in figures if not chart.wide),
        ("detected", "Claimed and detected", heat is not None),
        ("evenness", "Evenness", True),
        ("sampling", "Sampling strategies", languages > 0),
        ("every-language", "Table", True),
    ]
    # `<` and `&` begin markup, and the JSON stands inside of it; all else is ASCII.
    data = json.dumps(page_data(balance), separators=(",", ":"), allow_nan=False)
    data = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    scripts = [_resource(name) for name in _SCRIPTS]
    return _environment().get_template("report_template.html").render(
        title=title,
        stages=balance.stages,
        subject=balance.subject,
        joined=balance.joined,
        sections=[(anchor, name) for anchor, name, there in sections if there],
        tiles=_tiles(balance),
        warnings=_warnings(balance, min_documents),
        compared=compared,
        charts=figures,
        languages=languages,
        heat=heat,
        pairs=pairs,
        evenness=evenness_table(balance),
        estimated=not balance.exact,
        notes=_estimates(balance),
        all=every_language(balance),
        data=Markup(data),
        css=Markup(_resource("report.css")),
        scripts=[Markup(script) for script in scripts],
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
    )  # fmt: skip


def _resource(name: str) -> str:
    return (files("lola_data") / "resources" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """SHA-256 of a script as a content security policy names it (CSP level 3, 2.3.1)."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Every value set in the template passes through ``finalize`` and is then escaped, unless it is markup of ours."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def seen(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True,
        finalize=seen,
        undefined=StrictUndefined,
        loader=FunctionLoader(_resource),
        keep_trailing_newline=True,
    )
    environment.filters |= {"gridlines": _gridlines, "heat": _heat, "share": readable_share}
    return environment


def _gridlines(ticks: Iterable[Tick]) -> str:
    """Ticks as the background of a plot: a hairline each."""
    lines = [
        f"linear-gradient(90deg, transparent calc({tick.at}% - 0.5px), var(--grid) 0 calc({tick.at}% + 0.5px), "
        "transparent 0)"
        for tick in ticks
    ]
    return ", ".join(lines) or "none"


def _heat(share: float) -> float:
    """Per cent of colour for a share: its square root, so that small shares can be told from none."""
    return round(100 * sqrt(min(1.0, max(0.0, share))), 1)


def _tiles(balance: Balance) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure at the head of the page."""
    total, even = balance.totals(), balance.evenness()
    own = balance.table().filter(pl.col("documents") > 0)
    first = balance.evenness(balance.stages[0])
    several = len(balance.stages) > 1
    tiles = [
        (
            "languages",
            f"{own.height:,}",
            f"of {len(balance.languages):,}" if own.height < len(balance.languages) else "",
        ),
        ("scripts", f"{own.filter(pl.col('script') != UNKNOWN_SCRIPT)['script'].n_unique():,}", ""),
        ("families", f"{own.filter(pl.col('family') != UNKNOWN_FAMILY)['family'].n_unique():,}", ""),
        ("documents", _count(total["documents"]), f"from {_count(total['first_documents'])}" if several else ""),
    ]
    if balance.text_stages:
        before = total.get(f"{balance.stages[0]}_bytes")
        sign = "~" if "bytes" in balance.estimated_columns() else ""
        note = f"from {readable_bytes(before)}" if before else ""
        tiles.append(("of text", sign + readable_bytes(total["bytes"]), note))
    if total["tokens"] is not None:
        per = total["bytes_per_token"]
        sign = "~" if "tokens" in balance.estimated_columns() else ""
        tiles.append(("tokens", sign + short_count(total["tokens"]), f"{per:.2f} bytes a token" if per else ""))
    note = f"from {first.effective_languages:.1f} in {balance.stages[0]}" if several else f"Gini {even.gini:.2f}"
    return [*tiles, ("effective languages", f"{even.effective_languages:.1f}", note)]


def _count(count: int) -> str:
    """All digits, where a tile has room for them."""
    return f"{count:,}" if count < 10_000_000 else short_count(count)


def _estimates(balance: Balance) -> list[str]:
    """How much was read for the estimates, and of whose tokens the counts are."""
    notes: list[str] = []
    read = balance.read.filter(pl.col("stage") == balance.subject)
    if read.height:
        notes.append(
            f"For the estimates {readable_bytes(int(read['bytes'].sum()))} of the texts of {read.height} languages "
            "were read; a cell of the table tells its 95% interval."
        )
    if balance.tokenizer is not None:
        notes.append(f"Tokens are of the tokenizer {balance.tokenizer}.")
    return notes


@dataclass(frozen=True, slots=True)
class _Warnings:
    """How many there are, whether the list starts open, and by kind: name, code and detail of each."""

    count: int
    open: bool
    kinds: list[tuple[str, list[tuple[str, str, str]]]]


def _warnings(balance: Balance, min_documents: int) -> _Warnings:
    found = warnings_of(balance, min_documents=min_documents)
    names = dict(described(balance.languages).select("lang", "name").iter_rows())
    kinds: list[tuple[str, list[tuple[str, str, str]]]] = []
    for kind, title in KINDS.items():
        own = [(names.get(w.lang, w.lang), w.lang, w.detail) for w in found if w.kind == kind]
        if own:
            kinds.append((title[:1].upper() + title[1:], own))
    return _Warnings(len(found), len(found) <= OPEN_WARNINGS, kinds)
