"""Signatures of documents, between the phases of dedup: their files, and a language's columns in order of id."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.document_ids import split_ids
from lola_data.errors import ShardError, StageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lola_data.components import Indices, Keys
    from lola_data.layout import Layout

    ReadColumns = Callable[[list[str]], pa.Table]

HELD_BYTES = 1 << 28
"""Bound on the columns of a language's signatures that are held beside the one in use."""


def signature_schema(bands: int) -> pa.Schema:
    """Columns of a signatures file: one row per document, in the order of its unit."""
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("digest_0", pa.uint64()),
            pa.field("digest_1", pa.uint64()),
            pa.field("url_0", pa.uint64()),
            pa.field("url_1", pa.uint64()),
            pa.field("bytes", pa.int64()),
            pa.field("lang_score", pa.float32()),
            pa.field("shingles", pa.int64()),
            *(pa.field(f"band_{band}", pa.uint64()) for band in range(bands)),
        ]
    )


def signatures_path(layout: Layout, lang: str, name: str) -> str:
    """Signatures file of a unit, in Arrow's own format: hashes do not compress, and columns are read where they lie."""
    return layout.scratch("dedup", "signatures", lang, f"{name}.arrow")


@contextmanager
def signature_writer(path: str, bands: int) -> Iterator[pa.RecordBatchFileWriter]:
    """A writer of batches of signatures; the file appears, whole, when the block ends without an error."""
    with (
        storage.atomic_output(path, durable=False) as handle,
        pa.ipc.new_file(handle, signature_schema(bands)) as writer,
    ):
        yield writer


def read_signatures(path: str, columns: list[str]) -> pa.Table:
    """Columns of a signatures file.

    Raises:
        ShardError: the file is missing or damaged.
    """
    try:
        with pa.memory_map(path) if not storage.is_remote(path) else storage.open_input(path) as handle:
            names = pa.ipc.open_file(handle).schema.names
            options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
            return pa.ipc.open_file(handle, options=options).read_all().select(columns)
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path}: missing or damaged ({error}); run the stage with `--redo`") from error


class SignatureColumns:
    """The signatures of a language's units, put in order of id; numbers are read a few columns at a time.

    ``order`` (N,) int64: position among all rows, unit after unit, of the document that comes n-th by id (the shard's
    name, then the row as a number).

    Args:
        units: for each unit, from names of columns to the table of them.
        names: of the columns of :func:`signature_schema`.
        held_bytes: bound on the columns held beside the one in use.

    Raises:
        StageError: two rows have one id.
    """

    def __init__(self, units: Sequence[ReadColumns], names: Sequence[str], *, held_bytes: int = HELD_BYTES) -> None:
        self._units = units
        self._numeric = [name for name in names if name != "id"]
        self._held: dict[str, pa.ChunkedArray] = {}
        # Kept while they are few: a small language is read in one go, a large one a column at a time.
        self._held_ids: dict[int, pa.Array] = {}
        self._held_id_bytes = held_bytes
        self.order = self._order()
        self._together = max(1, held_bytes // (8 * max(1, self.order.size)))

    def ids(self, unit: int) -> pa.Array:
        """The ids of a unit, in the order of its rows."""
        if unit in self._held_ids:
            return self._held_ids[unit]
        ids = self._units[unit](["id"])["id"].combine_chunks()
        self._held_id_bytes -= ids.nbytes
        if self._held_id_bytes >= 0:
            self._held_ids[unit] = ids
        return ids

    def column(self, name: str) -> npt.NDArray[Any]:
        """A numeric column over all units, in order of id; null reads as 0."""
        column = self._read(name)
        return (pc.fill_null(column, 0) if column.null_count else column).to_numpy()[self.order]

    def pair(self, name: str) -> Keys:
        """A 128-bit hash as (N, 2) uint64."""
        return np.stack([self.column(f"{name}_{half}") for half in (0, 1)], axis=1)

    def present(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a column is not null, in order of id."""
        return self._read(name).is_valid().to_numpy()[self.order]

    def _read(self, name: str) -> pa.ChunkedArray:
        if name not in self._held:
            first = self._numeric.index(name) // self._together * self._together
            names = self._numeric[first : first + self._together]
            self._held.clear()
            table = pa.concat_tables([read(names) for read in self._units])
            self._held = {one: table[one] for one in names}
        return self._held[name]

    def _order(self) -> Indices:
        numbers: dict[bytes, int] = {}
        codes: list[Indices] = []
        rows: list[Indices] = []
        for unit in range(len(self._units)):
            names, name_of, row = split_ids(self.ids(unit))
            known = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
            codes.append(known[name_of])
            rows.append(row)
        by_name = sorted(numbers)
        rank = np.empty(len(numbers), dtype=np.int64)
        rank[[numbers[name] for name in by_name]] = np.arange(len(numbers))
        shard, row = rank[np.concatenate(codes)], np.concatenate(rows)
        order = np.lexsort((row, shard))
        repeated = np.flatnonzero((np.diff(shard[order]) == 0) & (np.diff(row[order]) == 0))
        if repeated.size:
            name = by_name[shard[order[repeated[0]]]].decode(errors="replace")
            number = row[order[repeated[0]]]
            raise StageError(
                f"dedup: the id `{name}{'' if number < 0 else f'/{number}'}` is there twice; ids must be unique in a "
                f"language. Run the stage `identify` on the raw shards again"
            )
        return order
