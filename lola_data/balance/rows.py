"""Rows of Parquet shards as a balance counts them: a file in, batches of columns and frames of plain figures out.

Only the columns that are counted are read, in batches of about 32 MB; a missing optional one is all null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.columns import refuse_doubled
from lola_data.errors import ShardError
from lola_data.remote_parquet import foresee
from lola_data.shards import BATCH_BYTES, open_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow.parquet as pq

    from lola_data.balance.trees import Shard

LABELS = ("source", "url", "timestamp", "claimed_lang", "lang", "script")
"""Columns of a tree of documents beside the text, all of them optional."""
TEXTS = ("text", *LABELS)
REMOVED = ("reason", "claimed_lang", "lang", "source", "bytes")

_COLUMN_OF = {"source": "source", "claimed_lang": "claimed", "lang": "detected", "script": "script", "url": "url",
              "timestamp": "timestamp"}  # fmt: skip
_LABELS = ("source", "claimed", "detected", "script")
_BATCH_ROWS = 65_536


def read_batches(shard: Shard, wanted: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
    """Columns by name, batch by batch. ``wanted[0]`` is the one that must be there.

    Raises:
        ShardError: a shard that is missing, truncated, not Parquet, or without that column.
    """
    with open_parquet(shard.path) as file:
        present = present_columns(file, shard.path, wanted)
        foresee(file, range(file.metadata.num_row_groups), present)
        for group in range(file.metadata.num_row_groups):
            yield from read_group(file, shard.path, [group], wanted, present)


def present_columns(file: pq.ParquetFile, path: str, wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that the file has; ``wanted[0]`` must be there."""
    names = file.schema_arrow.names
    refuse_doubled(path, names, wanted)
    if wanted[0] not in names:
        raise ShardError(
            f"{path}: no column `{wanted[0]}` (it has {', '.join(names) or 'none'}); "
            "give a tree of documents, or rename the column"
        )
    return [name for name in wanted if name in names]


def read_group(
    file: pq.ParquetFile, path: str, groups: Sequence[int], wanted: Sequence[str], present: Sequence[str]
) -> Iterator[dict[str, pa.Array]]:
    """The columns ``present`` of some row groups, batch by batch, as strings; those missing of ``wanted`` are null."""
    metas = [file.metadata.row_group(group) for group in groups]
    rows, size = sum(meta.num_rows for meta in metas), sum(meta.total_byte_size for meta in metas)
    if "text" not in present:
        size = 0
    step = max(1, min(_BATCH_ROWS, BATCH_BYTES * rows // max(1, size)))
    if not present:
        yield from (_completed({}, wanted, min(step, rows - at)) for at in range(0, rows, step))
        return
    try:
        for batch in file.iter_batches(step, row_groups=list(groups), columns=list(present), use_threads=False):
            columns = {name: plain_column(batch.column(name), name, path) for name in present}
            yield _completed(columns, wanted, batch.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, groups, error) from error


def unreadable(path: str, groups: Sequence[int], error: Exception) -> ShardError:
    """That row groups cannot be read, and what to do."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    which = f"row group {groups[0]}" if len(groups) == 1 else f"one of row groups {groups[0]} to {groups[-1]}"
    return ShardError(f"{path}: {which} cannot be read ({reason}); fetch or build this shard again")


def _completed(columns: dict[str, pa.Array], wanted: Sequence[str], rows: int) -> dict[str, pa.Array]:
    return {name: columns[name] if name in columns else pa.nulls(rows, pa.string()) for name in wanted}


def plain_column(column: pa.Array, name: str, path: str) -> pa.Array:
    """The column as strings (``bytes``: integers), whatever string-like type it was stored as."""
    if name == "bytes":
        return column.cast(pa.int64())
    kind: Any = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if name == "timestamp" and not _is_string_like(kind):
        # Times that are stored as times are written out; numbers may be anything and are left alone.
        return column.cast(pa.string()) if pa.types.is_temporal(kind) else pa.nulls(len(column), pa.string())
    if name != "text" and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        # A number says what it is as well as a word does.
        return column.cast(pa.string())
    if not _is_string_like(kind):
        raise ShardError(f"{path}: column `{name}` is {kind}, not text; write it as string")
    if name == "text":  # only offsets and lead bytes are looked at: no copy, and it need not be valid UTF-8
        return column if pa.types.is_string(kind) or pa.types.is_large_string(kind) else column.cast(pa.large_string())
    column = column.cast(pa.string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ShardError(f"{path}: column `{name}` has bytes that are not UTF-8; mend or drop these rows") from error
    return column


def _is_string_like(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def document_rows(batch: Mapping[str, pa.Array], lang: str) -> pl.DataFrame:
    """One row a document: lang (folder), source, bytes, length, claimed, detected, script, url, timestamp."""
    size, length = text_sizes(batch["text"])
    return pl.DataFrame(
        {
            "lang": pl.repeat(lang, len(size), dtype=pl.String, eager=True),
            "bytes": _series(size),
            "length": _series(length),
            **{column: _series(batch[name]) for name, column in _COLUMN_OF.items()},
        }
    )


def label_rows(batch: Mapping[str, pa.Array], present: Sequence[str], lang: str) -> pl.DataFrame:
    """One row a document: lang (folder), source, claimed, detected, script; null where the column is not present."""
    # One column is always made, so that the frame has its rows.
    names = [name for name in _COLUMN_OF if name in ("source", *present)]
    frame = pl.DataFrame({_COLUMN_OF[name]: _series(batch[name]) for name in names})
    missing = [pl.lit(None, pl.String).alias(name) for name in _LABELS if name not in frame.columns]
    return frame.with_columns(*missing, pl.lit(lang).alias("lang")).select("lang", *_LABELS)


def text_sizes(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """UTF-8 bytes and characters (code points) of each text, int64[rows]; of a null, 0."""
    compute = cast("Any", pc)
    measured = (compute.binary_length(text), compute.utf8_length(text))
    return measured[0].fill_null(0).cast(pa.int64()), measured[1].fill_null(0).cast(pa.int64())


def removed_rows(batch: Mapping[str, pa.Array], lang: str) -> pl.DataFrame:
    """One row a removed document: lang (folder), source, claimed, detected, reason, bytes."""
    return pl.DataFrame(
        {
            "lang": pl.repeat(lang, len(batch["reason"]), dtype=pl.String, eager=True),
            "source": _series(batch["source"]),
            "claimed": _series(pc.fill_null(batch["claimed_lang"], lang)),
            "detected": _series(batch["lang"]),
            "reason": _series(pc.fill_null(batch["reason"], "unknown")),
            "bytes": _series(pc.fill_null(batch["bytes"], 0)),
        }
    )


def _series(column: pa.Array) -> pl.Series:
    return cast("pl.Series", pl.from_arrow(column))
