"""Tables of the page: a :class:`Balance` in, heads and cells out, ready to be set, sorted and filtered.

A cell has the text that is read and, where it is a number, the value that is sorted by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data.balance.table import LEVELS, described
from lola_data.text_tables import readable_bytes, readable_share

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from lola_data.balance.evenness import Evenness
    from lola_data.balance.measure import Balance

PAIRS = 12
"""Pairs of confused languages listed."""


@dataclass(frozen=True, slots=True)
class Head:
    """Head of a column. ``order``: what the table is sorted by at first, ``ascending`` or ``descending``, or empty."""

    text: str
    numeric: bool
    order: str = ""


@dataclass(frozen=True, slots=True)
class TableCell:
    """Text, the ``code`` that goes with a language's name, the number to sort by ("" for none; None: text), and what
    is told ``about`` an estimate."""

    text: str
    value: str | None = None
    code: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """Cells, the first of which heads the row, and the text that a filter looks into."""

    cells: tuple[TableCell, ...]
    find: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Heads, rows, and a last row that stays where it is."""

    heads: tuple[Head, ...]
    rows: tuple[TableRow, ...]
    foot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """Where a column of a table of languages comes from; ``show``: how its numbers are written, None for text."""

    head: str
    key: str
    show: Callable[[Any], str] | None = None


def number(value: float) -> str:
    """A count, written out."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def language_table(
    frame: pl.DataFrame,
    columns: list[Column],
    *,
    by: str,
    total: dict[str, Any] | None = None,
    estimated: frozenset[str] = frozenset(),
) -> Table:
    """A table with a row a language.

    Args:
        frame: ``lang``, ``name``, ``script``, ``family`` and the columns named by ``columns``, in the order to show.
        columns: the first must be ``name``; those of numbers that are all 0 or unknown are left out.
        by: key of the column that the frame is sorted by, largest first.
        total: values of the last row by key.
        estimated: keys of columns that hold estimates, marked with ``~``; where ``<key>_low`` and ``<key>_high`` are
            the same the figure was counted.
    """
    used = [c for c in columns if c.show is None or any(value not in (None, 0) for value in frame[c.key])]
    heads = tuple(Head(c.head, c.show is not None, "descending" if c.key == by else "") for c in used)
    rows = tuple(_language_row(row, used, estimated) for row in frame.iter_rows(named=True))
    foot = ["total", *(_number_cell(total, c, c.show, estimated).text if c.show else "" for c in used[1:])]
    return Table(heads, rows, tuple(foot) if total else ())


def _language_row(row: dict[str, Any], columns: list[Column], estimated: frozenset[str]) -> TableRow:
    cells: list[TableCell] = []
    for column in columns:
        value = row[column.key]
        if column.show is not None:
            cells.append(_number_cell(row, column, column.show, estimated))
        else:
            code = row["lang"] if column.key == "name" and row["lang"] != value else ""
            cells.append(TableCell(str(value), None, code))
    return TableRow(tuple(cells), " ".join(str(row[key]) for key in ("name", "lang", "script", "family")).lower())


def _number_cell(
    row: dict[str, Any] | None, column: Column, show: Callable[[Any], str], estimated: frozenset[str]
) -> TableCell:
    value = (row or {}).get(column.key)
    if row is None or value is None:
        return TableCell("", "")
    exact = str(value) if isinstance(value, int) else f"{value:.10g}"
    low, high = row.get(f"{column.key}_low"), row.get(f"{column.key}_high")
    if column.key not in estimated or (low is not None and low == high):
        return TableCell(show(value), exact)
    about = "" if low is None or high is None else f"95% interval: {show(low)} to {show(high)}"
    return TableCell(f"~{show(value)}", exact, about=about)


def every_language(balance: Balance) -> Table:
    """All that is known of every language."""
    stages = [stage for stage in balance.stages if stage in balance.text_stages]
    several = len(balance.stages) > 1
    counts = [Column(s, f"{s}_documents", number) for s in stages] if several and stages else [
        Column("documents", "documents", number)
    ]  # fmt: skip
    columns = [
        Column("language", "name"),
        *counts,
        Column("bytes", "bytes", readable_bytes),
        Column("share", "share", readable_share),
        *([Column(f"share in {balance.stages[0]}", "first_share", readable_share)] if several else []),
        Column("planned share", "target_share", readable_share),
        Column("epochs", "epochs", ratio),
        Column("removed", "removed_share", readable_share),
        Column("relabelled in", "relabelled_in", number),
        Column("relabelled out", "relabelled_out", number),
        Column("other language", "elsewhere", number),
        Column("no text", "empty", number),
        Column("mean length", "mean_length", number),
        *(Column("median length" if level == 0.5 else f"{level:.0%} length", name, number) for name, level in LEVELS),
        Column("tokens", "tokens", number),
        Column("bytes a token", "bytes_per_token", ratio),
        Column("script", "script"),
        Column("family", "family"),
    ]
    return language_table(
        balance.table(), columns, by=balance.unit, total=balance.totals(), estimated=balance.estimated_columns()
    )


def evenness_table(balance: Balance) -> Table:
    """Evenness of every stage, and of the plan."""
    rows: list[tuple[str, Evenness]] = [(stage, balance.evenness(stage)) for stage in balance.stages]
    target = balance.target_evenness()
    if target is not None:
        rows.append(("plan", target))
    heads = ("effective", "entropy", "of 1", "Gini", "smallest 100", "smallest half")
    return Table(
        (Head("stage", False), *(Head(head, True) for head in heads)),
        tuple(TableRow((TableCell(name), *(TableCell(text, "") for text in _figures(even)))) for name, even in rows),
    )


def _figures(even: Evenness) -> tuple[str, ...]:
    return (
        f"{even.effective_languages:.1f}",
        f"{even.entropy:.3f}",
        f"{even.normalised_entropy:.3f}",
        f"{even.gini:.3f}",
        readable_share(even.smallest_100_share),
        readable_share(even.smallest_half_share),
    )


def pairs_table(balance: Balance) -> Table | None:
    """The pairs of claimed and detected language with most documents."""
    pairs = balance.confusions().head(PAIRS)
    if not pairs.height:
        return None
    names = dict(described(tuple(sorted({*pairs["claimed"], *pairs["detected"]}))).select("lang", "name").iter_rows())

    def cell(lang: str) -> TableCell:
        return TableCell(names[lang], None, "" if lang == names[lang] else lang)

    rows = tuple(
        TableRow(
            (cell(claimed), cell(detected), TableCell(number(documents), ""), TableCell(readable_share(share), ""))
        )
        for claimed, detected, documents, share in pairs.iter_rows()
    )
    heads = (Head("folder", False), Head("detected", False), Head("documents", True), Head("of the folder", True))
    return Table(heads, rows)
