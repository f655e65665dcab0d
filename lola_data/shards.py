"""Parquet shards: plan work by bytes, read Arrow batches by column name, write shards that are whole or absent.

Flow: a tree ``<root>/<lang>/<shard>.parquet`` -> :func:`plan_units` -> :class:`Unit` -> :func:`read_batches` ->
record batches of one schema, bounded in bytes -> :class:`ShardWriter` -> another tree.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lola_data import storage
from lola_data.columns import conform, is_string_like, match_columns, value_type
from lola_data.errors import ShardError, StageError
from lola_data.object_store import RemoteFile
from lola_data.remote_parquet import RemoteParquet, chunk_span, foresee
from lola_data.schemas import DEDUPED, REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_BYTES = 32 * 2**20
"""Aim for the bytes of one record batch; a longer document makes a batch of its own."""
ROW_GROUP_BYTES = 64 * 2**20
"""Bytes of a row group written, before compression."""
UNIT_BYTES = 512 * 2**20
"""Bytes of one unit of work; a bigger shard is split at row groups."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: consecutive row groups of one shard. Does not depend on the number of tasks."""

    lang: str
    """Folder of the shard."""
    path: str
    """Path of the shard relative to the root of its tree."""
    name: str
    """File name, without suffix, of what is made from this unit: the shard's, numbered if the shard is split."""
    first_group: int
    """First row group."""
    last_group: int
    """One past the last row group."""
    first_row: int
    """Row of the shard at which the unit begins."""
    rows: int
    bytes: int
    """Uncompressed bytes of the row groups."""

    @property
    def key(self) -> str:
        """Unique name inside the tree."""
        return f"{self.lang}/{self.name}"

    @property
    def shard(self) -> str:
        """File name of the shard without suffix."""
        return PurePosixPath(self.path).stem

    def to_json(self) -> dict[str, Any]:
        """A plain dict; ``Unit(**value)`` is its inverse."""
        return asdict(self)


def list_shards(root: str) -> list[tuple[str, int]]:
    """Shards of a tree: (path relative to ``root``, file bytes), sorted.

    Raises:
        StageError: a Parquet file does not lie in a language folder directly under ``root``.
    """
    shards = storage.list_files(root, ".parquet")
    for path, _ in shards:
        if path.count("/") != 1:
            raise StageError(
                f"{storage.join(root, path)}: a tree of shards is laid out as <lang>/<shard>.parquet; "
                f"move the file into the folder of its language"
            )
    return shards


@contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file opened for reading; one on a store is a :class:`~lola_data.remote_parquet.RemoteParquet`.

    Raises:
        ShardError: missing, empty, truncated (no footer), with a footer that makes no sense, or not Parquet at all.
    """
    with ExitStack() as stack:
        try:
            # Arrow reads a local file faster by itself than through a file object of Python.
            local = None if storage.is_remote(path) else os.fsencode(path.removeprefix("file://"))
            handle = stack.enter_context(pa.OSFile(local) if local else storage.open_input(path))
            file = RemoteParquet(handle) if isinstance(handle, RemoteFile) else pq.ParquetFile(handle)
            # Only now is the schema made of the footer, and a damaged one found out.
            _ = file.schema_arrow
        except FileNotFoundError as error:
            raise ShardError(f"{path}: no such shard; fetch it again or leave its language out") from error
        except UnicodeDecodeError as error:
            raise ShardError(
                f"{path}: the name of a column is not valid UTF-8 ({error.object!r}). Write the shard again with "
                f"another name for it, or leave the file out"
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise ShardError(_unreadable(path, error)) from error
        yield file


def _unreadable(path: str, error: Exception) -> str:
    try:
        bytes_there = storage.size(path)
    except OSError:
        bytes_there = -1
    if bytes_there == 0:
        return f"{path}: an empty file; fetch the shard again"
    return (
        f"{path}: not a complete Parquet file: it ends at byte {bytes_there:,} without the footer that lists its row "
        f"groups, so it was cut off or is of another format ({_reason(error)}). Fetch the shard again or remove it"
    )


def plan_units(root: str, *, languages: list[str] | None = None, unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """The units of a tree, sorted by language, shard and row group. Shards without rows give none.

    Args:
        root: folder or URL of the tree.
        languages: only these folders (None: all).
        unit_bytes: a shard with more uncompressed bytes is split, at row groups, in units of about this size.
    """
    units: list[Unit] = []
    for path, file_bytes in list_shards(root):
        lang = path.split("/")[0]
        if languages is None or lang in languages:
            units.extend(_units_of_shard(root, lang, path, file_bytes, unit_bytes))
    return units


def _units_of_shard(root: str, lang: str, path: str, file_bytes: int, unit_bytes: int) -> list[Unit]:
    stem = PurePosixPath(path).stem
    try:
        groups = _row_groups(storage.join(root, path))
    except ShardError:
        # One broken shard must not keep the others from being planned: its unit fails, by name, when it is worked on.
        return [Unit(lang, path, stem, 0, 0, 0, 0, file_bytes)]
    spans: list[list[int]] = []
    for index, (rows, size) in enumerate(groups):
        if spans and spans[-1][3] + size <= unit_bytes:
            spans[-1][1:] = [index + 1, spans[-1][2] + rows, spans[-1][3] + size]
        else:
            spans.append([index, index + 1, rows, size])
    spans = [span for span in spans if span[2]]
    units: list[Unit] = []
    first_row = 0
    for number, (first, last, rows, size) in enumerate(spans):
        name = stem if len(spans) == 1 else f"{stem}-{number:05d}"
        units.append(Unit(lang, path, name, first, last, first_row, rows, size))
        first_row += rows
    return units


def _row_groups(path: str) -> tuple[tuple[int, int], ...]:
    """Rows and uncompressed bytes of each row group of a shard. A local file that has not changed is read once."""
    if not storage.is_remote(path):
        with suppress(OSError):
            return _known_row_groups(path, storage.version_of(path))
    return _read_row_groups(path)


def _read_row_groups(path: str) -> tuple[tuple[int, int], ...]:
    with open_parquet(path) as file:
        groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
        return tuple((group.num_rows, group.total_byte_size) for group in groups)


@lru_cache(maxsize=1 << 16)
def _known_row_groups(path: str, version: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    # Several phases of a stage plan the same tree.
    return _read_row_groups(path)


def read_batches(
    root: str, unit: Unit, schema: pa.Schema, *, columns: list[str] | None = None, batch_bytes: int = BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Record batches of a unit, in row order, in exactly ``schema`` (or its ``columns``).

    Columns are found by name. A missing one that is not required reads as null, unknown ones are not read, and
    string-like types (large_string, dictionary, all-null) become ``string``. Values are not checked to be UTF-8 here:
    see :mod:`lola_data.checks`.

    Raises:
        ShardError: the shard is unreadable (the row group and its bytes are named) or of a foreign schema.
    """
    path = storage.join(root, unit.path)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    with open_parquet(path) as file:
        present = match_columns(path, file.schema_arrow, wanted)
        if unit.last_group > file.metadata.num_row_groups:
            raise ShardError(f"{path}: has fewer row groups than when the work was planned; run with --redo")
        foresee(file, range(unit.first_group, unit.last_group), present)
        for index in range(unit.first_group, unit.last_group):
            group = file.metadata.row_group(index)
            if not group.num_rows:
                continue
            rows = max(1, min(group.num_rows, int(group.num_rows * batch_bytes / max(1, group.total_byte_size))))
            try:
                # Nearly all of a shard is one column, and tasks share the machine out already: no threads.
                for batch in file.iter_batches(batch_size=rows, row_groups=[index], columns=present, use_threads=False):
                    yield conform(batch, wanted)
            except (pa.ArrowException, OSError) as error:
                raise ShardError(
                    f"{path}: row group {index} ({_span(group)}) cannot be read: {_reason(error)}. The "
                    f"file is damaged: delete it and bring a sound one; a copy below a work folder is made again by "
                    f"the same command once the source is sound"
                ) from error


