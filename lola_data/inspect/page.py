"""Documents as one HTML page that opens offline: what was seen in, the page as text out.

Nothing in the page comes from a document but as escaped text: its content security policy lets the browser run no
script and fetch nothing, addresses are not links, and every text is an element of its own direction (``dir="auto"``)
and language.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.inspect.lines import (
    AROUND,
    LITTLE,
    NOT_AT_HAND,
    document_facts,
    fact,
    favoured_lines,
    language_name,
    name_of,
    piece_lines,
    size_of,
    spaces_differ,
    step_facts,
    step_lines,
)
from lola_data.inspect.words import ELIDED, LESS, MORE, SAME, compare, excerpt
from lola_data.languages import LANGUAGES
from lola_data.shown_text import MARK, Span, cut, decoded, plain, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lola_data.inspect.documents import Seen
    from lola_data.inspect.lines import Line
    from lola_data.inspect.rows import Row
    from lola_data.inspect.trace import Journey

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2227; --soft: #5b646d; --line: #dedbd3;
  --accent: #0b5fa5; --less: #fbe0da; --less-ink: #8c2008; --more: #d9f0df; --more-ink: #0f5a2a; --mark: #f5dfa6; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e8e6e1; --soft: #a2abb4;
  --line: #343a41; --accent: #6cb6f0; --less: #4a1f18; --less-ink: #ffb9a8; --more: #163a23; --more-ink: #a5e6ba;
  --mark: #5a4714; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 0 0 8px; overflow-wrap: anywhere; }
h3 { font-size: 0.86rem; margin: 0 0 6px; color: var(--soft); font-weight: 600; overflow-wrap: anywhere; }
.lead { color: var(--soft); margin: 8px 0 0; max-width: 80ch; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-top: 20px; min-width: 0; }
.count { color: var(--soft); font-weight: 400; font-size: 0.86rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin: 0 0 12px;
  font-size: 0.86rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; text-align: start;
  border-top: 1px solid var(--line); padding-top: 10px; tab-size: 4; }
.pieces { font-size: 0.86rem; color: var(--soft); margin-bottom: 10px; }
summary { cursor: pointer; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; }
.note { color: var(--soft); font-size: 0.86rem; }
.mark { background: var(--mark); border-radius: 3px; padding: 0 2px; font-size: 0.86em; unicode-bidi: isolate; }
del { background: var(--less); color: var(--less-ink); text-decoration: line-through; text-decoration-thickness: 1px; }
ins { background: var(--more); color: var(--more-ink); text-decoration: underline; text-underline-offset: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; }
thead th { font-weight: 600; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--card); }
tr.total > * { font-weight: 600; }
footer { margin-top: 28px; color: var(--soft); font-size: 0.8rem; }
@media (max-width: 760px) { .pair { grid-template-columns: minmax(0, 1fr); } main { padding: 22px 12px 40px; }
  .card { padding: 12px; } dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: 4px; } }
"""


def page(title: str, lead: str, body: str) -> str:
    """A whole page. ``title`` and ``lead`` are text, ``body`` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(plain(title))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(plain(title))}</h1>\n<p class="lead">{escape(plain(lead))}</p>\n{body}\n'
        "<footer>Made with lola-data. Invisible and acting characters are shown as marks; point at one for its name."
        "</footer>\n</main>\n</body>\n</html>\n"
    )


def write_page(path: str, content: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        ShardError: it cannot be written there.
    """
    try:
        with storage.atomic_output(path) as handle:
            handle.write(content.encode())
    except OSError as error:
        raise ShardError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error


def language_tag(folder: str) -> str:
    """The BCP 47 tag of a language folder, for fonts and screen readers; ``und`` for a name that cannot be one."""
    known = LANGUAGES.get(folder)
    if known is not None and len(folder) == 3 and known.iso639_3:
        return known.iso639_3
    return folder if re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", folder) else "und"


def spans_html(parts: Iterable[Span]) -> str:
    """Spans as HTML."""
    tags = {LESS: "del", MORE: "ins"}
    found: list[str] = []
    for part in parts:
        text = escape(part.text)
        if part.kind == MARK:
            found.append(f'<span class="mark" title="{escape(part.note)}">{text}</span>')
        elif part.kind == ELIDED:
            found.append(f'<bdi class="note">{text}</bdi>')
        elif part.kind in tags:
            found.append(f"<{tags[part.kind]}>{text}</{tags[part.kind]}>")
        else:
            found.append(text)
    return "".join(found)


