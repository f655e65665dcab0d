"""Which shards of a source are brought in: whole ones, by a seeded hash, never simply the first.

In: all shards of the languages, and limits. Out: those that are picked, in the order they came. The shards of a
language are ranked by a hash of (seed, path), and a prefix of that ranking is taken, so a larger limit keeps all that a
smaller one picks.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from lola_data.errors import LolaError, ShardError, StageError
from pipelines.shard_pattern import PARQUET
from pipelines.sources import origin_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.sources import RawShard, Source

_READERS = 8
"""Footers read at a time: each is a request or two to a far server."""


def ranked(shards: list[RawShard], seed: int) -> dict[str, list[RawShard]]:
    """Language -> its shards, by hash of (seed, path)."""
    by_lang: dict[str, list[RawShard]] = defaultdict(list)
    for shard in shards:
        by_lang[shard.lang].append(shard)
    for some in by_lang.values():
        some.sort(key=lambda shard: (xxhash.xxh64_intdigest(f"{seed}/shards/{shard.path}".encode()), shard.path))
    return dict(sorted(by_lang.items()))


def pick(
    shards: list[RawShard],
    seed: int,
    *,
    max_shards: int | None = None,
    max_documents: int | None = None,
    max_bytes: int | None = None,
    rows: Callable[[RawShard], int] | None = None,
) -> list[RawShard]:
    """The shards to bring in, in the order they came.

    Args:
        shards: all there are.
        seed: of the ranking.
        max_shards: at most so many of each language.
        max_documents: of each language, shards as long as they hold no more rows together; one at least.
        max_bytes: of all languages together. It is shared out evenly: the language with the fewest bytes so far takes
            its next shard, until one does not fit.
        rows: rows of a shard; needed with ``max_documents``.

    Raises:
        StageError: ``max_bytes`` does not hold a shard of each language.
    """
    order = ranked(shards, seed)
    if max_shards is not None:
        order = {lang: some[:max_shards] for lang, some in order.items()}
    if max_documents is not None:
        assert rows is not None
        with ThreadPoolExecutor(_READERS) as pool:
            kept = pool.map(lambda some: _within(some, max_documents, rows), order.values())
            order = dict(zip(order, kept, strict=True))
    if max_bytes is not None:
        order = _shared_out(order, max_bytes)
    picked = {shard.path for some in order.values() for shard in some}
    return [shard for shard in shards if shard.path in picked]


def _within(shards: list[RawShard], documents: int, rows: Callable[[RawShard], int]) -> list[RawShard]:
    taken: list[RawShard] = []
    left = documents
    for shard in shards:
        left -= rows(shard)
        if left < 0 and taken:
            break
        taken.append(shard)
        if left <= 0:
            break
    return taken


def _shared_out(order: dict[str, list[RawShard]], budget: int) -> dict[str, list[RawShard]]:
    least = sum(some[0].bytes for some in order.values() if some)
    if least > budget:
        raise StageError(
            f"download: one shard of each of the {len(order)} languages takes {least:,} bytes, more than "
            f"`max_bytes`, which is {budget:,}. Raise it, or choose fewer `languages`"
        )
    taken: dict[str, list[RawShard]] = {lang: [] for lang in order}
    waiting = [(0, lang) for lang in order]
    heapq.heapify(waiting)
    left = budget
    while waiting:
        size, lang = heapq.heappop(waiting)
        if len(taken[lang]) == len(order[lang]):
            continue
        shard = order[lang][len(taken[lang])]
        if shard.bytes > left:
            # To go on with smaller shards of others would make the choice depend on the budget in ways that are not
            # nested.
            break
        taken[lang].append(shard)
        left -= shard.bytes
        heapq.heappush(waiting, (size + shard.bytes, lang))
    return taken


def rows_in(source: Source, shard: RawShard) -> int:
    """Rows of a shard, from the footer, read where it lies.

    Raises:
        ShardError: the footer cannot be read.
        StageError: not a Parquet file.
    """
    if not origin_path(shard).endswith(PARQUET):
        raise StageError(
            f"{source.locate(shard)}: `max_documents` goes by the row counts of Parquet files; choose by `max_bytes` "
            f"or `max_shards` here"
        )
    try:
        with source.open(shard) as handle:
            return pq.read_metadata(pa.PythonFile(handle, mode="r")).num_rows
    except LolaError:
        raise
    except Exception as error:
        # Every source has errors of its own library, and a footer may be anything.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ShardError(
            f"{source.locate(shard)}: its footer cannot be read ({reason}); leave its language out, or choose by "
            f"`max_shards`"
        ) from error
