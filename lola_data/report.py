"""The balance page: a :class:`Balance` in, one HTML file out that opens offline.

Styles, data, charts and the JavaScript that draws them (Vega-Lite, bundled once by vl-convert) are all in the file; its
content security policy forbids the browser to fetch anything. The same balance gives the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import polars as pl

from lola_data import storage
from lola_data.balance_table import UNKNOWN_FAMILY, UNKNOWN_SCRIPT, described
from lola_data.balance_text import readable_bytes, readable_share
from lola_data.balance_warnings import KINDS, MIN_DOCUMENTS, warnings_of
from lola_data.errors import ShardError
from lola_data.report_charts import charts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from lola_data.balance import Balance
    from lola_data.evenness import Evenness
    from lola_data.report_charts import Chart

DEFAULT_TOP = 40
"""Languages drawn in the charts."""
PAIRS = 12
"""Pairs of confused languages listed."""
OPEN_WARNINGS = 8
"""With more warnings the list starts folded."""

_SHAPES = {
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0",
    "square": "M-4.5,-4.5h9v9h-9z",
    "triangle-up": "M0,-4.5L5,4.2H-5z",
    "triangle-down": "M0,4.5L5,-4.2H-5z",
    "triangle-left": "M-4.5,0L4.2,5V-5z",
    "triangle-right": "M4.5,0L-4.2,5V-5z",
    "diamond": "M0,-6L4.5,0L0,6L-4.5,0z",
    "cross": "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
}


def write_report(
    balance: Balance,
    out: str | os.PathLike[str],
    *,
    title: str = "Language balance",
    top: int = DEFAULT_TOP,
    min_documents: int = MIN_DOCUMENTS,
) -> None:
    """Write the page to ``out``, whole or not at all.

    Args:
        balance: what was counted.
        out: the HTML file; its folder is made.
        title: heading of the page.
        top: languages drawn in the charts; the table has all.
        min_documents: languages with fewer documents are warned of.

    Raises:
        ShardError: ``out`` cannot be written.
    """
    page = report_html(balance, title=title, top=top, min_documents=min_documents)
    try:
        with storage.atomic_output(str(out)) as handle:
            handle.write(page.encode())
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({error.strerror or error}); name another file") from error


def report_html(
    balance: Balance, *, title: str = "Language balance", top: int = DEFAULT_TOP, min_documents: int = MIN_DOCUMENTS
) -> str:
    """The page as text; arguments as for :func:`write_report`."""
    figures = charts(balance, top=top)
    views = json.dumps({chart.key: chart.views for chart in figures}, ensure_ascii=False, separators=(",", ":"))
    parts = {
        "title": escape(title),
        "lead": _lead(balance),
        "tiles": _tiles(balance),
        "warnings": _warnings(balance, min_documents),
        "figures": _grid(*map(_figure, figures)),
        "details": _grid(_evenness(balance), _confusions(balance)),
        "table": _table(balance),
        "footer": "Counted from the shards themselves. Bytes are UTF-8; lengths are in characters (code points). "
        "Made with lola-data.",
        "views": views.replace("<", "\\u003c"),
        "bundle": _bundle(),
    }
    template = (files("lola_data") / "resources" / "report_template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


@lru_cache(maxsize=1)
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _grid(*cards: str) -> str:
    filled = [card for card in cards if card]
    return f'<div class="grid">{"".join(filled)}</div>' if filled else ""


def _lead(balance: Balance) -> str:
    names = escape(" → ".join(balance.stages))
    if len(balance.stages) == 1:
        return f"What each language has in {names}."
    subject = f"Unless said otherwise, figures are of <b>{escape(balance.subject)}</b>."
    rest = ", and what happened to the rest" if balance.joined else ""
    return f"{names}: what each language has{rest}. {subject}"


def _tiles(balance: Balance) -> str:
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
        ("documents", f"{total['documents']:,}", f"from {total['first_documents']:,}" if several else ""),
    ]
    if balance.text_stages:
        before = total.get(f"{balance.stages[0]}_bytes")
        tiles.append(("of text", readable_bytes(total["bytes"]), f"from {readable_bytes(before)}" if before else ""))
    if total["tokens"] is not None:
        per = total["bytes_per_token"]
        tiles.append(("tokens", _short(total["tokens"]), f"{per:.2f} bytes a token" if per else ""))
    note = f"from {first.effective_languages:.1f} in {balance.stages[0]}" if several else f"Gini {even.gini:.2f}"
    tiles.append(("effective languages", f"{even.effective_languages:.1f}", note))
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        + (
            f'<dd class="note" style="font-size:.76rem;font-weight:400;letter-spacing:0">{escape(note)}</dd>'
            if note
            else ""
        )
        + "</div>"
        for name, value, note in tiles
    )


def _short(count: int) -> str:
    """A large count in thousands, millions, ... with three digits."""
    return readable_bytes(count).removesuffix("B").replace("k", "K").strip().replace(" ", "\u202f")


def _warnings(balance: Balance, min_documents: int) -> str:
    found = warnings_of(balance, min_documents=min_documents)
    if not found:
        return ""
    names = dict(described(balance.languages).select("lang", "name").iter_rows())
    blocks: list[str] = []
    for kind, title in KINDS.items():
        own = [warning for warning in found if warning.kind == kind]
        items = "".join(
            f"<li>{escape(names.get(w.lang, w.lang))} <span class=code>{escape(w.lang)}</span>: {escape(w.detail)}</li>"
            for w in own
        )
        if own:
            blocks.append(f"<h3>{escape(title.capitalize())} ({len(own)})</h3><ul>{items}</ul>")
    opened = " open" if len(found) <= OPEN_WARNINGS else ""
    word = "warning" if len(found) == 1 else "warnings"
    return f'<details class="card warnings"{opened}><summary>{len(found)} {word}</summary>{"".join(blocks)}</details>'


def _figure(chart: Chart) -> str:
    buttons = ""
    if len(chart.views) > 1:
        buttons = "".join(
            f'<button type="button" value="{escape(view)}" data-view-of="{chart.key}" '
            f'aria-pressed="{"true" if number == 0 else "false"}">{escape(view)}</button>'
            for number, view in enumerate(chart.views)
        )
        buttons = f'<div class="views" role="group" aria-label="What {escape(chart.title)} shows">{buttons}</div>'
    return (
        f'<figure class="card" id="{chart.key}"><figcaption><h2>{escape(chart.title)}</h2>'
        f"<p>{escape(chart.caption)}</p></figcaption>{buttons}{_legend(chart)}"
        f'<div class="chart" id="chart-{chart.key}" role="img" aria-label="{escape(chart.summary)}"></div></figure>'
    )


def _legend(chart: Chart) -> str:
    if not chart.legend:
        return ""
    items = "".join(
        f'<li><svg viewBox="-6 -6 12 12" width="12" height="12" aria-hidden="true">'
        f'<path d="{_SHAPES[shape]}" style="fill:var(--{colour.removeprefix("var:")})"/></svg>'
        f"{escape(label.replace('_', ' '))}</li>"
        for label, colour, shape in chart.legend
    )
    return f'<ul class="legend">{items}</ul>'


def _evenness(balance: Balance) -> str:
    rows: list[tuple[str, Evenness]] = [(stage, balance.evenness(stage)) for stage in balance.stages]
    target = balance.target_evenness()
    if target is not None:
        rows.append(("plan", target))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="n">{value}</td>'
            for value in (
                f"{e.effective_languages:.1f}",
                f"{e.entropy:.3f}",
                f"{e.normalised_entropy:.3f}",
                f"{e.gini:.3f}",
                readable_share(e.smallest_100_share),
                readable_share(e.smallest_half_share),
            )
        )
        + "</tr>"
        for name, e in rows
    )
    heads = ("effective", "entropy", "of 1", "Gini", "smallest 100", "smallest half")
    return (
        '<section class="card short"><h2>How even it is</h2><p>Of the bytes of each stage (of the tokens for token '
        "shards). The effective number of languages is exp(entropy in nats): that many equal ones are as diverse. "
        "Entropy of 1 is that of all languages being equal. Gini is 0 when all are equal and near 1 when one has "
        "everything. The last two columns are the share of the 100 smallest languages and of the smaller half of the "
        f"{len(balance.languages)}.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">stage</th>'
        + "".join(f'<th scope="col" class="n">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _confusions(balance: Balance) -> str:
    pairs = balance.confusions().head(PAIRS)
    if not pairs.height:
        return ""
    names = dict(described(tuple(sorted({*pairs["claimed"], *pairs["detected"]}))).select("lang", "name").iter_rows())
    body = "".join(
        f'<tr><th scope="row">{_language(names[claimed], claimed)}</th><td>{_language(names[detected], detected)}</td>'
        f'<td class="n">{documents:,}</td><td class="n">{readable_share(share)}</td></tr>'
        for claimed, detected, documents, share in pairs.iter_rows()
    )
    return (
        '<section class="card short"><h2>Detected as another language</h2><p>The pairs with most documents, whether '
        "they were removed, moved or kept.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">folder</th><th scope="col">detected</th>'
        '<th scope="col" class="n">documents</th><th scope="col" class="n">of the folder</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _language(name: str, code: str) -> str:
    return escape(name) if name == code else f"{escape(name)} <span class=code>{escape(code)}</span>"


@dataclass(frozen=True)
class _Column:
    head: str
    key: str
    show: Callable[[Any], str] | None = None
    """None: text, as it is."""


def _table_columns(balance: Balance, table: pl.DataFrame) -> list[_Column]:
    stages = [stage for stage in balance.stages if stage in balance.text_stages]
    several = len(balance.stages) > 1
    number: Callable[[Any], str] = lambda value: f"{value:,.0f}"  # noqa: E731
    columns = [_Column("language", "name"), _Column("script", "script"), _Column("family", "family")]
    columns += [_Column(s, f"{s}_documents", number) for s in stages] if several and stages else [
        _Column("documents", "documents", number)
    ]  # fmt: skip
    columns += [
        _Column("bytes", "bytes", readable_bytes),
        _Column("share", "share", readable_share),
        *([_Column(f"share in {balance.stages[0]}", "first_share", readable_share)] if several else []),
        _Column("planned share", "target_share", readable_share),
        _Column("epochs", "epochs", lambda value: f"{value:.2f}"),
        _Column("removed", "removed_share", readable_share),
        _Column("relabelled in", "relabelled_in", number),
        _Column("relabelled out", "relabelled_out", number),
        _Column("other language", "elsewhere", number),
        _Column("no text", "empty", number),
        _Column("mean length", "mean_length", number),
        _Column("median length", "p50_length", number),
        _Column("tokens", "tokens", number),
        _Column("bytes a token", "bytes_per_token", lambda value: f"{value:.2f}"),
    ]
    return [c for c in columns if c.show is None or any(value not in (None, 0) for value in table[c.key])]


def _table(balance: Balance) -> str:
    table = balance.table()
    columns = _table_columns(balance, table)
    sorted_by = "bytes" if balance.text_stages else "tokens"
    head = "".join(
        f'<th scope="col"{"" if c.show is None else " class=n"}'
        f'{" aria-sort=descending" if c.key == sorted_by else ""}><button type="button">{escape(c.head)}</button></th>'
        for c in columns
    )
    body = "\n".join(_table_row(row, columns) for row in table.iter_rows(named=True))
    total = balance.totals()
    foot = "".join(f'<td class="n">{_cell(total[c.key], c.show)}</td>' if c.show else "<td></td>" for c in columns[1:])
    return (
        '<section class="card"><h2>Every language</h2>'
        '<div class="find"><label for="find">Filter by name, code, script or family</label>'
        '<input id="find" type="search" autocomplete="off">'
        f'<span id="shown" role="status">{table.height} of {table.height} shown</span></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of every language">'
        f'<table id="all"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f'<tfoot><tr><th scope="row">total</th>{foot}</tr></tfoot></table></div></section>'
    )


def _table_row(row: dict[str, Any], columns: Iterable[_Column]) -> str:
    text = " ".join(str(row[key]) for key in ("name", "lang", "script", "family")).lower()
    cells: list[str] = []
    for column in columns:
        value = row[column.key]
        if column.key == "name":
            cells.append(f'<th scope="row">{_language(value, row["lang"])}</th>')
        elif column.show is None:
            cells.append(f"<td>{escape(str(value))}</td>")
        else:
            exact = "" if value is None else f"{value:.10g}"
            cells.append(f'<td class="n" data-v="{exact}">{_cell(value, column.show)}</td>')
    return f'<tr data-text="{escape(text)}">{"".join(cells)}</tr>'


def _cell(value: Any, show: Callable[[Any], str]) -> str:
    return "" if value is None else escape(show(value))
