"""The phase ``match`` of dedup: signatures of a language, or of a part of it -> decisions on the documents in clusters.

Signatures are read a few columns at a time; texts are read again only for documents that LSH proposes. A decisions file
has a frame per unit and names documents by id: those removed, and those kept in favour of others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lola_data.clusters import REASONS, Decisions, deduplicate, priority_order
from lola_data.errors import StageError
from lola_data.frames import Frames, FrameWriter
from lola_data.manifest import UnitReport
from lola_data.shingles import shingle, unique_sorted
from lola_data.words import scan_words
from pipelines.partition import TEXTS, WHOLE, GroupStep, Part, PartitionStep, gathered_path
from pipelines.signatures import SignatureColumns, read_signatures, signature_schema, signatures_path
from pipelines.state import StageState
from pipelines.texts import TextReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.components import Indices, Keys
    from lola_data.layout import Layout
    from lola_data.shards import Unit
    from pipelines.texts import Texts

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

SEARCH = ("bucket_pairs", "verified_pairs", "rejected_pairs")
"""What finding the near-duplicates cost, of :class:`lola_data.clusters.Decisions`."""
SAMPLES = 3
"""Examples shown of a language that loses too much."""
SAMPLE_CHARACTERS = 100


def decisions_path(layout: Layout, lang: str, part: int) -> str:
    """Decisions on a language, or on a part of it."""
    return layout.scratch("dedup", "decisions", f"{lang}-{part:05d}.frames")


class GatheredTexts:
    """Texts of a part, by position among its documents, unit after unit."""

    def __init__(self, paths: Sequence[str], frame: int, sizes: Sequence[int]) -> None:
        self._files = [Frames(path, TEXTS) for path in paths]
        self._frame = frame
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def texts(self, positions: Indices) -> pa.Array:
        """Texts at ascending positions, large_string."""
        chunks: list[pa.Array] = []
        unit_of = np.searchsorted(self._starts, positions, side="right") - 1
        for unit in np.unique(unit_of):
            inside = positions[unit_of == unit] - self._starts[unit]
            texts = self._files[unit].read(self._frame)["text"].combine_chunks()
            chunks.append(texts.take(pa.array(inside)))
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())


class MatchStep(PartitionStep):
    """Decide on each language, in one go or part by part."""

    phase = "match"

    def needed_for(self, text_bytes: int) -> bool:
        """Always."""
        del text_bytes
        return True

    def plan(self) -> list[Part]:
        """The languages that have signatures, or their parts."""
        sizes: dict[str, int] = {}
        for unit in self.units():
            sizes[unit.lang] = sizes.get(unit.lang, 0) + unit.bytes
        parts = {report.key: report.extra["parts"] for report in self.state.reports(GroupStep.phase)}
        works: list[Part] = []
        for lang, size in sorted(sizes.items()):
            if lang in parts:
                works += [Part(lang, part, parts[lang], size // parts[lang]) for part in range(parts[lang])]
            else:
                works.append(Part(lang, 0, WHOLE, size))
        return works

    def work_from_json(self, value: dict[str, Any]) -> Part:
        """The inverse of ``to_json``."""
        return Part(**value)

    def process(self, work: Part) -> UnitReport:
        """Decide on one language, or a part of one, and write the decisions on each of its units."""
        units = self.units(work.lang)
        columns, texts = self._gathered(work, units) if work.parts != WHOLE else self._whole(units)
        decisions = self._decide(columns, texts)
        report = UnitReport(work.key)
        removed = int((~decisions.kept).sum())
        report.extra = {
            "removed": removed,
            "search": {name: getattr(decisions, name) for name in SEARCH},
            # A part does not know the share of its language that it removes.
            "samples": self._samples(decisions, columns, texts, units)
            if work.parts != WHOLE or removed > self.section.max_removed_share * decisions.keeper.size
            else [],
        }
        path = decisions_path(self.layout, work.lang, work.part)
        with FrameWriter(path, count=len(units)) as writer:
            for number, table in enumerate(_decision_tables(decisions, columns, units)):
                writer.write(number, table)
        return self.output(report, path, writer.rows)

    def _schema(self) -> pa.Schema:
        return signature_schema(self.section.bands if self.section.minhash else 0)

    def _whole(self, units: Sequence[Unit]) -> tuple[SignatureColumns, Texts]:
        paths = [signatures_path(self.layout, unit.lang, unit.name) for unit in units]
        columns = SignatureColumns([partial(read_signatures, path) for path in paths], self._schema().names)
        return columns, TextReader(self.layout.tree("identify"), units)

    def _gathered(self, work: Part, units: Sequence[Unit]) -> tuple[SignatureColumns, Texts]:
        paths = [gathered_path(self.layout, unit.lang, unit.name) for unit in units]
        tables = [Frames(path, self._schema()).read(work.part) for path in paths]
        columns = SignatureColumns([table.select for table in tables], self._schema().names)
        return columns, GatheredTexts(paths, work.parts + work.part, [table.num_rows for table in tables])

    def _decide(self, columns: SignatureColumns, reader: Texts) -> Decisions:
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
            memory_bytes=self.memory_bytes // 4,
        )

    def _samples(
        self, decisions: Decisions, columns: SignatureColumns, reader: Texts, units: Sequence[Unit]
    ) -> list[dict[str, Any]]:
        gone = np.flatnonzero(~decisions.kept)
        if not gone.size:
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
    documents: Indices, order: Indices, reader: Texts, ngram: int, digests: Keys, stage: str
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


def decision_places(layout: Layout) -> dict[str, tuple[int, list[str]]]:
    """Of each unit, by key: the number of its frame, and the decisions files of its language."""
    state = StageState(layout, "dedup")
    files: dict[str, list[str]] = {}
    for value in state.plan(MatchStep.phase) or []:
        work = Part(**value)
        files.setdefault(work.lang, []).append(decisions_path(layout, work.lang, work.part))
    places: dict[str, tuple[int, list[str]]] = {}
    counts: dict[str, int] = {}
    for value in state.plan("signatures") or []:
        lang = value["lang"]
        number = counts.get(lang, 0)
        counts[lang] = number + 1
        places[f"{lang}/{value['name']}"] = (number, files.get(lang, []))
    return places


def read_decisions(frame: int, paths: Sequence[str]) -> pa.Table:
    """The decisions on the documents of one unit, from all parts of its language."""
    tables = [Frames(path, DECISIONS).read(frame) for path in paths]
    return pa.concat_tables(tables) if tables else DECISIONS.empty_table()
