"""Stage ``exact``: texts in memory to the documents that stay when each text is kept once.

Texts are the same if they are so case-folded, in NFC, with white space trimmed and collapsed. The others appear twice:
making that text themselves, which is the same work, and over the bytes as they are, which is less.

Ours is :func:`lola_data.words.scan_words` and :func:`lola_data.components.first_equal`, which the stage ``dedup``
calls; the words that the first finds on its way are of no use here.
"""

from __future__ import annotations

import unicodedata
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.signatures import batches, prepare, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Finish, Task, Work

OURS = "lola-data scan_words + first_equal"
FAST_DEDUP, FAST_DEDUP_BYTES = (
    "fast-dedup BloomFilter, normalised in Python",
    "fast-dedup BloomFilter, bytes as they are",
)
POLARS, POLARS_BYTES = "polars unique, normalised by expressions", "polars unique, bytes as they are"
DUCKDB, DUCKDB_BYTES = "DuckDB GROUP BY, normalised in SQL", "DuckDB GROUP BY, bytes as they are"
ERRORS = 1e-6
"""Rate of false positives that the Bloom filter is made for."""
KEPT = "kept.npy"


def _save(rows: Any, out: Path) -> Finish:
    import numpy as np

    return lambda: np.save(out / KEPT, np.asarray(rows, dtype=np.int64))


def load_ours(task: Task) -> Work:
    """Digests of all texts, then the first of each."""
    import numpy as np

    from lola_data.components import first_equal
    from lola_data.words import scan_words

    columns = [batch["text"] for batch in batches(task.corpus, ["text"])]
    first_equal(scan_words(columns[0].slice(0, 2)).digests, np.arange(2))

    def work() -> Finish:
        digests = np.concatenate([scan_words(column).digests for column in columns])
        everyone = np.arange(len(digests))
        return _save(np.flatnonzero(first_equal(digests, everyone) == everyone), task.out)

    return work


def _frame(corpus: Corpus) -> Any:
    """The texts as one Arrow table, with their numbers."""
    import numpy as np
    import pyarrow as pa

    column = pa.chunked_array([batch["text"] for batch in batches(corpus, ["text"])])
    return pa.table({"row": np.arange(len(column)), "text": column})


def _load_polars(*, normalise: bool) -> Callable[[Task], Work]:
    def load(task: Task) -> Work:
        polars: Any = import_module("polars")
        frame = polars.from_arrow(_frame(task.corpus))
        text = polars.col("text")
        if normalise:
            text = text.str.to_lowercase().str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars()
        frame.head(2).select("row", text).unique("text")

        def work() -> Finish:
            kept = frame.lazy().select("row", text).unique("text", keep="first", maintain_order=True)
            return _save(kept.select("row").collect()["row"].to_numpy(), task.out)

        return work

    return load


def _load_duckdb(*, normalise: bool) -> Callable[[Task], Work]:
    def load(task: Task) -> Work:
        duckdb: Any = import_module("duckdb")
        connection = duckdb.connect(":memory:", config={"threads": 1})
        connection.register("texts", _frame(task.corpus))
        connection.execute("CREATE TABLE documents AS SELECT * FROM texts")
        text = r"trim(regexp_replace(nfc_normalize(lower(text)), '\s+', ' ', 'g'))" if normalise else "text"

        def work() -> Finish:
            query = f'SELECT min("row") AS kept FROM (SELECT "row", {text} AS plain FROM documents) GROUP BY plain'
            return _save(connection.execute(query).fetchnumpy()["kept"], task.out)

        return work

    return load


def _load_fast_dedup(*, normalise: bool) -> Callable[[Task], Work]:
    def load(task: Task) -> Work:
        fast_dedup: Any = import_module("fast_dedup")
        read = texts(task.corpus)

        def work() -> Finish:
            seen = fast_dedup.BloomFilter(len(read), ERRORS)
            kept: list[int] = []
            for row, text in enumerate(read):
                plain = " ".join(unicodedata.normalize("NFC", text.casefold()).split()) if normalise else text
                if not seen.contains(plain):
                    seen.add(plain)
                    kept.append(row)
            return _save(kept, task.out)

        return work

    return load


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """The same documents stay with all that work on the same text."""
    import numpy as np

    from benchmarks.alike import normalised

    first: dict[str, int] = {}
    for row, text in enumerate(texts(corpus)):
        first.setdefault(normalised(text), row)
    truth = set(first.values())
    found: list[Agreement] = []
    for name, folder in outputs.items():
        kept = set(np.load(folder / KEPT).tolist())
        more, fewer = len(kept - truth), len(truth - kept)
        text = f"{len(kept):,} stay, " + ("the same" if not more and not fewer else f"{more} more, {fewer} fewer")
        bytes_only = name in (POLARS_BYTES, DUCKDB_BYTES, FAST_DEDUP_BYTES)
        found.append(Agreement(name, text, None if bytes_only else not more and not fewer))
    return found


STAGE = Stage(
    name="exact",
    title="exact duplicates of normalised text, texts in memory",
    contenders=(
        Contender(OURS, load_ours),
        Contender(FAST_DEDUP, _load_fast_dedup(normalise=True), needs=("fast_dedup",), goal=1.5),
        Contender(POLARS, _load_polars(normalise=True), needs=("polars",), goal=3),
        Contender(DUCKDB, _load_duckdb(normalise=True), needs=("duckdb",), goal=3),
        Contender(FAST_DEDUP_BYTES, _load_fast_dedup(normalise=False), needs=("fast_dedup",)),
        Contender(POLARS_BYTES, _load_polars(normalise=False), needs=("polars",)),
        Contender(DUCKDB_BYTES, _load_duckdb(normalise=False), needs=("duckdb",)),
    ),
    agree=agree,
    prepare=prepare,
    versions=("fast-dedup", "polars", "duckdb"),
)
