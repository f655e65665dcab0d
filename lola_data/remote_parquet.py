"""Parquet files on an object store, read in few large pieces.

In: a :class:`~lola_data.object_store.RemoteFile`, and which row groups and columns will be read. Out: a file of Arrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from lola_data.object_store import RemoteFile


class RemoteParquet(pq.ParquetFile):
    """A Parquet file on a store: what is about to be read is fetched in few large pieces, of many row groups at once.

    Its footer takes one request. (Arrow by itself asks for the columns of one row group at a time, and of files with
    small row groups for many small pieces.)
    """

    def __init__(self, handle: RemoteFile) -> None:
        super().__init__(handle)
        self._remote = handle

    def foresee(self, row_groups: Iterable[int], columns: Iterable[str] | None = None) -> None:
        """Say that these row groups will be read one after the other, of these columns (None: of all)."""
        self._remote.foresee(self._stretches(row_groups, columns))

    def iter_batches(self, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        """As of Arrow."""
        groups = options.get("row_groups")
        stretches = self._stretches(range(self.num_row_groups) if groups is None else groups, options.get("columns"))
        if not self._remote.foresees(stretches):
            self._remote.foresee(stretches)
        return super().iter_batches(*args, **options)

    def _stretches(self, row_groups: Iterable[int], columns: Iterable[str] | None) -> list[tuple[int, int]]:
        wanted = None if columns is None else set(columns)
        found: list[tuple[int, int]] = []
        for index in row_groups:
            group = self.metadata.row_group(index)
            for number in range(group.num_columns):
                chunk = group.column(number)
                path = chunk.path_in_schema
                if wanted is None or path in wanted or path.partition(".")[0] in wanted:
                    found.append(chunk_span(chunk))
        return found


def foresee(file: pq.ParquetFile, row_groups: Iterable[int], columns: Iterable[str]) -> None:
    """Say which row groups of a file will be read one after the other, and what of them; nothing for a local file."""
    if isinstance(file, RemoteParquet):
        file.foresee(row_groups, columns)


def chunk_span(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """First byte of a column chunk in its file, and one past its last."""
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start, start + chunk.total_compressed_size
