"""A comparison as lines for a terminal or a file: tables and sample documents in, :class:`Line` out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from lola_data.inspect.lines import (
    BLANK,
    DIM,
    HEAD,
    Line,
    difference_lines,
    fact,
    heading,
    language_name,
    size_of,
    text_lines,
)
from lola_data.shown_text import Span, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lola_data.diff.tables import Table
    from lola_data.diff.trees import Sample

_GAP = "  "
KIND_NAMES = {"went": "only in A", "came": "only in B", "changed": "changed", "moved": "moved"}


def table_lines(table: Table) -> list[Line]:
    """A table, its columns aligned in cells."""
    found = [heading(table.title)]
    if table.rows:
        cells = [table.headers, *table.rows]
        widths = [max(cell_len(row[column]) for row in cells) for column in range(len(table.headers))]
        for number, row in enumerate(cells):
            kind = DIM if number == 0 else HEAD if table.total and number == len(cells) - 1 else ""
            found.append(Line((Span(_row(row, widths, table), kind),), 2))
    if table.note:
        found.append(Line((Span(table.note, DIM),), 2))
    return [*found, BLANK]


def _row(row: Iterable[str], widths: list[int], table: Table) -> str:
    padded: list[str] = []
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        spare = " " * (width - cell_len(cell))
        padded.append(cell + spare if table.is_left(column) else spare + cell)
    return _GAP.join(padded).rstrip()


def sample_lines(sample: Sample, most: int | None, *, colour: bool) -> list[Line]:
    """A document that differs: where it lies, what became of it, its text or what changed in it."""
    row = sample.row
    name = plain(row.id or f"{row.path}, row {row.number:,}")
    found = [heading(name, KIND_NAMES[sample.kind])]
    found += [fact(label, value) for label, value in sample_facts(sample)]
    if sample.kind == "changed" and sample.first is not None and sample.second is not None:
        merged, alike = difference_lines(sample.first.text or b"", sample.second.text or b"", most, colour=colour)
        found.append(Line((Span(f"{alike:.1%} of the words alike; A against B", DIM),), 2))
        return [*found, *merged]
    return [*found, *text_lines(row.text, most)]


def sample_facts(sample: Sample) -> list[tuple[str, str]]:
    """What is known of a sample document beside its text, as names and values for people."""
    row = sample.row
    found = [("language", language_name(row.lang))]
    if sample.kind == "moved" and sample.first is not None and sample.second is not None:
        found = [("language", f"{language_name(sample.first.lang)} in A, {language_name(sample.second.lang)} in B")]
    if sample.why:
        found.append(("other run", plain(sample.why)))
    for label in ("source", "url"):
        if row.values.get(label):
            found.append((label, plain(str(row.values[label]))))
    if row.text is not None:
        found.append(("size", size_of(row.text)))
    return found
