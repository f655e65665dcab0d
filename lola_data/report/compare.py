"""Two corpora side by side: two :class:`Balance` in; a few figures, a chart and a table of every language out.

What is compared, and how far apart they are, is :mod:`lola_data.balance.compare`'s; here it is made ready to be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lola_data.balance.compare import compare, distances, shared_unit
from lola_data.balance.evenness import evenness
from lola_data.report.charts import Block, Chart, Mark, Row, View, largest
from lola_data.report.scale import LogScale, Tick
from lola_data.report.tables import Column, Head, Table, TableCell, TableRow, language_table, number, ratio
from lola_data.report.text import short_count
from lola_data.text_tables import readable_bytes, readable_share

if TYPE_CHECKING:
    import polars as pl

    from lola_data.balance.measure import Balance

NAMES = ("this corpus", "the other")
WIDEST = 1000.0
"""Factors beyond this are drawn as this."""
_ROOM = 15.0
"""Per cent of the plot between two ticks, at least: labels would touch on a phone."""
_TICKS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 300, 1000)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``names`` of the two; ``common``: share that both have alike, the sum of the smaller of each language's two
    shares; by name, the languages that only that one has; a table of figures, a chart, and a table of languages."""

    names: tuple[str, str]
    unit: str
    common: float
    only: tuple[tuple[str, tuple[str, ...]], ...]
    figures: Table
    chart: Chart | None
    table: Table


def comparison(balance: Balance, other: Balance, *, names: tuple[str, str] = NAMES, top: int) -> Comparison:
    """Compare ``balance`` with ``other``.

    Args:
        balance: the corpus that the page is about.
        other: the one it is held against.
        names: what they are called.
        top: languages in the chart.
    """
    unit = shared_unit(balance, other)
    frame = compare(balance, other)
    apart = distances(frame)
    known = dict(frame.select("lang", "name").iter_rows())
    return Comparison(
        names,
        unit,
        sum(map(min, frame["share"], frame["other_share"])),
        tuple(
            (name, tuple(known[lang] for lang in langs))
            for name, langs in zip(names, (apart.only_here, apart.only_there), strict=True)
        ),
        _figures(frame, unit, names),
        _chart(frame, unit, names, top),
        _table(frame, unit, names),
    )


def _figures(frame: pl.DataFrame, unit: str, names: tuple[str, str]) -> Table:
    written = readable_bytes if unit == "bytes" else short_count

    def column(prefix: str) -> list[str]:
        sizes, documents = frame[f"{prefix}{unit}"].fill_null(0).to_list(), frame[f"{prefix}documents"].to_list()
        even = evenness(sizes)
        return [
            number(sum(count > 0 for count in documents)),
            number(sum(documents)),
            *([written(sum(sizes))] if unit != "documents" else []),
            f"{even.effective_languages:.1f}",
            f"{even.gini:.3f}",
            readable_share(even.smallest_half_share),
        ]

    sized = [] if unit == "documents" else [unit]
    heads = ("languages", "documents", *sized, "effective languages", "Gini", "smallest half")
    rows = (TableRow((TableCell(name), *(TableCell(text, "") for text in column(prefix)))) for name, prefix in
            zip(names, ("", "other_"), strict=True))  # fmt: skip
    return Table((Head("corpus", False), *(Head(head, True) for head in heads)), tuple(rows))


def factor_text(factor: float) -> str:
    """A factor as more or less: ×2, ÷4, same."""
    if math.isclose(factor, 1.0, rel_tol=5e-3):
        return "same"
    sign, size = ("×", factor) if factor > 1 else ("÷", 1 / factor)
    return f"{sign}{size:,.0f}" if size >= 9.95 else f"{sign}{size:.1f}" if size >= 1.095 else f"{sign}{size:.2f}"


def _chart(frame: pl.DataFrame, unit: str, names: tuple[str, str], top: int) -> Chart | None:
    shown = frame.head(top)
    if not shown.height:
        return None
    factors = [min(WIDEST, max(1 / WIDEST, factor)) for factor in shown["ratio"] if factor]
    widest = max([1.1, *(max(factor, 1 / factor) for factor in factors)])
    scale = LogScale(1 / widest, widest)
    rows: list[Row] = []
    for row in shown.iter_rows(named=True):
        factor: float | None = row["ratio"] or None  # None: only one of them has it
        more = row["share"] > row["other_share"]
        edge = (100.0 if more else 0.0) if factor is None else scale.at(factor)
        width = round(abs(edge - 50.0), 2)
        mark = Mark("part", "more" if more else "less", min(50.0, edge), width)
        text = f"only {'first' if more else 'second'}" if factor is None else factor_text(factor)
        aside = f"{readable_share(row['share'])} against {readable_share(row['other_share'])}"
        rows.append(Row(row["name"], row["lang"], (mark,) if width else (), text, aside))
    drawn = largest(shown.height, frame.height)
    return Chart(
        "factors",
        f"Larger or smaller share than in {names[1]}",
        f"{drawn} of {names[0]}: by what factor its share of the {unit} is larger (right) or smaller (left) than in "
        f"{names[1]}.",
        (View("factor", _ticks(scale), (Block(tuple(rows)),)),),
        ((f"larger share in {names[0]}", "more", "bar"), (f"larger share in {names[1]}", "less", "bar")),
    )


def _ticks(scale: LogScale) -> tuple[Tick, ...]:
    """The middle, and on both sides the roundest factor near the edge and, where it has room, the one half-way."""
    within = [factor for factor in _TICKS if factor <= scale.high]
    half = min(within, key=lambda factor: abs(scale.at(factor) - 75.0))
    apart = scale.at(within[-1]) - scale.at(half) >= _ROOM and scale.at(half) - 50.0 >= _ROOM
    found = [Tick(50.0, "same")]
    for factor in [half, within[-1]] if apart else [within[-1]]:
        found += [Tick(scale.at(factor), f"×{factor:g}"), Tick(scale.at(1 / factor), f"÷{factor:g}")]
    return tuple(sorted(found, key=lambda tick: tick.at))


def _table(frame: pl.DataFrame, unit: str, names: tuple[str, str]) -> Table:
    columns = [Column("language", "name")]
    for name, prefix in zip(names, ("", "other_"), strict=True):
        columns += [
            Column(f"{name}: documents", f"{prefix}documents", number),
            *([Column(f"{name}: bytes", f"{prefix}bytes", readable_bytes)] if unit == "bytes" else []),
            *([Column(f"{name}: tokens", f"{prefix}tokens", number)] if unit != "documents" else []),
            Column(f"{name}: share", f"{prefix}share", readable_share),
        ]
    columns += [Column("factor", "ratio", ratio), Column("script", "script"), Column("family", "family")]
    return language_table(frame, columns, by="share")