def further_columns(root: str, unit: Unit) -> list[pa.Field]:
    """What a shard has besides the columns that stages know, in its order: to be carried along, not looked at.

    Dictionaries come as their values, strings of every kind as ``string``. A name that two columns have is left out: it
    means neither.

    Raises:
        ShardError: the shard is unreadable.
    """
    with open_parquet(storage.join(root, unit.path)) as file:
        found = file.schema_arrow
    return [
        pa.field(field.name, pa.string() if is_string_like(field.type) else value_type(field.type))
        for field in found
        if field.name not in DEDUPED.names and found.names.count(field.name) == 1
    ]


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")


def _span(group: pq.RowGroupMetaData) -> str:
    spans = [chunk_span(group.column(number)) for number in range(group.num_columns)]
    return f"bytes {min(start for start, _ in spans):,} to {max(end for _, end in spans):,}"


_SHARED_VALUES = ["timestamp", "source", "claimed_lang", "lang", "script", "reason", "cluster_size"]
_COMPRESSED = ["id", "kept_id", "text", "timestamp", "url", "source"]
"""Columns of long strings. Of numbers and codes compression saves nothing, but it takes its time to start."""
_KNOWN = frozenset([*DEDUPED.names, *REMOVED.names])


def _is_foreign(field: pa.Field) -> bool:
    """Whether a column is none of ours, and more than a number."""
    return field.name not in _KNOWN and not pa.types.is_primitive(field.type)


def _leaves(field: pa.Field, above: str = "") -> list[str]:
    """Paths of the Parquet columns that a field becomes."""
    path, kind = above + field.name, field.type
    if pa.types.is_struct(kind):
        return [leaf for inner in kind for leaf in _leaves(inner, f"{path}.")]
    if pa.types.is_map(kind):
        return [*_leaves(kind.key_field, f"{path}.key_value."), *_leaves(kind.item_field, f"{path}.key_value.")]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(kind.value_field.with_name("element"), f"{path}.list.")
    return [path]


class _ParquetWriter(pq.ParquetWriter):
    """One that an interrupt leaves behind goes with its file, which is closed by then, and says nothing."""

    def __del__(self) -> None: ...


class ShardWriter:
    """Writes one Parquet shard. It appears under its name, complete, when :meth:`close` returns, and never otherwise.

    Row groups are cut by bytes, as the batches come, so the same batches give the same file.

    Args:
        path: final name.
        schema: of every batch written.
        row_group_bytes: Arrow bytes after which a row group is closed.
        durable: see :func:`lola_data.storage.atomic_output`.
    """

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        *,
        row_group_bytes: int = ROW_GROUP_BYTES,
        durable: bool = False,
    ) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._durable = durable
        self._row_group_bytes = row_group_bytes
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._stack = ExitStack()
        self._writer: _ParquetWriter | None = None

    def __enter__(self) -> ShardWriter:
        handle = self._stack.enter_context(storage.atomic_output(self.path, durable=self._durable))
        names = self.schema.names
        leaves = [path for field in self.schema if _is_foreign(field) for path in _leaves(field)]
        compressed = [*(name for name in _COMPRESSED if name in names), *leaves]
        self._writer = _ParquetWriter(
            handle,
            self.schema,
            compression=cast("Any", {**dict.fromkeys(names, "none"), **dict.fromkeys(compressed, "zstd")}),
            # Half as fast again as level 3, for files a fifth larger.
            compression_level=cast("Any", dict.fromkeys(compressed, 1)),
            use_dictionary=cast("Any", [name for name in _SHARED_VALUES if name in names]),
            write_statistics=cast("Any", [name for name in ("id", "lang") if name in names]),
        )
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch; empty ones are ignored."""
        if not batch.num_rows:
            return
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._pending_bytes >= self._row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._pending and self._writer is not None:
            table = pa.Table.from_batches(self._pending, schema=self.schema)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._pending, self._pending_bytes = [], 0

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if error is not None:
            # Closing a file that will be thrown away may fail too (a full disk); the first error is the one to tell.
            with suppress(Exception):
                writer.close()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self._pending:
                self._writer = writer
                self._flush()
                self._writer = None
            writer.close()
