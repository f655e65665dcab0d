"""Shards of any shape made into raw ones: other column names, further columns, JSON lines, mC4's and OSCAR's JSON.

In: a local file as it was published. Out: nothing to do (it is a raw shard already), or record batches with the columns
``text, timestamp, url, source`` and, if they are to be kept, the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lola_data.columns import refuse_doubled
from lola_data.errors import ShardError
from lola_data.json_lines import REST, first_object, read_json_lines
from lola_data.schemas import RAW
from lola_data.shards import Unit, open_parquet, read_batches
from pipelines.shard_pattern import JSON_LINES, PARQUET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow.parquet as pq

    from lola_data.sections import DownloadSection

KNOWN = (
    # CulturaX, mC4 (no source), and whatever else has these names.
    ("text", {name: name for name in RAW.names}),
    # OSCAR 22.01 and 23.01.
    (
        "warc_headers",
        {
            "text": "content",
            "timestamp": "warc_headers.warc-date",
            "url": "warc_headers.warc-target-uri",
            "source": "source",
        },
    ),
)
"""A field that tells a shape, and where the columns of a raw shard lie in it."""
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Shape:
    """How published shards become raw ones.

    Args:
        columns: column of a raw shard -> the published column or field, dots for what lies inside. Those not named are
            found by the known shapes.
        drop_extra: leave out columns that a raw shard does not need.
        source_name: value of ``source`` where the shard has none.
    """

    columns: dict[str, str] = field(default_factory=dict)
    drop_extra: bool = False
    source_name: str | None = None

    @classmethod
    def of(cls, section: DownloadSection) -> Shape:
        """The shape that a recipe names."""
        return cls(dict(section.columns), section.extra_columns == "drop", section.source_name)

    def as_published(self, path: str) -> bool:
        """Whether a file is taken in as it is, byte for byte."""
        return path.endswith(PARQUET) and not (self.columns or self.drop_extra or self.source_name)

    def schema(self, arrived: Path, shown: str) -> pa.Schema:
        """Columns of the raw shard that is made of a file: the four, then those that are kept."""
        if arrived.name.endswith(JSON_LINES):
            return RAW if self.drop_extra else pa.schema([*RAW, pa.field(REST, pa.string())])
        if self.drop_extra:
            return RAW
        with _opened(arrived, shown) as file:
            return self._schema_of(file.schema_arrow, shown)

    def _schema_of(self, found: pa.Schema, shown: str) -> pa.Schema:
        if self.drop_extra:
            return RAW
        # What is read from inside a column leaves the rest of it to be kept.
        used = {place for place in self._places(found.names, shown).values() if place in found.names}
        others = [one for one in found if one.name not in used and one.name not in RAW.names]
        refuse_doubled(shown, [one.name for one in others], [one.name for one in others])
        return pa.schema([*RAW, *(one.remove_metadata() for one in others)])

    def batches(self, arrived: Path, shown: str) -> Iterator[pa.RecordBatch]:
        """The rows of a raw shard made of a file, in its order, in :meth:`schema`.

        Args:
            arrived: the local file, under a name with its published ending.
            shown: where it came from, for messages.

        Raises:
            ShardError: damaged, cut off, or of a shape that is not known; file, line or column are named.
        """
        schema = self.schema(arrived, shown)
        rows = self._of_json(arrived, shown) if arrived.name.endswith(JSON_LINES) else self._of_parquet(arrived, shown)
        texts = found = 0
        for batch in rows:
            texts += batch.num_rows
            found += batch.num_rows - batch.column("text").null_count
            yield self._filled(batch, schema)
        if texts and not found:
            raise ShardError(f"{shown}: no row has a text; say in `columns` where it lies, or leave the file out")

    def _places(self, names: list[str], shown: str) -> dict[str, str]:
        known = next((places for sign, places in KNOWN if sign in names), {})
        places = {**known, **self.columns}
        refuse_doubled(shown, names, [_column(place, names) for place in places.values()])
        for column, place in places.items():
            wanted = column == "text" or column in self.columns
            if wanted and _column(place, names) not in names:
                raise ShardError(
                    f"{shown}: no column or field `{place}` for `{column}`; it has {', '.join(names) or 'none'}. Mend "
                    f"`columns`, or leave the file out"
                )
        if "text" not in places:
            raise ShardError(
                f"{shown}: no column or field `text`; it has {', '.join(names) or 'none'}. Say in `columns` which one "
                f"is the text (text: {names[0] if names else 'content'}), or leave the file out"
            )
        return {column: place for column, place in places.items() if _column(place, names) in names}

    def _of_json(self, arrived: Path, shown: str) -> Iterator[pa.RecordBatch]:
        first = first_object(arrived, shown=shown)
        if not first:
            return iter(())
        # Optional fields may be missing from the first object and be there in others.
        names = [*first, *(name for name in RAW.names if name != "text" and name not in first)]
        return read_json_lines(arrived, self._places(names, shown), shown=shown, rest=not self.drop_extra)

    def _of_parquet(self, arrived: Path, shown: str) -> Iterator[pa.RecordBatch]:
        kept = [name for name in self.schema(arrived, shown).names if name not in RAW.names]
        with _opened(arrived, shown) as file:
            yield from self._mapped(file, shown, kept, list(range(file.metadata.num_row_groups)))

    def rows_of(self, file: pq.ParquetFile, shown: str, *, row_groups: list[int]) -> Iterator[pa.RecordBatch]:
        """Rows of some row groups of an open Parquet file, as :meth:`batches` gives them."""
        schema = self._schema_of(file.schema_arrow, shown)
        kept = [name for name in schema.names if name not in RAW.names]
        for batch in self._mapped(file, shown, kept, row_groups):
            yield self._filled(batch, schema)

    def _mapped(
        self, file: pq.ParquetFile, shown: str, kept: list[str], row_groups: list[int]
    ) -> Iterator[pa.RecordBatch]:
        names = file.schema_arrow.names
        places = self._places(names, shown)
        wanted = {_column(place, names) for place in places.values()} | set(kept)
        read = [one for one in names if one in wanted]
        try:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=row_groups, columns=read):
                columns = {column: _string(batch, place, column, shown) for column, place in places.items()}
                columns |= {name: batch.column(name) for name in kept}
                yield pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{shown}: cannot be read: {str(error).splitlines()[0]}. Fetch it again") from error

    def _filled(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        arrays: list[pa.Array] = []
        for one in schema:
            array = columns.get(one.name)
            if array is None:
                array = pa.nulls(batch.num_rows, one.type)
            if one.name == "source" and self.source_name is not None:
                array = pc.fill_null(array, self.source_name)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def check_parquet(arrived: Path, shown: str) -> int:
    """Rows of a Parquet file with a usable ``text`` column, every row group of which can be decoded.

    Args:
        arrived: the local file.
        shown: where it came from, for messages.

    Raises:
        ShardError: cut off, damaged (the row group and its bytes are named), not Parquet, or of a foreign schema.
    """
    try:
        with open_parquet(str(arrived)) as file:
            groups, rows = file.metadata.num_row_groups, file.metadata.num_rows
        whole = Unit(arrived.parent.name, arrived.name, arrived.stem, 0, groups, 0, rows, 0)
        for _ in read_batches(str(arrived.parent), whole, RAW):
            pass
    except ShardError as error:
        raise ShardError(str(error).replace(str(arrived), shown)) from error
    return rows


class _opened:
    """A Parquet file, with the place it came from in its errors."""

    def __init__(self, arrived: Path, shown: str) -> None:
        self._arrived, self._shown = str(arrived), shown
        self._manager: Any = open_parquet(self._arrived)

    def __enter__(self) -> Any:
        try:
            return self._manager.__enter__()
        except ShardError as error:
            raise ShardError(str(error).replace(self._arrived, self._shown)) from error

    def __exit__(self, *error: Any) -> Any:
        return self._manager.__exit__(*error)


def _column(place: str, names: Sequence[str]) -> str:
    """The column in which a place lies: itself, if one is called so, else what stands before the first dot."""
    return place if place in names else place.partition(".")[0]


def _string(batch: pa.RecordBatch, place: str, column: str, shown: str) -> pa.Array:
    """A column, or what lies inside one, as strings."""
    first = _column(place, batch.schema.names)
    inner = place.removeprefix(first).split(".")[1:]
    array = batch.column(first)
    for name in inner:
        if not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
            raise ShardError(f"{shown}: no `{place}` for `{column}`: `{first}` is {array.type}. Mend `columns`")
        array = pc.struct_field(array, name)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return array.cast(pa.string())
    if column == "text" or pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ShardError(f"{shown}: `{place}` is {kind}, not string; name another column for `{column}` in `columns`")
    if pa.types.is_timestamp(kind):
        # As CulturaX writes them, to the second: 2019-04-21T06:14:44Z.
        zone = None if kind.tz is None else "UTC"
        seconds = array.cast(pa.timestamp("s", zone), safe=False)
        return pc.strftime(seconds, "%Y-%m-%dT%H:%M:%SZ" if zone else "%Y-%m-%dT%H:%M:%S")
    return array.cast(pa.string())