def text_html(data: bytes | None, folder: str, most: int | None, *, missing: str = "no text") -> str:
    """A document's text, its first ``most`` characters; ``missing`` where there is none."""
    if data is None:
        return f'<p class="note">{escape(missing)}</p>'
    text, left = cut(decoded(data), most)
    more = f'<p class="note">… {left:,} more characters</p>' if left else ""
    return _text_block(spans(text) or [Span("[empty]", ELIDED)], folder) + more


def _text_block(parts: Sequence[Span], folder: str) -> str:
    return f'<div class="text" dir="auto" lang="{escape(language_tag(folder))}">{spans_html(parts)}</div>'


def pair_html(first: bytes, second: bytes, folder: str, names: tuple[str, str], most: int | None) -> str:
    """Two texts side by side, what differs marked; what both share far from a difference is left out."""
    compared = compare(decoded(first), decoded(second))
    stretches = excerpt(compared.stretches, 3 * AROUND)
    if compared.alike < LITTLE:
        sides = [text_html(first, folder, most), text_html(second, folder, most)]
    else:
        sides = []
        for own in (LESS, MORE):
            chosen = [part for part in stretches if part.kind in (SAME, ELIDED, own)]
            texts = [(part.in_second if own == MORE else part.text, part.kind) for part in chosen]
            sides.append(_text_block([span for text, kind in texts for span in spans(text, kind)], folder))
    cut_off = f"; {compared.cut:,} characters further on were not compared" if compared.cut else ""
    if compared.spaces:
        cut_off += f"; {spaces_differ(compared.spaces)}"
    columns = "".join(
        f"<div><h3>{escape(plain(name))}</h3>{side}</div>" for name, side in zip(names, sides, strict=True)
    )
    return f'<p class="note">{compared.alike:.1%} of the words alike{cut_off}</p><div class="pair">{columns}</div>'


def facts_html(found: Iterable[Line]) -> str:
    """Lines of facts as a list of descriptions."""
    rows: list[str] = []
    for line in found:
        label, value = line.spans[0].text.strip(), "".join(span.text for span in line.spans[1:])
        rows.append(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def card(title: str, note: str, body: str) -> str:
    """A framed part of the page. ``title`` and ``note`` are text, ``body`` is HTML."""
    return f'<article class="card"><h2>{escape(title)} <span class="count">{escape(note)}</span></h2>{body}</article>'


def documents_page(found: Sequence[Seen], title: str, lead: str, most: int | None) -> str:
    """Drawn documents, one after the other."""
    cards = [
        card(name_of(seen), f"{number} of {len(found)}", document_html(seen, most))
        for number, seen in enumerate(found, 1)
    ]
    return page(title, lead, "\n".join(cards))


def document_html(seen: Seen, most: int | None) -> str:
    """One drawn document: facts, pieces, and its text or the pair of texts."""
    return (
        facts_html(document_facts(seen))
        + _pieces_html(seen.pieces, seen.row.lang, most)
        + (
            texts_html(seen.text, seen.survivor, seen.row.values.get("kept_id"), seen.row.lang, most)
            if seen.place.kind == "removed"
            else text_html(seen.text, seen.row.lang, most)
        )
    )


def texts_html(text: bytes | None, survivor: Row | None, kept_id: str | None, folder: str, most: int | None) -> str:
    """A text, beside that of the document it was removed for if there is one."""
    if text is None or survivor is None or survivor.text is None:
        return text_html(text, folder, most, missing=NOT_AT_HAND)
    return pair_html(text, survivor.text, folder, ("removed", f"kept: {kept_id}"), most)


def _pieces_html(pieces: Sequence[str] | None, folder: str, most: int | None) -> str:
    blocks = "".join(_text_block(line.spans, folder) for line in piece_lines(pieces, most))
    return f'<details class="pieces"><summary>pieces</summary>{blocks}</details>' if blocks else ""


def journey_page(journey: Journey, lead: str, most: int | None) -> str:
    """One document's way through the stages."""
    cards: list[str] = []
    for step in journey.steps:
        first = step_lines(step)[0]
        place = "".join(span.text for span in first.spans[1:])
        body = facts_html(fact(name, value) for name, value in step_facts(step)) if step.facts else ""
        if step.stage == "tokenize":
            body += _pieces_html(journey.pieces, journey.lang, most)
        if step.stage == "dedup" and journey.favoured:
            body += facts_html(favoured_lines(journey))
        cards.append(card(step.stage, place, body))
    size = "" if journey.text is None else size_of(journey.text)
    cards.append(card("text", size, _shown_texts(journey, most)))
    return page(journey.id, f"{language_name(journey.lang)} in {lead}", "\n".join(cards))


def _shown_texts(journey: Journey, most: int | None) -> str:
    return texts_html(journey.text, journey.survivor, journey.survivor_id, journey.lang, most)
