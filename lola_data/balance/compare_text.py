"""Two corpora beside each other, for reading: a frame of :func:`lola_data.balance.compare.compare` in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lola_data.balance.compare import distances
from lola_data.balance.text import NAMED, shown_cell
from lola_data.text_tables import Column, as_it_is, readable_bytes, readable_count, readable_share

if TYPE_CHECKING:
    from lola_data.balance.compare import Distances


def comparison_cells(
    compared: pl.DataFrame, *, top: int | None = None
) -> tuple[list[str], list[bool], list[list[str]]]:
    """Headers, which columns are right-aligned, and the rows: the ``top`` largest groups, the rest counted, totals."""
    key = compared.columns[0]
    columns = [
        Column(key, key, as_it_is, 99, False),
        *([Column("name", "name", as_it_is, 88, False)] if key == "lang" else []),
        Column("documents", "documents", readable_count, 90),
        Column("documents there", "other_documents", readable_count, 89),
        Column("bytes", "bytes", readable_bytes, 80),
        Column("bytes there", "other_bytes", readable_bytes, 79),
        Column("share", "share", readable_share, 85),
        Column("share there", "other_share", readable_share, 84),
        Column("ratio", "ratio", lambda value: f"{value:.3g}", 83),
    ]
    columns = [column for column in columns if compared[column.key].null_count() < compared.height or not column.right]
    shown = compared if top is None else compared.head(top)
    sums = compared.select(pl.col("documents", "other_documents", "bytes", "other_bytes").sum()).row(0, named=True)
    total = {**sums, key: "total", "share": 1.0, "other_share": 1.0}
    records = [*shown.iter_rows(named=True), total]
    cells = [[shown_cell(record, column) for column in columns] for record in records]
    if shown.height < compared.height:
        cells.insert(-1, [f"... {compared.height - shown.height:,} more", *[""] * (len(columns) - 1)])
    return [column.header for column in columns], [column.right for column in columns], cells


def comparison_lines(compared: pl.DataFrame, unit: str) -> list[str]:
    """How far apart the two are, and what only one of them has."""
    found: Distances = distances(compared)
    lines = [
        f"distance, by {unit}: total variation {readable_share(found.total_variation)}, "
        f"Jensen-Shannon divergence {found.jensen_shannon:.3f} bits"
    ]
    for where, groups in (("here", found.only_here), ("there", found.only_there)):
        if groups:
            more = len(groups) - NAMED
            named = ", ".join(groups[:NAMED])
            lines.append(f"only {where}: {named}{f' and {more} more' if more > 0 else ''}")
    return lines
