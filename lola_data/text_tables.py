"""Tables and figures for reading in a terminal or a file: columns and cells in, aligned text out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from lola_data.shown_text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Cells = tuple[list[str], list[bool], list[list[str]]]
"""Headers, which columns are right-aligned, and the rows, totals last."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_GAP = "  "


def readable_bytes(size: float) -> str:
    """Size in decimal units with three digits: 999 B, 12.3 kB, 4.00 GB."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if unit == 0:
        return f"{size:.0f} B"
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {_UNITS[unit]}"


def readable_share(share: float) -> str:
    """Per cent with enough digits to tell small shares apart, but never "0" for something: 12.3%, 0.04%, <0.01%."""
    percent = 100 * share
    if percent == 0 or percent >= 9.95:
        return f"{percent:.1f}%"
    return f"{percent:.2f}%" if percent >= 0.01 else "<0.01%"


@dataclass(frozen=True)
class Column:
    """A column of the table: where its values come from, and how soon it gives way on a narrow terminal."""

    header: str
    key: str
    show: Callable[[Any], str]
    keep: int
    """Columns with the smallest number go first."""
    right: bool = True


def readable_count(value: float) -> str:
    """A whole number with commas."""
    return f"{value:,.0f}"


def as_it_is(value: str) -> str:
    """The text, with marks for what would steer a terminal: names come from the web.

    >>> as_it_is("a" + chr(27) + "[2J")
    'a‹ESC›[2J'
    """
    return value if value.isprintable() else plain(value)


def fitted(columns: Sequence[Column], cells: list[list[str]], width: int | None) -> Cells:
    """The table, without as many of the less important columns as it takes to fit in ``width`` (in cells)."""
    left, rows = list(columns), [list(row) for row in cells]

    def needed() -> int:
        widths = [max(cell_len(c.header), *(cell_len(row[i]) for row in rows)) for i, c in enumerate(left)]
        return sum(widths) + len(_GAP) * (len(left) - 1)

    while width is not None and len(left) > 2 and needed() > width:
        gone = min(range(len(left)), key=lambda i: left[i].keep)
        del left[gone]
        for row in rows:
            del row[gone]
    return [column.header for column in left], [column.right for column in left], rows


def plain_table(headers: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, a rule under the header and one above the last row; no line is wrapped."""
    widths = [max(cell_len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    # A long label in the first column ("... 12 more") may run into the empty cells beside it.
    widths[0] = max(cell_len(row[0]) for row in (headers, *rows) if not row[0].startswith("..."))

    def line(row: Sequence[str]) -> str:
        spare = [" " * max(0, width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [s + cell if r else cell + s for cell, s, r in zip(row, spare, right, strict=True)]
        return _GAP.join(padded).rstrip()

    rule = _GAP.join("-" * width for width in widths)
    return "\n".join([line(headers), rule, *map(line, rows[:-1]), rule, line(rows[-1])])
