"""A comparison as one HTML page that opens offline: tables and sample documents in, the page as text out."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from lola_data.diff.lines import KIND_NAMES, sample_facts
from lola_data.inspect.lines import fact, name_of
from lola_data.inspect.page import card, document_html, facts_html, page, pair_html, text_html
from lola_data.shown_text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.diff.tables import Table
    from lola_data.diff.trees import Sample
    from lola_data.inspect.documents import Seen


def diff_page(
    title: str,
    lead: str,
    tables: Sequence[Table],
    most: int | None,
    *,
    samples: Sequence[Sample] = (),
    removed: Sequence[Seen] = (),
) -> str:
    """The page: tables, then documents that differ, then removed ones."""
    parts = [card(table.title, "", table_html(table)) for table in tables]
    parts += [_sample_html(sample, most) for sample in samples]
    parts += [
        card(name_of(seen), f"removed for {plain(str(seen.row.values.get('reason')))}", document_html(seen, most))
        for seen in removed
    ]
    return page(title, lead, "\n".join(parts))


def table_html(table: Table) -> str:
    """A table that scrolls sideways where it is wider than the page."""
    head = "".join(
        f'<th scope="col"{_side(column, table)}>{escape(name)}</th>' for column, name in enumerate(table.headers)
    )
    body: list[str] = []
    for number, row in enumerate(table.rows):
        last = table.total and number == len(table.rows) - 1
        cells = "".join(
            f'<th scope="row">{escape(cell)}</th>' if column == 0 else f"<td{_side(column, table)}>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        body.append(f'<tr class="total">{cells}</tr>' if last else f"<tr>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )


def _side(column: int, table: Table) -> str:
    return "" if table.is_left(column) else ' class="n"'


def _sample_html(sample: Sample, most: int | None) -> str:
    row = sample.row
    body = facts_html(fact(label, value) for label, value in sample_facts(sample))
    if sample.kind == "changed" and sample.first is not None and sample.second is not None:
        body += pair_html(sample.first.text or b"", sample.second.text or b"", row.lang, ("A", "B"), most)
    else:
        body += text_html(row.text, row.lang, most)
    return card(plain(row.id or f"{row.path}, row {row.number:,}"), KIND_NAMES[sample.kind], body)
