"""A small part of a corpus that stands for all of it: shards in, some trees of raw rows drawn from them out.

Places in the corpus are drawn systematically, each with a chance proportional to its bytes, and a run of rows is read
at each. So sums over the probe, divided by its share of the bytes, are estimates of sums over the corpus. The places
are dealt to groups, and how far these differ tells how far the estimate may be off (replicated sampling; Cochran,
Sampling Techniques, 3rd ed., 1977, section 11.19).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lola_data.errors import LolaError, ShardError
from lola_data.schemas import RAW
from lola_data.shards import ShardWriter
from pipelines.shard_pattern import PARQUET
from pipelines.sources import origin_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.shapes import Shape
    from pipelines.sources import RawShard, Source

SHARE = 0.01
"""Of the bytes of the corpus."""
LEAST_BYTES = 4_000_000
MOST_BYTES = 64_000_000
"""Bounds of the probe, in bytes of published files."""
PLACES = 24
"""Places drawn."""
GROUPS = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """What was read at one place: its ``rows``, and the ``file_bytes`` of the published file that these stand for."""

    lang: str
    rows: int
    file_bytes: float


def probe_size(total: int) -> int:
    """Bytes of published files to read, of ``total``."""
    return min(total, max(LEAST_BYTES, min(MOST_BYTES, round(total * SHARE))))


def draw(sizes: list[int], places: int, seed: int) -> list[tuple[int, float]]:
    """(index, where in it as a share) of places drawn systematically, each as likely as its size.

    Args:
        sizes: bytes of each shard.
        places: how many are drawn.
        seed: decides the offset of the first.
    """
    total = sum(sizes)
    if not total:
        return []
    step = total / places
    begin = step * ((seed * 0x9E3779B97F4A7C15 % 2**64) / 2**64)
    ends = list(accumulate(sizes))
    found: list[tuple[int, float]] = []
    for number in range(places):
        place = begin + number * step
        index = min(bisect.bisect_right(ends, place), len(sizes) - 1)
        found.append((index, (place - (ends[index] - sizes[index])) / sizes[index]))
    return found


def write_probe(
    source: Source, shape: Shape, shards: list[RawShard], folders: list[Path], *, seed: int
) -> list[list[Piece]]:
    """Draw a probe and write it as a tree ``raw/<lang>/*.parquet`` in each folder; the pieces in each.

    Raises:
        ShardError: a place cannot be read.
    """
    size = probe_size(sum(shard.bytes for shard in shards))
    known = [shard for shard in shards if shard.bytes] or shards
    places = draw([max(1, shard.bytes) for shard in known], PLACES, seed)
    pieces: list[list[Piece]] = [[] for _ in folders]
    seen: set[tuple[str, int]] = set()
    for number, (index, at) in enumerate(places):
        shard, group = known[index], number % len(folders)
        for part, rows in _rows_at(source, shape, shard, at, size / PLACES):
            if (shard.path, part) in seen or not any(batch.num_rows for batch in rows.batches):
                break
            seen.add((shard.path, part))
            target = folders[group] / "raw" / shard.lang / f"{Path(shard.path).stem}-{part:05d}.parquet"
            with ShardWriter(str(target), rows.batches[0].schema if rows.batches else RAW) as writer:
                for batch in rows.batches:
                    writer.write(batch)
            pieces[group].append(Piece(shard.lang, writer.rows, rows.file_bytes))
    return pieces


@dataclass(frozen=True, slots=True)
class _Rows:
    batches: list[pa.RecordBatch]
    file_bytes: float


def _rows_at(source: Source, shape: Shape, shard: RawShard, at: float, wanted: float) -> Iterator[tuple[int, _Rows]]:
    """(number of the row group, rows from its beginning that take ``wanted`` bytes of the file)."""
    try:
        with source.open(shard) as handle:
            if origin_path(shard).endswith(PARQUET):
                yield _of_parquet(pq.ParquetFile(pa.PythonFile(handle, mode="r")), shape, at, wanted, shard.path)
            else:
                raise ShardError(
                    f"{source.locate(shard)}: a plan is made of Parquet shards; with JSON lines, run `download` first "
                    f"and plan with `source: local` from there"
                )
    except LolaError:
        raise
    except Exception as error:
        # Every source has errors of its own library, and a file may be anything.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ShardError(f"{source.locate(shard)}: cannot be read ({reason}); mend it or leave it out") from error


def _of_parquet(file: Any, shape: Shape, at: float, wanted: float, shown: str) -> tuple[int, _Rows]:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    sizes = [sum(group.column(k).total_compressed_size for k in range(group.num_columns)) for group in groups]
    if not sum(sizes):
        return 0, _Rows([], 0.0)
    ends = list(accumulate(sizes))
    number = min(bisect.bisect_right(ends, at * ends[-1]), len(sizes) - 1)
    rows = groups[number].num_rows
    take = max(1, min(rows, round(rows * wanted / max(1, sizes[number]))))
    batches: list[pa.RecordBatch] = []
    left = take
    for batch in shape.rows_of(file, shown, row_groups=[number]):
        batches.append(batch.slice(0, left))
        left -= batches[-1].num_rows
        if left <= 0:
            break
    return number, _Rows(batches, sizes[number] * (take - max(0, left)) / max(1, rows))
