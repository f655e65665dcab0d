"""Comparing results: rows of Parquet trees, language labels with scores, token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

LABELS_EQUAL = 0.9999
"""Share of documents that must have the same label."""
SCORES_WITHIN = 1e-3


def read_tree(root: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a tree's Parquet files, in the order of their paths."""
    files = sorted(root.rglob("*.parquet"), key=lambda path: path.relative_to(root).as_posix())
    return pa.concat_tables([pq.read_table(path, columns=list(columns) if columns else None) for path in files])


def rows_equal(one: pa.Table, other: pa.Table) -> tuple[bool, str]:
    """Whether two tables have the same rows in the same order, byte for byte, nulls as nulls."""
    if one.num_rows != other.num_rows:
        return False, f"{one.num_rows:,} and {other.num_rows:,} rows"
    for name in one.column_names:
        left, right = one[name].cast(pa.large_binary()), other[name].cast(pa.large_binary())
        same = pc.fill_null(pc.equal(left, right), False)
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        differing = one.num_rows - (pc.sum(pc.or_(same, both_null)).as_py() or 0)
        if differing:
            return False, f"{differing:,} of {one.num_rows:,} rows differ in `{name}`"
    return True, f"all {one.num_rows:,} rows byte-equal"


def labels_agree(ours: pa.Table, other: pa.Table) -> tuple[bool, str]:
    """Whether labels (``lang``) and scores (``score``) agree as promised; what they come to.

    Scores are compared where the labels are the same.
    """
    if ours.num_rows != other.num_rows or not ours.num_rows:
        return False, f"{ours.num_rows:,} and {other.num_rows:,} documents"
    same = pc.fill_null(pc.equal(ours["lang"], other["lang"]), False).to_numpy().astype(bool)
    gaps = np.abs(ours["score"].to_numpy() - other["score"].to_numpy())[same]
    share = float(same.mean())
    worst = float(gaps.max()) if gaps.size else 0.0
    text = f"same label on {share:.3%} of {same.size:,}, scores within {worst:.0e}"
    return share >= LABELS_EQUAL and worst <= SCORES_WITHIN, text


def ids_equal(
    ours: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]],
    other: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]],
) -> tuple[int, int]:
    """Documents whose token ids are the same in both, and all documents.

    Each side is the ids of all documents, one after the other, and the number of tokens of each.
    """
    (ids, lengths), (other_ids, other_lengths) = ours, other
    if lengths.size != other_lengths.size:
        return 0, max(lengths.size, other_lengths.size)
    if np.array_equal(ids, other_ids) and np.array_equal(lengths, other_lengths):
        return lengths.size, lengths.size
    starts, other_starts = (np.cumsum(sizes) - sizes for sizes in (lengths, other_lengths))
    equal = sum(
        size == other_size and np.array_equal(ids[start : start + size], other_ids[other_start : other_start + size])
        for start, size, other_start, other_size in zip(
            starts.tolist(), lengths.tolist(), other_starts.tolist(), other_lengths.tolist(), strict=True
        )
    )
    return int(equal), lengths.size
