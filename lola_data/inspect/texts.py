"""Texts by document id, out of the earliest tree of a run that has them: removed rows keep none of their own.

An id names the raw shard and row, so the raw tree answers at once; where it is not at hand, or no longer what the run
read, the identified tree is searched for the id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lola_data.inspect.places import tree_of
from lola_data.inspect.rows import find_rows, raw_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lola_data.inspect.rows import Row
    from lola_data.layout import Layout


def texts_of(layout: Layout, ids: Mapping[str, int | None]) -> dict[str, Row]:
    """Rows with the texts of documents.

    Args:
        layout: of the run; ``trees["download"]`` where its raw shards lie elsewhere.
        ids: id -> bytes that its text must have, or None where that is not known.

    Returns:
        id -> row. Left out is what no tree at hand has with that many bytes.
    """
    found = {name: row for name, row in raw_rows(layout.tree("download"), ids).items() if _fits(row, ids[name])}
    left = [name for name in ids if name not in found]
    identified = tree_of(layout, "identify") if left else None
    if identified is not None:
        rows = find_rows(identified.shards, left, of_a_run=True)
        found |= {name: row for name, row in rows.items() if _fits(row, ids[name])}
    return found


def _fits(row: Row, size: int | None) -> bool:
    return size is None or len(row.text or b"") == size
