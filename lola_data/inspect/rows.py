"""Single rows of Parquet shards: places in, rows out, with no row group read that holds none of them.

A row is found by its number, from the row counts in a file's footer, or by its ``id``, from the least and the greatest
id of each row group that the footer gives. Columns are matched by name as everywhere (:mod:`lola_data.shards`);
``text`` comes as bytes, for what is looked at need not be valid UTF-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.schemas import DEDUPED, REMOVED
from lola_data.shards import Unit, open_parquet, read_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow.parquet as pq

    from lola_data.balance.trees import Shard

TOKEN_IDS = pa.schema([pa.field("id", pa.string()), pa.field("tokens", pa.int32())])
"""Columns of the ``.ids.parquet`` file beside a token shard."""
_NUMBERED = re.compile(r"(?:-\d{5})*")


@dataclass(frozen=True)
class Row:
    """One row of a shard.

    Attributes:
        path: of the file, or its URL.
        lang: folder of the file.
        number: of the row in the file, from 0.
        group: row group it lies in.
        text: UTF-8 as it is in the file, perhaps not valid; None where the tree has no text or the value is null.
        values: the other known columns of the file by name; strings that are not valid UTF-8 with escapes.
    """

    path: str
    lang: str
    number: int
    group: int
    text: bytes | None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str | None:
        """The document's id, where the file has one."""
        return self.values.get("id")


def row_counts(path: str) -> list[int]:
    """Rows of each row group of a shard."""
    with open_parquet(path) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]


def columns_of(path: str) -> list[str]:
    """Names of the columns of a shard."""
    with open_parquet(path) as file:
        return list(file.schema_arrow.names)


def _known_columns(found: pa.Schema) -> pa.Schema:
    """The columns of a file that are ours. Another column may have such a name in a tree that others made."""
    schema = DEDUPED if "text" in found.names else TOKEN_IDS if "tokens" in found.names else REMOVED
    return pa.schema([field for field in schema if found.names.count(field.name) == 1 and _fits(found, field)])


