"""Phase 2 of dedup: the signatures of all units of a language -> a decision for each document that is in a cluster.

Signatures are read a column at a time; texts are read again, by row group, only for documents that LSH proposes. A
decisions file per unit names documents by id: those removed, and those kept in favour of others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.clusters import REASONS, Decisions, deduplicate, priority_order
from lola_data.errors import StageError
from lola_data.manifest import OutputFile, UnitReport
from lola_data.schemas import IDENTIFIED
from lola_data.shards import ShardWriter, Unit, open_parquet, read_batches
from lola_data.shingles import shingle, unique_sorted
from lola_data.words import scan_words
from pipelines.stage import LanguageWork, ShardStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.components import Indices, Keys
    from lola_data.layout import Layout
    from lola_data.sections import DedupSection

DECISIONS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("kept_id", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("cluster_size", pa.int32()),
    ]
)
"""A row for each document of a unit that is removed (``reason``, ``kept_id``, perhaps ``similarity``) or that others
are removed for (``cluster_size``)."""

HELD_BYTES = 1 << 28
"""Bound on the columns of a language's signatures that are held beside the one in use."""
ID_BYTES = 100
"""Generous guess at the memory an id takes."""
SAMPLES = 3
"""Examples shown of a language that loses too much."""
SAMPLE_CHARACTERS = 100


def signatures_path(layout: Layout, lang: str, name: str) -> str:
    """Signatures file of a unit."""
    return layout.scratch("dedup", "signatures", lang, f"{name}.parquet")


def decisions_path(layout: Layout, lang: str, name: str) -> str:
    """Decisions file of a unit."""
    return layout.scratch("dedup", "decisions", lang, f"{name}.parquet")


def read_scratch(path: str, columns: list[str]) -> pa.Table:
    """Columns of an intermediate file."""
    with open_parquet(path) as file:
        return file.read(columns=columns)


