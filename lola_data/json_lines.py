"""Files with one JSON object a line, packed or not, as Arrow batches of the columns that are asked for.

In: a local file (``.jsonl``, ``.json``, ``.ndjson``; plain, ``.gz``, ``.zst`` or ``.bz2``) and, for each column, where
its value lies in an object, such as ``warc_headers.warc-date``. Out: record batches of strings, in the order of the
lines. pyarrow parses a block of lines at a time; a block that it refuses is gone through line by line, which either
reads it all the same (lone surrogates, numbers where strings are wanted) or names the line that is wrong.
"""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from lola_data.errors import ShardError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BLOCK_BYTES = 16 * 2**20
"""Bytes of text parsed at a time; a longer line makes a block of its own."""
LONGEST_LINE = 2**30
"""Bytes of a line beyond which a file is taken for something else."""
REST = "extra"
"""Column that holds, as a JSON object, what no other column was made of."""
_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_BOM = b"\xef\xbb\xbf"


def first_object(path: Path, *, shown: str) -> dict[str, Any]:
    """The first object of a file; {} of a file without a line.

    Raises:
        ShardError: as :func:`read_json_lines`.
    """
    for number, block in _blocks(path, shown):
        for offset, line in enumerate(io.BytesIO(block)):
            if line.strip():
                return _object(line, number + offset, shown)
    return {}


def read_json_lines(
    path: Path, columns: Mapping[str, str], *, shown: str, required: str = "text", rest: bool = False
) -> Iterator[pa.RecordBatch]:
    """Batches of a file.

    Args:
        path: the local file.
        columns: column -> place of its value in an object, names joined by dots. What is not there is null; numbers,
            objects and lists become their JSON text.
        shown: where the file came from, for messages.
        required: column whose values must be strings or null.
        rest: add the column :data:`REST`, with everything that no column was made of.

    Raises:
        ShardError: a line that is no JSON object, a value of ``required`` that is no string, a damaged or cut archive;
            file, line and field are named.
    """
    for number, block in _blocks(path, shown):
        batch = None if rest else _parsed(block, columns)
        yield batch if batch is not None else _by_line(block, number, columns, required, rest=rest, shown=shown)


def _blocks(path: Path, shown: str) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines) of a file, in order."""
    number, left = 1, b""
    with ExitStack() as stack:
        try:
            handle: Any = stack.enter_context(pa.OSFile(str(path)))
            if path.suffix in _PACKED:
                handle = stack.enter_context(pa.CompressedInputStream(handle, _PACKED[path.suffix]))
        except OSError as error:
            raise ShardError(f"{shown}: cannot be read: {error}; fetch the shard again") from error
        while True:
            try:
                piece = handle.read(BLOCK_BYTES)
            except (OSError, pa.ArrowException) as error:
                raise ShardError(
                    f"{shown}: the archive is damaged or cut off after line {number + left.count(10):,} "
                    f"({str(error).splitlines()[0]}). Fetch the shard again or remove it"
                ) from error
            left += piece
            cut = len(left) if not piece else left.rfind(b"\n") + 1
            if cut:
                block, left = left[:cut], left[cut:]
                yield number, block.removeprefix(_BOM) if number == 1 else block
                number += block.count(b"\n")
            if not piece:
                return
            if len(left) > LONGEST_LINE:
                raise ShardError(
                    f"{shown}: line {number:,} is longer than {LONGEST_LINE // 2**20:,} MiB; this is no file with one "
                    f"JSON object a line. Convert it, or leave it out"
                )


def _parsed(block: bytes, columns: Mapping[str, str]) -> pa.RecordBatch | None:
    """The columns of a block, or None if that is not for pyarrow to do."""
    lines = sum(1 for line in block.split(b"\n") if line.strip())
    if not lines:
        return pa.RecordBatch.from_arrays([pa.array([], pa.string())] * len(columns), names=list(columns))
    try:
        table = pa_json.read_json(
            pa.BufferReader(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=_schema(columns.values()), unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowException, ValueError):
        return None
    if table.num_rows != lines:
        # Several objects on a line, or one over several lines.
        return None
    arrays = [_leaf(table, place.split(".")) for place in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _schema(places: Any) -> pa.Schema:
    tree: dict[str, Any] = {}
    for place in places:
        *folders, leaf = place.split(".")
        inner = tree
        for name in folders:
            inner = inner.setdefault(name, {})
        inner[leaf] = None

    def fields(level: dict[str, Any]) -> list[pa.Field]:
        return [
            pa.field(name, pa.string() if below is None else pa.struct(fields(below))) for name, below in level.items()
        ]

    return pa.schema(fields(tree))


def _leaf(table: pa.Table, names: list[str]) -> pa.Array:
    column = table.column(names[0]).combine_chunks()
    for name in names[1:]:
        column = pc.struct_field(column, name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _by_line(
    block: bytes, number: int, columns: Mapping[str, str], required: str, *, rest: bool, shown: str
) -> pa.RecordBatch:
    values: dict[str, list[bytes | None]] = {name: [] for name in [*columns, *([REST] if rest else [])]}
    for offset, line in enumerate(io.BytesIO(block)):
        if not line.strip():
            continue
        found = _object(line, number + offset, shown)
        for name, place in columns.items():
            value = _taken(found, place.split("."))
            if name == required and value is not None and not isinstance(value, str):
                raise ShardError(
                    f"{shown}: line {number + offset:,}: `{place}` is {_kind(value)}, not a string; mend the line, or "
                    f"name another field in `columns`"
                )
            values[name].append(_encoded(value))
        if rest:
            values[REST].append(_encoded(found))
    # What JSON escapes can spell and UTF-8 cannot passes as it is: later checks tell what to do with it.
    arrays = [pa.array(found, pa.binary()).view(pa.string()) for found in values.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(values))


def _object(line: bytes, number: int, shown: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ShardError(
            f"{shown}: line {number:,} is not a JSON object ({error}); the file may have been cut off. Mend or remove "
            f"the line, or fetch the shard again"
        ) from error
    if not isinstance(found, dict):
        raise ShardError(f"{shown}: line {number:,} is {_kind(found)}, not a JSON object; mend or remove the line")
    return found


def _taken(found: dict[str, Any], names: list[str]) -> Any:
    """Take a value out of an object."""
    inner: Any = found
    for name in names[:-1]:
        inner = inner.get(name) if isinstance(inner, dict) else None
    return inner.pop(names[-1], None) if isinstance(inner, dict) else None


def _encoded(value: Any) -> bytes | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Bytes that were not UTF-8 come back as they were; a lone surrogate as the three bytes that some software writes.
    return (
        b"".join(
            character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass")
            for character in text
        )
        if any("\ud800" <= character <= "\udfff" for character in text)
        else text.encode()
    )


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
