"""The page of training runs: figures and tables in, one HTML file out that opens offline and needs no script.

Figures are SVG elements, each once for a screen and once for a phone; their colours are the CSS variables of the
project's pages, so they follow light and dark. The content security policy forbids the browser to fetch anything.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from lola_data.report.text import visible
from train.plot.figures import NAMES
from train.plot.measures import DEAD_RECORDS
from train.plot.tables import language_table, run_table, settings_table

if TYPE_CHECKING:
    from typing import Any

    from train.plot.figures import Figures
    from train.plot.tables import Table

_TITLES = {"loss": "Loss", "languages": "Languages", "experts": "Experts"}
_STYLE = """
.drawing { margin-top: 12px; }
.drawing svg { display: block; width: 100%; max-width: 1120px; height: auto; }
.drawing text { font-family: inherit; }
.drawing .narrow { display: none; }
@media (max-width: 700px) { .drawing .wide { display: none; } .drawing .narrow { display: block; max-width: 480px; } }
"""


def page_html(figures: Figures, rows: list[dict[str, Any]], *, title: str = "Training runs") -> str:
    """The page as text.

    Args:
        figures: what is drawn.
        rows: the runs as :func:`train.plot.tables.run_rows` gives them.
        title: heading of the page.
    """
    cards = [_card("runs", "Runs", _runs_note(figures), _table(run_table(rows), "Runs"))]
    cards += [_card(name, _TITLES[name], _caption(figures, name), _drawing(figures, name)) for name in NAMES]
    settings = settings_table(figures.runs)
    if len(figures.runs) > 1:
        same = "" if settings else "All recorded settings are the same."
        cards.append(
            _card("settings", "Settings that differ", same, _table(settings, "Settings", text=True) if settings else "")
        )
    if languages := language_table(figures.runs, figures.languages):
        note = "All languages of the last evaluation of each run."
        cards.append(_card("every-language", "Every language", note, _table(languages, "Languages", short=False)))
    css = (files("lola_data") / "resources" / "report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_seen(title)}</title>
<style>
{css}{_STYLE}</style>
</head>
<body>
<main>
<h1>{_seen(title)}</h1>
{"".join(cards)}
<footer>Made by lola-data train plot.</footer>
</main>
</body>
</html>
"""


def _runs_note(figures: Figures) -> str:
    note = "Losses in nats a token; held out and unigram are means over languages, of the last evaluation"
    smooth = f"; loss is smoothed as in the figure below (width {figures.smooth:,.4g} steps)" if figures.smooth else ""
    return f"{note}{smooth}; tokens/s is the median of the records."


def _caption(figures: Figures, name: str) -> str:
    if name == "loss":
        formula = (
            f" The bold line at step t is the mean of all records up to t, weighted by exp(−(t − tᵢ) / "
            f"{figures.smooth:,.4g})."
            if figures.smooth
            else ""
        )
        return (
            "Training loss is that of single steps. Held-out loss is the mean of all languages, each with the same "
            f"weight.{formula} The dotted line is what the frequencies of each language's own tokens would get."
        )
    if name == "languages":
        if not figures.languages.shown:
            return ""
        compared = (
            "Bits per byte can be compared between tokenizers."
            if figures.languages.unit == "bits per byte"
            else "A run has no bits per byte, so this is loss; runs with different tokenizers cannot be compared by it."
        )
        return f"{compared} Lower is better; a language whose bar passes its tick has not been learned yet."
    if not figures.loads:
        return ""
    return (
        "Share of the tokens that each expert got in the last recorded step, against an even share. Dead, marked ×: "
        f"no token in any of the last {DEAD_RECORDS} records. Below: entropy of the load of each layer over the "
        "logarithm of the number of experts."
    )


def _drawing(figures: Figures, name: str) -> str:
    label = f"{_TITLES[name]} of {', '.join(run.name for run in figures.runs)}; the tables have the numbers."
    return "".join(
        ["<figure class=\"drawing\">",
         *(f'<div class="{kind}">{figures.svg(name, narrow=kind == "narrow", label=label)}</div>'
           for kind in ("wide", "narrow")),
         "</figure>"]
    )  # fmt: skip


def _card(anchor: str, title: str, note: str, body: str) -> str:
    told = f"<p>{_seen(note)}</p>" if note else ""
    return f'<section class="card" id="{anchor}"><h2>{_seen(title)}</h2>{told}\n{body}</section>\n'


def _table(table: Table, label: str, *, text: bool = False, short: bool = True) -> str:
    heads, rows = table
    numeric = "" if text else ' class="n"'
    head = "".join(f'<th scope="col"{numeric if place else ""}>{_seen(one)}</th>' for place, one in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{numeric}>{_seen(cell)}</td>" if place else f'<th scope="row"><bdi>{_seen(cell)}</bdi></th>'
            for place, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll{" short" if short else ""}" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _seen(text: str) -> str:
    return escape(visible(text))
