"""The text a tokenizer is trained on: a balanced sample, read as a stream.

In: for each language a way to read its documents again and again as Arrow batches of ``id`` and ``text``, in any order
and shard layout. Out: per language a quota of bytes, and the documents that fill it.

Quotas follow ``share ~ bytes ** alpha`` (Conneau et al. 2020, section 3.1, there with alpha 0.3); what a language
cannot fill is shared out again among the others by the same rule, so no text is repeated. Documents are taken in the
order of a hash of (seed, id) until the quota is full; the last one is cut where the quota ends. A pass holds of a
language about four times its quota and one batch at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import ShardError, StageError
from lola_data.sampling.methods import plan
from lola_data.shards import Unit, open_parquet, plan_units, read_batches
from lola_data.unit_hash import unit_hash

DOCUMENT = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())])
"""What a batch must hold; further columns are not looked at."""

Source = Mapping[str, Callable[[], Iterable[pa.RecordBatch]]]
"""Language -> a function that starts reading its documents from the beginning."""

_CHOSEN = pa.schema([("hash", pa.uint64()), ("id", pa.string()), ("text", pa.large_string())])
_NO_PRUNE_BELOW = 2**20


@dataclass(frozen=True, slots=True)
class Size:
    """How much text a language has."""

    documents: int
    bytes: int
    """UTF-8 bytes."""


def tree_source(root: str, languages: list[str] | None = None) -> Source:
    """The languages of a tree ``<root>/<lang>/<shard>.parquet``.

    Documents of shards without an ``id`` column are named ``<lang>/<shard>/<row>``, as identify would name them.

    Raises:
        StageError: no shard there, or none of ``languages``.
    """
    units: dict[str, list[Unit]] = {}
    for unit in plan_units(root, languages=languages):
        units.setdefault(unit.lang, []).append(unit)
    missing = sorted(set(languages or ()) - units.keys())
    if missing or not units:
        what = f"no documents in {', '.join(missing)}" if missing else "no <lang>/<shard>.parquet with documents in it"
        raise StageError(f"{root}: {what}; give the root of a tree of Parquet shards that has them")
    return {lang: _reader(root, lang_units) for lang, lang_units in sorted(units.items())}


def measure(source: Source) -> dict[str, Size]:
    """Documents and bytes of each language: one pass over all text."""
    sizes: dict[str, Size] = {}
    for lang, read in source.items():
        documents = size = 0
        for batch in read():
            documents += batch.num_rows
            size += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
        sizes[lang] = Size(documents, size)
    return sizes


def quotas(sizes: Mapping[str, int], total: int, alpha: float) -> dict[str, int]:
    """Bytes of each language out of ``total``: shares ~ ``bytes ** alpha``, none beyond what the language has.

    >>> quotas({"en": 900, "sw": 100}, 100, 1.0)
    {'en': 90, 'sw': 10}
    """
    shared = plan("temperature", sizes, unit="bytes", total=total, alpha=alpha, max_epochs=1.0)
    return {lang: budget.budget for lang, budget in shared.languages.items()}


def choose(batches: Iterable[pa.RecordBatch], quota: int, seed: int, *, lang: str = "text") -> pa.Table:
    """The documents that fill ``quota`` bytes: columns ``hash``, ``id``, ``text``, in the order of the hash.

    The choice depends on the ids alone, not on the order of the documents or how they lie in batches.

    Raises:
        ShardError: a document that is not valid UTF-8.
    """
    kept = [_CHOSEN.empty_table()]
    held = 0
    bound = np.iinfo(np.uint64).max
    for batch in batches:
        hashes = unit_hash(seed, batch.column("id"), "tokenizer")
        inside = pa.array(hashes <= bound)
        ids, text = batch.column("id").filter(inside), batch.column("text").filter(inside)
        check_utf8(text, ids, lang)
        columns = [pa.array(hashes).filter(inside), ids, text.cast(pa.large_string())]
        kept.append(pa.Table.from_arrays(columns, schema=_CHOSEN))
        held += kept[-1].nbytes
        if held > 2 * quota + _NO_PRUNE_BELOW:
            kept = [_fill(pa.concat_tables(kept), quota)]
            held = kept[0].nbytes
            if _bytes(kept[0]) >= quota:
                bound = kept[0].column("hash")[-1].as_py()
    return _cut_last(_fill(pa.concat_tables(kept), quota), quota)


def _fill(table: pa.Table, quota: int) -> pa.Table:
    """The first documents in hash order that reach ``quota`` bytes together."""
    table = table.sort_by([("hash", "ascending"), ("id", "ascending")]).combine_chunks()
    ends = np.cumsum(pc.fill_null(pc.binary_length(table.column("text")), 0).to_numpy())
    return table.slice(0, int(np.searchsorted(ends, quota)) + 1)


def _cut_last(table: pa.Table, quota: int) -> pa.Table:
    """``table`` with the end of its last text removed if it reaches beyond ``quota`` bytes."""
    excess = _bytes(table) - quota
    if excess <= 0:
        return table
    last = table.column("text")[-1].as_py().encode()
    head = last[: len(last) - excess].decode(errors="ignore")
    text = pa.chunked_array(
        [*table.column("text").slice(0, table.num_rows - 1).chunks, pa.array([head], pa.large_string())]
    )
    return table.set_column(2, _CHOSEN.field("text"), text)


def _bytes(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table.column("text"))).as_py() or 0


def check_utf8(text: pa.Array, ids: pa.Array, lang: str) -> None:
    """Raise ShardError, naming the document, unless all of ``text`` is valid UTF-8."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        for row in range(len(text)):
            try:
                text[row].as_py()
            except UnicodeDecodeError as fault:
                name = ids[row].as_py()
                raise ShardError(
                    f"{name or lang}: text is not valid UTF-8 (byte {fault.start}); remove the document, or set "
                    "identify's checks to drop such rows"
                ) from error
        raise ShardError(f"{lang}: damaged text column: {error}; write the shard again") from error


def _reader(root: str, units: list[Unit]) -> Callable[[], Iterator[pa.RecordBatch]]:
    def read() -> Iterator[pa.RecordBatch]:
        for unit in units:
            named = _has_ids(root, unit)
            row = unit.first_row
            for batch in read_batches(root, unit, DOCUMENT, columns=None if named else ["text"]):
                if not named:
                    rows = pa.array(np.arange(row, row + batch.num_rows)).cast(pa.string())
                    ids = pc.binary_join_element_wise(f"{unit.lang}/{unit.shard}", rows, "/")
                    batch = pa.RecordBatch.from_arrays([ids, batch.column("text")], schema=DOCUMENT)
                row += batch.num_rows
                yield batch

    return read


def _has_ids(root: str, unit: Unit) -> bool:
    with open_parquet(storage.join(root, unit.path)) as file:
        return "id" in file.schema_arrow.names
