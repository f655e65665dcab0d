"""Counts of Parquet shards, whole: a tree of files in, a few small polars frames out.

A shard is read in batches, only the columns that are counted, by pyarrow and polars kernels; what is kept are sums. For
trees too large to be read whole see :mod:`lola_data.balance.sample`.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from lola_data.balance.closer import Chances, Closer, Looked, look, repeated_frame, scripts_of, taker
from lola_data.balance.rows import REMOVED, TEXTS, document_rows, read_batches, removed_rows
from lola_data.balance.sums import Sums, document_sums, empty_frame, removed_sums
from lola_data.shards import open_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lola_data.balance.tokens import TokenTotal
    from lola_data.balance.trees import Shard, Tree

Result = TypeVar("Result")

ESTIMATES = {"lang": pl.String, "figure": pl.String, "half_width": pl.Float64}
"""Of :attr:`Tally.estimates`."""
REPEATED = {"lang": pl.String, "looked": pl.Int64, "repeated": pl.Int64}


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
        linked: lang | documents; of those with such a host.
        years: lang, year (int32) | documents; of those whose timestamp begins with a year.
        repeated: lang | looked, repeated; see :mod:`lola_data.balance.copies`.
        tokens: language -> its tokens, where a tokenizer was given.
        estimates: lang, figure | half_width (float64), of figures of ``sizes`` that were estimated: bytes, characters,
            empty. Nothing of what was counted whole.
        effective: language -> documents drawn one by one that tell as much of its lengths as those that were read;
            nothing where all were.
        read: documents and bytes whose texts were read, of each language whose texts were not all read.
    """

    sizes: pl.DataFrame
    lengths: pl.DataFrame
    detected: pl.DataFrame
    scripts: pl.DataFrame
    domains: pl.DataFrame
    linked: pl.DataFrame
    years: pl.DataFrame
    repeated: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REPEATED))
    tokens: dict[str, TokenTotal] = field(default_factory=dict)
    estimates: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ESTIMATES))
    effective: dict[str, float] = field(default_factory=dict)
    read: dict[str, tuple[int, int]] = field(default_factory=dict)


COUNTED = ("sizes", "lengths", "detected", "scripts", "domains", "linked", "years")
"""Frames of a :class:`Tally` that are sums."""


def count_documents(
    tree: Tree, *, workers: int = 2, closer: Closer | None = None, progress: Callable[[int], None] | None = None
) -> Tally:
    """Tally of a tree of documents, of whose columns only ``text`` must be there.

    Args:
        tree: as found by :func:`lola_data.balance.trees.find_trees`.
        workers: threads, each on a shard of its own. The result does not depend on it.
        closer: what to look at in the texts themselves.
        progress: called with the size of each shard that is done.

    Raises:
        ShardError: a shard that is missing, truncated, not Parquet, or without the columns that are needed.
    """
    closer = closer or Closer()
    chances = _chances(tree, closer)

    def of_shard(shard: Shard) -> tuple[Sums, Looked]:
        sums, seen, row = Sums(document_sums), Looked(), 0
        chance = chances[shard.lang]
        for batch in read_batches(shard, TEXTS):
            text = batch["text"]
            if closer.scripts and batch["script"].null_count == len(text):
                batch["script"] = scripts_of(text)
            sums.add(document_rows(batch, shard.lang))
            rows = np.arange(row, row + len(text), dtype=np.int64)
            seen.absorb(look(closer, chance, taker(text), shard, rows))
            row += len(text)
        return sums, seen

    total = Sums(document_sums)
    looked: dict[str, Looked] = {}
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for shard, (sums, seen) in in_order(pool, of_shard, tree.shards, 2 * workers):
            total.absorb(sums)
            looked.setdefault(shard.lang, Looked()).absorb(seen)
            if progress is not None:
                progress(shard.size)
    frames = total.result()
    found = {name: frames.get(name, empty_frame(name)) for name in COUNTED}
    return Tally(
        **found,
        repeated=repeated_frame(looked) if closer.copies else pl.DataFrame(schema=REPEATED),
        tokens=_tokens(found["sizes"], closer, looked, chances),
        effective={},
        read={},
    )


def count_removed(tree: Tree, *, workers: int = 2, progress: Callable[[int], None] | None = None) -> pl.DataFrame:
    """lang (folder), source, claimed, detected, reason | documents, bytes of a tree of removed rows, of whose columns
    only ``reason`` must be there. Arguments and errors as for :func:`count_documents`."""

    def of_shard(shard: Shard) -> Sums:
        sums = Sums(removed_sums)
        for batch in read_batches(shard, REMOVED):
            sums.add(removed_rows(batch, shard.lang))
        return sums

    total = Sums(removed_sums)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for shard, sums in in_order(pool, of_shard, tree.shards, 2 * workers):
            total.absorb(sums)
            if progress is not None:
                progress(shard.size)
    return total.result().get("removed", empty_frame("removed"))


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Shard], Result], shards: Sequence[Shard], ahead: int
) -> Iterator[tuple[Shard, Result]]:
    """Results in the order of ``shards``, with at most ``ahead`` of them held."""
    waiting: deque[tuple[Shard, Future[Result]]] = deque()
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


def _chances(tree: Tree, closer: Closer) -> dict[str, Chances]:
    """Chances of a document of each language, by its documents and, roughly, its bytes as the footers tell them."""
    if not closer.chooses:
        return dict.fromkeys((shard.lang for shard in tree.shards), Chances(tokens=1.0 if closer.tokens else 0.0))
    sizes: dict[str, tuple[int, int]] = {}
    for shard in tree.shards:
        with open_parquet(shard.path) as file:
            meta = file.metadata
            groups = (meta.row_group(number) for number in range(meta.num_row_groups))
            documents, size = sizes.get(shard.lang, (0, 0))
            sizes[shard.lang] = documents + meta.num_rows, size + sum(group.total_byte_size for group in groups)
    # Scripts are of all documents here, as a column of the rows.
    return {lang: replace(closer.chances(*found), scripts=0.0) for lang, found in sizes.items()}


def _tokens(
    sizes: pl.DataFrame, closer: Closer, looked: dict[str, Looked], chances: dict[str, Chances]
) -> dict[str, TokenTotal]:
    if closer.tokens is None:
        return {}
    known = sizes.group_by("lang").agg(pl.col("documents", "bytes").sum()).sort("lang")
    return {
        lang: looked[lang].tokens.total(
            documents, size, fraction=chances[lang].tokens, ends=closer.tokens.ends_documents
        )
        for lang, documents, size in known.iter_rows()
    }
