"""The columns of a Parquet file, found by name and brought to a schema of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from lola_data.errors import ShardError
from lola_data.schemas import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterable


def value_type(kind: pa.DataType) -> pa.DataType:
    """Of a dictionary, that of its values."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_string_like(kind: pa.DataType) -> bool:
    """Whether it is one of Arrow's string types, or a dictionary of them."""
    value = value_type(kind)
    return pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)


def refuse_doubled(path: str, found: list[str], wanted: Iterable[str]) -> None:
    """Raise ShardError where two columns have a name that is asked for: neither is the one that is meant."""
    for name in wanted:
        if found.count(name) > 1:
            raise ShardError(
                f"{path}: {found.count(name)} columns have the name `{name}`; write the shard again with one of them, "
                f"or leave the file out"
            )


def match_columns(path: str, found: pa.Schema, wanted: pa.Schema) -> list[str]:
    """Names of the wanted columns that a file has, in the order that is wanted.

    Raises:
        ShardError: one that is required is missing, of another type, or there twice; ``path`` is named.
    """
    refuse_doubled(path, found.names, wanted.names)
    present: list[str] = []
    for field in wanted:
        if field.name not in found.names:
            if field.name == "id":
                raise ShardError(f"{path}: no column `id`: a raw shard; run the stage `identify` on it first")
            if field.name in REQUIRED:
                raise ShardError(
                    f"{path}: no column `{field.name}`; its columns are {', '.join(found.names) or 'none'}. "
                    f"A shard needs a text column: say which one it is when `download` brings it in (`columns: {{text: "
                    f"NAME}}`), rename it, or leave the file out"
                )
            continue
        kind = found.field(field.name).type
        mismatch = pa.types.is_string(field.type) and not (is_string_like(kind) or pa.types.is_null(kind))
        if mismatch and (field.name in REQUIRED or pa.types.is_nested(kind) or pa.types.is_binary(kind)):
            raise ShardError(f"{path}: column `{field.name}` is {kind}, not string; convert it, or leave the file out")
        present.append(field.name)
    return present


def conform(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns and types of a schema; what it has not is null."""
    arrays: list[pa.Array] = []
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for field in wanted:
        array = columns.get(field.name)
        if array is None:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        # Casting between string types copies offsets only and does not look at the bytes, so bad UTF-8 passes here.
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)
