"""Counts of Parquet shards: a tree of files in, a few small polars frames out.

A shard is read in batches of about 32 MB, only the columns that are counted, by pyarrow and polars kernels. What is
kept are sums, and the exact distribution of document lengths: among documents of T characters in all, at most
sqrt(2 T) lengths differ, so it stays small however large the corpus is. Domains are exact up to ``MAX_DOMAINS`` a
language; beyond that the counters are cut back as in mergeable heavy-hitter summaries (Agarwal et al. 2012), which
under-counts a domain by at most documents / ``MAX_DOMAINS`` and never loses one with a larger share.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.errors import ShardError
from lola_data.shards import BATCH_BYTES, open_parquet, refuse_doubled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lola_data.balance_trees import Shard, Tree

MAX_DOMAINS = 65_536
"""Domains counted for each language."""
MAX_SOURCES = 256
"""Values of ``source`` kept apart in each language; those with fewest documents go under ``OTHER_SOURCES``."""
OTHER_SOURCES = "(other sources)"

_BATCH_ROWS = 65_536
_PENDING_ROWS = 262_144
"""Rows whose figures wait before they are summed: one round of sums costs about as much for one row as for these."""
_PENDING_PARTS = 16
# An IPv6 address stands in brackets, for the colons inside it.
_URL_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?:[Ww]{3}\.)?(\[[^\]/?#]+\]|[^/?#:\[][^/?#:]*)"

_TEXTS = ("text", "source", "url", "claimed_lang", "lang", "script")
_REMOVED = ("reason", "claimed_lang", "lang", "source", "bytes")
_FRAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sizes": (("lang", "source"), ("documents", "empty", "bytes", "characters", "elsewhere")),
    "lengths": (("lang", "source", "length"), ("documents",)),
    "detected": (("lang", "source", "claimed", "detected"), ("documents", "bytes")),
    "scripts": (("lang", "script"), ("documents",)),
    "domains": (("lang", "domain"), ("documents",)),
    "removed": (("lang", "source", "claimed", "detected", "reason"), ("documents", "bytes")),
}


@dataclass(frozen=True)
class Tally:
    """Counts of a tree of documents; every frame has the key columns before the bar and int64 sums after it.

    Attributes:
        sizes: lang (folder), source | documents, empty (no text), bytes (UTF-8), characters (code points), elsewhere
            (detected as another language than the folder's).
        lengths: lang, source, length (characters, int64) | documents.
        detected: lang, source, claimed, detected | documents, bytes; of those with a detected language.
        scripts: lang, script | documents.
        domains: lang, domain | documents; host of the URL in lower case without ``www.``.
    """

    sizes: pl.DataFrame
    lengths: pl.DataFrame
    detected: pl.DataFrame
    scripts: pl.DataFrame
    domains: pl.DataFrame


def count_documents(tree: Tree, *, workers: int = 2, progress: Callable[[int], None] | None = None) -> Tally:
    """Tally of a tree of documents, of whose columns only ``text`` must be there.

    Args:
        tree: as found by :func:`lola_data.balance_trees.find_trees`.
        workers: threads, each on a shard of its own. The result does not depend on it.
        progress: called with the size of each shard that is done.

    Raises:
        ShardError: a shard that is missing, truncated, not Parquet, or without the columns that are needed.
    """
    frames = _count(tree, _TEXTS, _document_rows, _document_sums, workers, progress)
    return Tally(**{name: frames.get(name, empty_frame(name)) for name in Tally.__dataclass_fields__})


def count_removed(tree: Tree, *, workers: int = 2, progress: Callable[[int], None] | None = None) -> pl.DataFrame:
    """lang (folder), source, claimed, detected, reason | documents, bytes of a tree of removed rows, of whose columns
    only ``reason`` must be there. Arguments and errors as for :func:`count_documents`."""
    frames = _count(tree, _REMOVED, _removed_rows, _removed_sums, workers, progress)
    return frames.get("removed", empty_frame("removed"))


def empty_frame(name: str) -> pl.DataFrame:
    """The frame ``name`` of no documents."""
    keys, sums = _FRAMES[name]
    schema = {**dict.fromkeys(keys, pl.String), **dict.fromkeys(sums, pl.Int64)}
    return pl.DataFrame(schema=schema | {"length": pl.Int64} if "length" in keys else schema)


class _Sums:
    """Rows of figures, summed whenever enough of them have come together."""

    def __init__(self, reduce: Callable[[pl.DataFrame], dict[str, pl.DataFrame]]) -> None:
        self._reduce = reduce
        self._rows: list[pl.DataFrame] = []
        self._height = 0
        self._parts: list[dict[str, pl.DataFrame]] = []

    def add(self, rows: pl.DataFrame) -> None:
        self._rows.append(rows)
        self._height += rows.height
        if self._height >= _PENDING_ROWS:
            self._reduce_rows()

    def absorb(self, other: _Sums) -> None:
        """Take over all that ``other`` has."""
        self._parts.extend(other._parts)
        for rows in other._rows:
            self.add(rows)
        if len(self._parts) >= _PENDING_PARTS:
            self._parts = [_merged(self._parts)]

    def result(self) -> dict[str, pl.DataFrame]:
        self._reduce_rows()
        return _merged(self._parts) if self._parts else {}

    def _reduce_rows(self) -> None:
        if self._rows:
            self._parts.append(self._reduce(pl.concat(self._rows)))
            self._rows, self._height = [], 0
        if len(self._parts) >= _PENDING_PARTS:
            self._parts = [_merged(self._parts)]


def _count(
    tree: Tree,
    columns: Sequence[str],
    figures: Callable[[Mapping[str, pa.Array], str], pl.DataFrame],
    reduce: Callable[[pl.DataFrame], dict[str, pl.DataFrame]],
    workers: int,
    progress: Callable[[int], None] | None,
) -> dict[str, pl.DataFrame]:
    """Sums over all shards; ``columns[0]`` is the one they cannot do without."""

    def of_shard(shard: Shard) -> _Sums:
        sums = _Sums(reduce)
        for batch in _batches(shard, columns):
            sums.add(figures(batch, shard.lang))
        return sums

    total = _Sums(reduce)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for shard, sums in _in_order(pool, of_shard, tree.shards, 2 * workers):
            total.absorb(sums)
            if progress is not None:
                progress(shard.size)
    return total.result()


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Shard], _Sums], shards: Sequence[Shard], ahead: int
) -> Iterator[tuple[Shard, _Sums]]:
    """Results in the order of ``shards``, with at most ``ahead`` of them held."""
    waiting: deque[tuple[Shard, Future[_Sums]]] = deque()
    rest = iter(shards)
    try:
        for shard in islice(rest, ahead):
            waiting.append((shard, pool.submit(work, shard)))
        while waiting:
            shard, future = waiting.popleft()
            yield shard, future.result()
            for following in islice(rest, 1):
                waiting.append((following, pool.submit(work, following)))
    finally:
        for _, future in waiting:
            future.cancel()


def _batches(shard: Shard, wanted: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
    """Columns by name, batch by batch; a missing optional one is all null."""
    with open_parquet(shard.path) as file:
        names = file.schema_arrow.names
        refuse_doubled(shard.path, names, wanted)
        if wanted[0] not in names:
            raise ShardError(
                f"{shard.path}: no column `{wanted[0]}` (it has {', '.join(names) or 'none'}); "
                "give a tree of documents, or rename the column"
            )
        present = [name for name in wanted if name in names]
        for group in range(file.metadata.num_row_groups):
            meta = file.metadata.row_group(group)
            rows = max(1, min(_BATCH_ROWS, BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)))
            try:
                for batch in file.iter_batches(rows, row_groups=[group], columns=present, use_threads=False):
                    columns = {name: batch.column(name) for name in present}
                    for name in wanted:
                        columns.setdefault(name, pa.nulls(batch.num_rows, pa.string()))
                    yield {name: _plain(column, name, shard.path) for name, column in columns.items()}
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ShardError(
                    f"{shard.path}: row group {group} cannot be read ({reason}); fetch or build this shard again"
                ) from error


def _plain(column: pa.Array, name: str, path: str) -> pa.Array:
    """The column as strings (``bytes``: integers), whatever string-like type it was stored as."""
    if name == "bytes":
        return column.cast(pa.int64())
    kind: Any = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    string_like = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (string_like or pa.types.is_null(kind)):
        raise ShardError(f"{path}: column `{name}` is {kind}, not text; write it as string")
    if name == "text":  # only offsets and lead bytes are looked at: no copy, and it need not be valid UTF-8
        return column if pa.types.is_string(kind) or pa.types.is_large_string(kind) else column.cast(pa.large_string())
    column = column.cast(pa.string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ShardError(f"{path}: column `{name}` has bytes that are not UTF-8; mend or drop these rows") from error
    return column


def _series(column: pa.Array) -> pl.Series:
    return cast("pl.Series", pl.from_arrow(column))


def _document_rows(batch: Mapping[str, pa.Array], lang: str) -> pl.DataFrame:
    text = batch["text"]
    return pl.DataFrame(
        {
            "lang": pl.repeat(lang, len(text), dtype=pl.String, eager=True),
            "source": _series(batch["source"]),
            "bytes": _series(pc.fill_null(pc.binary_length(text), 0).cast(pa.int64())),
            "length": _series(pc.fill_null(pc.utf8_length(text), 0).cast(pa.int64())),
            "claimed": _series(pc.fill_null(batch["claimed_lang"], lang)),
            "detected": _series(batch["lang"]),
            "script": _series(batch["script"]),
            "url": _series(batch["url"]),
        }
    )


def _document_sums(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    detected = pl.col("detected")
    elsewhere = detected.is_not_null() & (detected != "und") & (detected != pl.col("lang"))
    sizes = rows.group_by("lang", "source").agg(
        pl.len().cast(pl.Int64).alias("documents"),
        (pl.col("bytes") == 0).sum().cast(pl.Int64).alias("empty"),
        pl.col("bytes").sum(),
        pl.col("length").sum().alias("characters"),
        elsewhere.sum().cast(pl.Int64).alias("elsewhere"),
    )
    domain = pl.col("url").str.extract(_URL_HOST).str.strip_chars("[]").str.to_lowercase()
    return {
        "sizes": sizes,
        "lengths": _tallied("lengths", rows),
        "detected": _tallied("detected", rows.filter(detected.is_not_null()), pl.col("bytes").sum()),
        "scripts": _tallied("scripts", rows.filter(pl.col("script").is_not_null())),
        "domains": _tallied("domains", rows.select("lang", domain.alias("domain")).drop_nulls()),
    }


def _removed_rows(batch: Mapping[str, pa.Array], lang: str) -> pl.DataFrame:
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


def _removed_sums(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {"removed": _tallied("removed", rows, pl.col("bytes").sum())}


def _tallied(name: str, rows: pl.DataFrame, *sums: pl.Expr) -> pl.DataFrame:
    """Documents, and ``sums``, by the keys of the frame ``name``."""
    return rows.group_by(_FRAMES[name][0]).agg(pl.len().cast(pl.Int64).alias("documents"), *sums)


def _merged(parts: Sequence[Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """Sums over parts, sorted by their keys, within the limits on sources and domains."""
    frames = {name: _summed(name, [part[name] for part in parts]) for name in parts[0]}
    if "sizes" in frames:
        _fold_sources(frames)
        frames["domains"] = _cut_domains(frames["domains"])
    return frames


def _summed(name: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    keys, sums = _FRAMES[name]
    return pl.concat(frames).group_by(keys).agg(pl.col(sums).sum()).sort(keys)


def _fold_sources(frames: dict[str, pl.DataFrame]) -> None:
    """Put all but the ``MAX_SOURCES`` most frequent sources of a language under one name, in every frame."""
    sources = frames["sizes"].select("lang", "source", "documents")
    if not (sources.group_by("lang").len()["len"] > MAX_SOURCES).any():
        return
    ranked = sources.filter(pl.col("source").is_not_null(), pl.col("source") != OTHER_SOURCES)
    ranked = ranked.sort(["documents", "source"], descending=[True, False])
    kept = ranked.group_by("lang").head(MAX_SOURCES - 2).select("lang", "source", pl.lit(True).alias("kept"))
    for name in ("sizes", "lengths", "detected"):
        marked = frames[name].join(kept, on=["lang", "source"], how="left")
        folded = pl.when(pl.col("kept") | pl.col("source").is_null()).then("source").otherwise(pl.lit(OTHER_SOURCES))
        frames[name] = _summed(name, [marked.with_columns(folded.alias("source")).drop("kept")])


def _cut_domains(domains: pl.DataFrame) -> pl.DataFrame:
    """Subtract the count of the first domain beyond ``MAX_DOMAINS`` of a language from all of that language's."""
    beyond = pl.col("documents").sort(descending=True).slice(MAX_DOMAINS, 1).first().over("lang").fill_null(0)
    return domains.with_columns(pl.col("documents") - beyond).filter(pl.col("documents") > 0)
