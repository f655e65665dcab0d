"""Texts of chosen documents, read again by the phases of dedup that compare them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from lola_data import storage
from lola_data.schemas import IDENTIFIED
from lola_data.shards import Unit, open_parquet, read_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.components import Indices


class Texts(Protocol):
    """Where texts are read from."""

    def texts(self, positions: Indices) -> pa.Array:
        """Texts at ascending positions, large_string."""
        ...


class TextReader:
    """Texts of the rows of a language's units, by position among all rows, unit after unit."""

    def __init__(self, root: str, units: Sequence[Unit]) -> None:
        self._root = root
        # One piece per row group, so that no other group is decoded.
        self._pieces: list[Unit] = []
        for unit in units:
            with open_parquet(storage.join(root, unit.path)) as file:
                for group in range(unit.first_group, unit.last_group):
                    rows = file.metadata.row_group(group).num_rows
                    self._pieces.append(replace(unit, first_group=group, last_group=group + 1, rows=rows))
        self._starts = np.concatenate([[0], np.cumsum([piece.rows for piece in self._pieces])]).astype(np.int64)

    def texts(self, positions: Indices) -> pa.Array:
        """Texts at ascending positions, large_string."""
        chunks: list[pa.Array] = []
        piece_of = np.searchsorted(self._starts, positions, side="right") - 1
        for piece in np.unique(piece_of):
            wanted = positions[piece_of == piece] - self._starts[piece]
            passed = 0
            for batch in read_batches(self._root, self._pieces[piece], IDENTIFIED, columns=["text"]):
                inside = wanted[(wanted >= passed) & (wanted < passed + batch.num_rows)] - passed
                if inside.size:
                    chunks.append(batch["text"].take(pa.array(inside)).cast(pa.large_string()))
                passed += batch.num_rows
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