class SignatureColumns:
    """The signatures of a language's units, put in order of id; numbers are read a few columns at a time.

    ``order`` (N,) int64: position among all rows, unit after unit, of the document that comes n-th by id (the shard's
    name, then the row as a number). Raises StageError where two rows have one id.
    """

    def __init__(self, layout: Layout, units: Sequence[Unit], *, held_bytes: int = HELD_BYTES) -> None:
        self._paths = [signatures_path(layout, unit.lang, unit.name) for unit in units]
        with open_parquet(self._paths[0]) as file:
            self._numeric = [name for name in file.schema_arrow.names if name != "id"]
        self._held: dict[str, pa.ChunkedArray] = {}
        self._held_ids: list[pa.Array] = []
        self.order = self._order()
        # A small language is read in one go, a large one a column at a time.
        self._together = max(1, held_bytes // (8 * max(1, self.order.size)))
        if self.order.size * ID_BYTES <= held_bytes:
            self._held_ids = [self.ids(unit) for unit in range(len(self._paths))]

    def ids(self, unit: int) -> pa.Array:
        """The ids of a unit, in the order of its rows."""
        if self._held_ids:
            return self._held_ids[unit]
        return read_scratch(self._paths[unit], ["id"])["id"].combine_chunks()

    def column(self, name: str) -> npt.NDArray[Any]:
        """A numeric column over all units, in order of id; null reads as 0."""
        return pc.fill_null(self._read(name), 0).to_numpy()[self.order]

    def pair(self, name: str) -> Keys:
        """A 128-bit hash as (N, 2) uint64."""
        return np.stack([self.column(f"{name}_{half}") for half in (0, 1)], axis=1)

    def present(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a column is not null, in order of id."""
        return self._read(name).is_valid().to_numpy()[self.order]

    def _read(self, name: str) -> pa.ChunkedArray:
        if name not in self._held:
            first = self._numeric.index(name) // self._together * self._together
            names = self._numeric[first : first + self._together]
            self._held.clear()
            table = pa.concat_tables([read_scratch(path, names) for path in self._paths])
            self._held = {one: table[one] for one in names}
        return self._held[name]

    def _order(self) -> Indices:
        prefixes: dict[str, int] = {}
        codes: list[Indices] = []
        rows: list[Indices] = []
        for unit in range(len(self._paths)):
            prefix, row = split_ids(self.ids(unit))
            encoded = prefix.dictionary_encode()
            known = np.array(
                [prefixes.setdefault(value, len(prefixes)) for value in encoded.dictionary.to_pylist()], dtype=np.int64
            )
            codes.append(known[encoded.indices.to_numpy()])
            rows.append(row)
        by_name = np.argsort(np.array(list(prefixes)), kind="stable")
        rank = np.empty(len(prefixes), dtype=np.int64)
        rank[by_name] = np.arange(len(prefixes))
        shard, row = rank[np.concatenate(codes)], np.concatenate(rows)
        order = np.lexsort((row, shard))
        repeated = np.flatnonzero((np.diff(shard[order]) == 0) & (np.diff(row[order]) == 0))
        if repeated.size:
            name = list(prefixes)[by_name[shard[order[repeated[0]]]]]
            number = row[order[repeated[0]]]
            raise StageError(
                f"dedup: the id `{name}{'' if number < 0 else f'/{number}'}` is there twice; ids must be unique in a "
                f"language. Run the stage `identify` on the raw shards again"
            )
        return order


def split_ids(ids: pa.Array) -> tuple[pa.Array, Indices]:
    """Ids ``<lang>/<shard>/<row>`` as ``<lang>/<shard>`` and the row; an id of another form is whole, with row -1."""
    compute = cast("Any", pc)
    parts = compute.extract_regex(ids, r"(?s)^(?P<shard>.*)/(?P<row>0|[1-9][0-9]{0,17})$")
    row = compute.fill_null(compute.struct_field(parts, "row").cast(pa.int64()), -1)
    return compute.coalesce(compute.struct_field(parts, "shard"), ids), row.to_numpy()


class TextReader:
    """Texts of the rows of a language's units, by position among all rows, unit after unit."""

    def __init__(self, root: str, units: Sequence[Unit]) -> None:
        self._root = root
        # One piece per row group, so that no other group is decoded.
        self._pieces: list[Unit] = []
        for unit in units:
            with open_parquet(storage.join(root, unit.path)) as file:
                for group in range(unit.first_group, unit.last_group):
                    rows = file.metadata.row_group(group).num_rows
                    self._pieces.append(replace(unit, first_group=group, last_group=group + 1, rows=rows))
        self._starts = np.concatenate([[0], np.cumsum([piece.rows for piece in self._pieces])]).astype(np.int64)

    def texts(self, positions: Indices) -> pa.Array:
        """Texts at ascending positions, large_string."""
        chunks: list[pa.Array] = []
        piece_of = np.searchsorted(self._starts, positions, side="right") - 1
        for piece in np.unique(piece_of):
            wanted = positions[piece_of == piece] - self._starts[piece]
            passed = 0
            for batch in read_batches(self._root, self._pieces[piece], IDENTIFIED, columns=["text"]):
                inside = wanted[(wanted >= passed) & (wanted < passed + batch.num_rows)] - passed
                if inside.size:
                    chunks.append(batch["text"].take(pa.array(inside)).cast(pa.large_string()))
                passed += batch.num_rows
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())


class MatchStep(ShardStep):
    """Phase 2: decide for each language."""

    phase = "match"

    def __init__(self, layout: Layout, stage: str, *, section: DedupSection, seed: int) -> None:
        super().__init__(layout, stage)
        self.section = section
        self.seed = seed

    def plan(self) -> list[LanguageWork]:
        """The languages that have signatures."""
        sizes: dict[str, int] = {}
        for unit in self._units():
            sizes[unit.lang] = sizes.get(unit.lang, 0) + unit.bytes
        return [LanguageWork(lang, size) for lang, size in sorted(sizes.items())]

    def work_from_json(self, value: dict[str, Any]) -> LanguageWork:
        """The inverse of ``to_json``."""
        return LanguageWork(**value)

    def _units(self) -> list[Unit]:
        return [Unit(**value) for value in self.state.plan("signatures") or []]

    def process(self, work: LanguageWork) -> UnitReport:
        """Decide on one language and write the decisions of each of its units."""
        units = [unit for unit in self._units() if unit.lang == work.lang]
        columns = SignatureColumns(self.layout, units)
        reader = TextReader(self.layout.tree("identify"), units)
        decisions = self._decide(columns, reader)
        report = UnitReport(work.lang)
        removed = int((~decisions.kept).sum())
        report.extra = {
            "documents": int(decisions.keeper.size),
            "removed": removed,
            "search": {
                "bucket_pairs": decisions.bucket_pairs,
                "verified_pairs": decisions.verified_pairs,
                "rejected_pairs": decisions.rejected_pairs,
            },
            "samples": self._samples(decisions, columns, reader, units),
        }
        for unit, table in zip(units, _decision_tables(decisions, columns, units), strict=True):
            path = decisions_path(self.layout, unit.lang, unit.name)
            with ShardWriter(path, DECISIONS) as writer:
                for batch in table.to_batches():
                    writer.write(batch)
            relative = storage.join("scratch", self.stage, "decisions", unit.lang, f"{unit.name}.parquet")
            report.files.append(OutputFile(relative, storage.size(path), writer.rows))
        return report

    def _decide(self, columns: SignatureColumns, reader: TextReader) -> Decisions:
        section = self.section
        digests = columns.pair("digest")

        def fetch(documents: Indices) -> tuple[Keys, Indices]:
            return fetch_sets(documents, columns.order, reader, section.ngram, digests, self.stage)

        return deduplicate(
            order=priority_order(section.survivor, sizes=columns.column("bytes"), scores=columns.column("lang_score")),
            shingles=columns.column("shingles"),
            digests=digests if section.exact else None,
            urls=columns.pair("url") if section.url else None,
            has_url=columns.present("url_0") if section.url else None,
            band_keys=lambda band: columns.column(f"band_{band}"),
            bands=section.bands if section.minhash else 0,
            fetch=fetch,
            threshold=section.threshold,
        )

    def _samples(
        self, decisions: Decisions, columns: SignatureColumns, reader: TextReader, units: Sequence[Unit]
    ) -> list[dict[str, Any]]:
        gone = np.flatnonzero(~decisions.kept)
        if gone.size <= self.section.max_removed_share * decisions.keeper.size:
            return []
        shown = gone[np.linspace(0, gone.size - 1, min(SAMPLES, gone.size)).astype(np.int64)]
        ids = _ids_of(np.concatenate([shown, decisions.keeper[shown]]), columns, units)
        samples: list[dict[str, Any]] = []
        for document in shown:
            keeper = decisions.keeper[document]
            similarity = float(decisions.similarity[document])
            texts = [reader.texts(columns.order[[one]])[0].as_py() or "" for one in (document, keeper)]
            text, kept_text = (" ".join(one[: 4 * SAMPLE_CHARACTERS].split())[:SAMPLE_CHARACTERS] for one in texts)
            samples.append(
                {
                    "id": ids[int(document)],
                    "kept_id": ids[int(keeper)],
                    "reason": REASONS[decisions.reason[document]],
                    "similarity": None if np.isnan(similarity) else similarity,
                    "text": text,
                    "kept_text": kept_text,
                }
            )
        return samples


def fetch_sets(
    documents: Indices, order: Indices, reader: TextReader, ngram: int, digests: Keys, stage: str
) -> tuple[Keys, Indices]:
    """Shingle sets of documents (numbered by id order), read again from the tree.

    Raises:
        StageError: a text is not the one that was signed.
    """
    positions = order[documents]
    by_position = np.argsort(positions)
    scan = scan_words(reader.texts(positions[by_position]))
    if not np.array_equal(scan.digests, digests[documents[by_position]]):
        raise StageError(f"{stage}: its input has changed since the stage was begun. Run with `--redo {stage}`")
    values, offsets = unique_sorted(*shingle(scan.words, scan.offsets, ngram))
    if (np.diff(by_position) > 0).all():
        return values, offsets
    back = np.argsort(by_position)
    lengths = np.diff(offsets)[back]
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(offsets[:-1][back] - (ends - lengths), lengths)
    return values[places], np.concatenate([[0], ends])


def _ids_of(documents: Indices, columns: SignatureColumns, units: Sequence[Unit]) -> dict[int, str]:
    """Ids of some documents, by their number in order of id."""
    found: dict[int, str] = {}
    wanted = np.unique(documents)
    positions = columns.order[wanted]
    start = 0
    for number in range(len(units)):
        ids = columns.ids(number)
        inside = np.flatnonzero((positions >= start) & (positions < start + len(ids)))
        values = ids.take(pa.array(positions[inside] - start)).to_pylist()
        found.update(zip(wanted[inside].tolist(), values, strict=True))
        start += len(ids)
    return found


def _decision_tables(decisions: Decisions, columns: SignatureColumns, units: Sequence[Unit]) -> list[pa.Table]:
    """Per unit the decisions on its documents, in the order of its rows."""
    count = decisions.keeper.size
    keepers = np.flatnonzero(decisions.cluster_size > 1)
    keeper_ids: list[pa.Array] = []
    keeper_order: list[Indices] = []
    number_at = np.empty(count, dtype=np.int64)
    number_at[columns.order] = np.arange(count)
    unit_ids: list[tuple[int, int]] = []
    start = 0
    is_keeper = decisions.cluster_size > 1
    for number in range(len(units)):
        ids = columns.ids(number)
        documents = number_at[start : start + len(ids)]
        inside = np.flatnonzero(is_keeper[documents])
        keeper_ids.append(ids.take(pa.array(inside)))
        keeper_order.append(documents[inside])
        unit_ids.append((start, start + len(ids)))
        start += len(ids)
    ordered = pa.concat_arrays(keeper_ids).take(pa.array(np.argsort(np.concatenate(keeper_order))))
    tables: list[pa.Table] = []
    reasons = pa.array(REASONS, pa.string())
    for number, (first, last) in enumerate(unit_ids):
        documents = number_at[first:last]
        listed = np.flatnonzero((decisions.reason[documents] > 0) | is_keeper[documents])
        documents = documents[listed]
        keeper = decisions.keeper[documents]
        similarity = decisions.similarity[documents]
        place = pa.array(np.searchsorted(keepers, keeper), mask=keeper < 0)
        tables.append(
            pa.table(
                [
                    columns.ids(number).take(pa.array(listed)),
                    reasons.take(pa.array(decisions.reason[documents].astype(np.int64))),
                    ordered.take(place),
                    pa.array(similarity.astype(np.float32), mask=np.isnan(similarity)),
                    pa.array(decisions.cluster_size[documents], mask=keeper >= 0),
                ],
                schema=DECISIONS,
            )
        )
    return tables