def _fits(found: pa.Schema, field: pa.Field) -> bool:
    kind = found.field(field.name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or field.name == "text":
        return True
    if pa.types.is_string(field.type):
        return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.types.is_floating(kind) if pa.types.is_floating(field.type) else pa.types.is_integer(kind)


def read_rows(path: str, lang: str, numbers: Iterable[int]) -> dict[int, Row]:
    """Rows of a shard by their numbers; those it does not have are left out. Only their row groups are read.

    Raises:
        ShardError: the shard, or one of these row groups, cannot be read.
    """
    left = sorted(set(numbers))
    found: dict[int, Row] = {}
    with open_parquet(path) as file:
        schema = _known_columns(file.schema_arrow)
        if not schema.names:
            names = ", ".join(file.schema_arrow.names) or "none"
            raise ShardError(f"{path}: no column that is known here, such as `text`; its columns are {names}")
        first = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = [number for number in left if first <= number < first + rows]
            if here:
                for number, values, text in _rows_of_group(path, lang, group, first, here, schema):
                    found[number] = Row(path, lang, number, group, text, values)
            first += rows
    return found


def _rows_of_group(
    path: str, lang: str, group: int, first: int, numbers: list[int], schema: pa.Schema
) -> Iterator[tuple[int, dict[str, Any], bytes | None]]:
    last = numbers[-1]
    for batch in read_group(path, lang, group, schema):
        here = [number - first for number in numbers if first <= number < first + batch.num_rows]
        if here:
            chosen = batch.take(pa.array(here, pa.int64()))
            columns = {name: _values(chosen[name]) for name in chosen.schema.names}
            for place, offset in enumerate(here):
                values = {name: column[place] for name, column in columns.items()}
                yield (
                    first + offset,
                    {name: _shown(value) for name, value in values.items() if name != "text"},
                    (values.get("text")),
                )
        first += batch.num_rows
        if first > last:
            return


def read_group(path: str, lang: str, group: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches of one row group, with exactly the columns of ``schema``."""
    root, slash, name = path.rpartition("/")
    return read_batches(root or slash or ".", Unit(lang, name, name, group, group + 1, 0, 0, 0), schema)


def read_shard(path: str, lang: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches of a whole shard, with exactly the columns of ``schema``."""
    root, slash, name = path.rpartition("/")
    whole = Unit(lang, name, name, 0, len(row_counts(path)), 0, 0, 0)
    yield from read_batches(root or slash or ".", whole, schema)


def _values(column: pa.Array) -> list[Any]:
    # As bytes: to make Python strings of invalid UTF-8 would raise.
    return (column.cast(pa.large_binary()) if pa.types.is_string(column.type) else column).to_pylist()


def _shown(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def find_ids(path: str, lang: str, ids: Iterable[str]) -> dict[str, int]:
    """Number of the row of each of ``ids`` that a shard has. Of the row groups that cannot hold one, by the least and
    greatest id that the footer gives, nothing is read; of the others the ids only."""
    wanted = sorted(set(ids))
    found: dict[str, int] = {}
    with open_parquet(path) as file:
        if "id" not in file.schema_arrow.names:
            return found
        described = file.metadata.schema
        column = next((at for at in range(len(described)) if described.column(at).path == "id"), -1)
        first = 0
        for group in range(file.metadata.num_row_groups):
            metadata = file.metadata.row_group(group)
            left = [name for name in wanted if name not in found and _may_hold(metadata, column, name)]
            if left:
                at = first
                values = pa.array(left, pa.string())
                for batch in read_group(path, lang, group, pa.schema([DEDUPED.field("id")])):
                    places = pc.index_in(batch["id"], value_set=values)
                    for place in pc.indices_nonzero(places.is_valid()).to_pylist():
                        found.setdefault(left[places[place].as_py()], at + place)
                    at += batch.num_rows
            first += metadata.num_rows
            if len(found) == len(wanted):
                break
    return found


def _may_hold(group: pq.RowGroupMetaData, column: int, value: str) -> bool:
    if not group.num_rows:
        return False
    statistics = group.column(column).statistics if column >= 0 else None
    if statistics is None or not statistics.has_min_max:
        return True
    least, greatest = _bytes(statistics.min), _bytes(statistics.max)
    return least <= value.encode() <= greatest


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass(frozen=True, slots=True)
class DocumentId:
    """An id ``<lang>/<shard>/<row>`` taken apart: folder and file name (without suffix) of the raw shard, and row."""

    lang: str
    shard: str
    row: int

    def __str__(self) -> str:
        return f"{self.lang}/{self.shard}/{self.row}"


def parse_id(text: str) -> DocumentId | None:
    """The parts of an id, or None if it is not of that form.

    >>> parse_id("yo/yo_part_00000/12")
    DocumentId(lang='yo', shard='yo_part_00000', row=12)
    """
    parts = text.split("/")
    if len(parts) != 3 or not all(parts) or not re.fullmatch(r"0|[1-9][0-9]{0,17}", parts[2]):
        return None
    return DocumentId(parts[0], parts[1], int(parts[2]))


def may_hold_rows_of(shard: Shard, wanted: DocumentId) -> bool:
    """Whether the file ``shard`` of a later tree has the name of one made from the raw shard of ``wanted``.

    Stages add ``-00000`` where they part a shard, and ``.from-<lang>`` where a row moves to another folder."""
    stem = shard.path.rpartition("/")[2].removesuffix(".parquet")
    moved = f".from-{wanted.lang}"
    if not stem.startswith(wanted.shard):
        return False
    rest = stem[len(wanted.shard) :]
    before, separator, after = rest.partition(moved)
    if not separator:
        return shard.lang == wanted.lang and _NUMBERED.fullmatch(rest) is not None
    return _NUMBERED.fullmatch(before) is not None and _NUMBERED.fullmatch(after) is not None


def find_rows(shards: Sequence[Shard], ids: Iterable[str], *, of_a_run: bool) -> dict[str, Row]:
    """Rows of a tree by id; ids that it does not have are left out.

    Args:
        shards: of the tree.
        ids: of documents.
        of_a_run: the tree was written by a stage, so that the name of a file says which raw shard its rows are from: no
            other file is opened. Otherwise all of the language are, or all there are.

    Raises:
        ShardError: a shard that may hold one of them cannot be read.
    """
    by_file: dict[str, tuple[Shard, list[str]]] = {}
    for name in ids:
        parts = parse_id(name)
        named = [shard for shard in shards if parts is not None and may_hold_rows_of(shard, parts)]
        if not named and not of_a_run:
            named = [shard for shard in shards if parts is not None and shard.lang == parts.lang] or list(shards)
        for shard in named:
            by_file.setdefault(shard.path, (shard, []))[1].append(name)
    found: dict[str, Row] = {}
    for shard, names in by_file.values():
        left = [name for name in names if name not in found]
        places = find_ids(shard.path, shard.lang, left) if left else {}
        rows = read_rows(shard.path, shard.lang, places.values()) if places else {}
        found |= {name: rows[number] for name, number in places.items()}
    return found


def raw_rows(root: str, ids: Iterable[str]) -> dict[str, Row]:
    """Rows of the raw tree ``root`` by id, which names their place; those that are not there are left out."""
    by_file: dict[tuple[str, str], dict[int, str]] = {}
    for name in ids:
        parts = parse_id(name)
        if parts is not None:
            by_file.setdefault((parts.lang, parts.shard), {})[parts.row] = name
    found: dict[str, Row] = {}
    for (lang, shard), names in by_file.items():
        path = storage.join(root, lang, f"{shard}.parquet")
        if storage.exists(path):
            found |= {names[number]: row for number, row in read_rows(path, lang, names).items()}
    return found
