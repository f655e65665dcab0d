"""Matching a language too large for one task's memory, in four phases between the signatures and the decisions.

1. ``spread``, a unit at a time: deals the keys of its documents into parts.
2. ``tie``, a part at a time: the ties among the documents of the language that have keys in it.
3. ``group``, a language at a time: documents that hang together by ties, dealt into parts of whole groups.
4. ``gather``, a unit at a time: signatures and texts of its documents that have a tie, by part.

The phase ``match`` then decides a part as it decides a whole language: whatever can influence a document's fate is in
its part, so the decisions are those of the language in one go. A language that fits in memory skips all four.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import StageError
from lola_data.frames import Frames, FrameWriter
from lola_data.hashes import hash128
from lola_data.manifest import OutputFile, UnitReport
from lola_data.shards import Unit
from lola_data.tied_groups import TiedGroups
from lola_data.ties import ENTRY_BYTES, MOST_DOCUMENTS, deal_entries, find_ties
from pipelines.progress import say
from pipelines.signatures import read_signatures, signature_schema, signatures_path
from pipelines.stage import LanguageWork, ShardStep
from pipelines.texts import TextReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.layout import Layout
    from lola_data.sections import DedupSection

STAGE = "dedup"
DOCUMENT_BYTES = 600
"""Memory that deciding on a language in one go takes for each document, if all of them have a duplicate."""
GATHERED_BYTES = 800
"""The same for each document of a part: its signature is held too."""
WHOLE = 0
"""Parts of a language that is decided on in one go."""
TIES_FRAME = 1 << 20
"""Ties read at a time."""

ENTRIES = pa.schema([pa.field("key", pa.uint64()), pa.field("row", pa.uint32())])
TIES = pa.schema([pa.field("one", pa.uint32()), pa.field("other", pa.uint32())])
MEMBERS = pa.schema([pa.field("row", pa.uint32()), pa.field("part", pa.uint32())])
TEXTS = pa.schema([pa.field("text", pa.large_string())])


@dataclass(frozen=True, slots=True)
class UnitParts:
    """A unit, whose documents are dealt into parts."""

    unit: Unit
    parts: int

    @property
    def key(self) -> str:
        """The unit's."""
        return self.unit.key

    @property
    def bytes(self) -> int:
        """The unit's."""
        return self.unit.bytes

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"unit": self.unit.to_json(), "parts": self.parts}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a language; ``parts`` is :data:`WHOLE` where it is all of it."""

    lang: str
    part: int
    parts: int
    bytes: int

    @property
    def key(self) -> str:
        """Language and number."""
        return f"{self.lang}/{self.part:05d}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def key_parts(documents: int, section: DedupSection, memory_bytes: int) -> int:
    """Parts that the keys of a language are dealt into; 1: the language is decided on in one go.

    A recipe's ``partitions`` are taken as they are; else half the memory must hold the largest thing in hand.
    """
    if section.partitions is not None:
        return section.partitions
    if documents * DOCUMENT_BYTES <= memory_bytes // 2:
        return 1
    return -(-documents * (kinds_of(section) * ENTRY_BYTES) // (memory_bytes // 2))


def kinds_of(section: DedupSection) -> int:
    """Kinds of keys: ids, digests, URLs and bands."""
    return 1 + section.exact + section.url + (section.bands if section.minhash else 0)


def member_limit(members: int, section: DedupSection, memory_bytes: int) -> int:
    """Most documents of a part that is gathered."""
    if section.partitions is not None:
        return max(1, -(-members // section.partitions))
    return max(1, memory_bytes // 2 // GATHERED_BYTES)


def spread_path(layout: Layout, lang: str, name: str) -> str:
    """Keys of a unit, a frame a part."""
    return layout.scratch(STAGE, "spread", lang, f"{name}.frames")


def ties_path(layout: Layout, lang: str, part: int) -> str:
    """Ties that a part of the keys has shown."""
    return layout.scratch(STAGE, "ties", lang, f"{part:05d}.frames")


def members_path(layout: Layout, lang: str) -> str:
    """Documents with a tie, a frame a unit."""
    return layout.scratch(STAGE, "groups", f"{lang}.frames")


def gathered_path(layout: Layout, lang: str, name: str) -> str:
    """Documents of a unit that have a tie: a frame of signatures a part, then a frame of texts a part."""
    return layout.scratch(STAGE, "gathered", lang, f"{name}.frames")


def _batch(schema: pa.Schema, *columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=schema)


def write_keys(path: str, columns: Sequence[tuple[Any, Any]], parts: int) -> int:
    """Deal the keys of a unit's documents (:func:`lola_data.ties.deal_entries`) into a file; how many there are."""
    keys, rows, starts = deal_entries(columns, parts)
    with FrameWriter(path, count=parts) as writer:
        for part in range(parts):
            span = slice(starts[part], starts[part + 1])
            writer.write(part, _batch(ENTRIES, keys[span], rows[span]))
    return writer.rows


def write_ties(path: str, spread: Sequence[str], sizes: Sequence[int], part: int) -> int:
    """Write the ties that a part of the keys of units, of ``sizes`` documents each, shows; how many there are."""
    keys: list[Any] = []
    documents: list[Any] = []
    start = 0
    for file, size in zip(spread, sizes, strict=True):
        table = Frames(file, ENTRIES).read(part)
        keys.append(table["key"].to_numpy())
        documents.append(table["row"].to_numpy() + np.uint32(start))
        start += size
    one, other = find_ties(np.concatenate(keys), np.concatenate(documents))
    with FrameWriter(path, count=-(-one.size // TIES_FRAME)) as writer:
        for frame, first in enumerate(range(0, one.size, TIES_FRAME)):
            span = slice(first, first + TIES_FRAME)
            writer.write(frame, _batch(TIES, one[span], other[span]))
    return writer.rows


def join_ties(paths: Sequence[str], documents: int) -> TiedGroups:
    """The groups that the ties in these files make of so many documents."""
    groups = TiedGroups(documents)
    for path in paths:
        for ties in Frames(path, TIES):
            groups.mark(ties["one"].to_numpy())
            groups.mark(ties["other"].to_numpy())
    for path in paths:
        for ties in Frames(path, TIES):
            groups.join(ties["one"].to_numpy(), ties["other"].to_numpy())
    return groups


_LEAST_DOCUMENT_BYTES = 64
"""Of a row with its text and URL; a guess that errs on the side of more documents."""


class PartitionStep(ShardStep):
    """What the four phases share."""

    def __init__(self, layout: Layout, stage: str, *, section: DedupSection, memory_bytes: int) -> None:
        super().__init__(layout, stage)
        self.section = section
        self.memory_bytes = memory_bytes

    def needed_for(self, text_bytes: int) -> bool:
        """Whether one language of so many bytes may be too large for one task, and so be parted."""
        return key_parts(text_bytes // _LEAST_DOCUMENT_BYTES, self.section, self.memory_bytes) > 1

    def units(self, lang: str | None = None) -> list[Unit]:
        """The units that have signatures, of one language or of all."""
        found = [Unit(**value) for value in self.state.plan("signatures") or []]
        return [unit for unit in found if lang is None or unit.lang == lang]

    def parts(self) -> dict[str, int]:
        """Parts of the keys of each language that is dealt into parts."""
        return {value["unit"]["lang"]: value["parts"] for value in self.state.plan("spread") or []}

    def output(self, report: UnitReport, path: str, rows: int) -> UnitReport:
        """The report, with a file that was written."""
        relative = path.removeprefix(f"{self.layout.workdir.rstrip('/')}/")
        report.files.append(OutputFile(relative, storage.size(path), rows))
        return report


class SpreadStep(PartitionStep):
    """Deal the keys of each unit's documents into parts."""

    phase = "spread"

    def plan(self) -> list[UnitParts]:
        """The units of languages that one task cannot hold. What was once planned stays: files are laid out by it."""
        units = self.units()
        parts = self.parts()
        documents: dict[str, int] = {}
        for unit in units:
            documents[unit.lang] = documents.get(unit.lang, 0) + unit.rows
        for lang, count in documents.items():
            if count > MOST_DOCUMENTS:
                raise StageError(
                    f"{self.stage}: {lang}: {count:,} documents; a language may have {MOST_DOCUMENTS:,}. Move some of "
                    f"its shards to a folder of another name, and deduplicate each"
                )
            if self.state.plan(self.phase) is None:
                parts[lang] = key_parts(count, self.section, self.memory_bytes)
        return [UnitParts(unit, parts[unit.lang]) for unit in units if parts.get(unit.lang, 1) > 1]

    def work_from_json(self, value: dict[str, Any]) -> UnitParts:
        """The inverse of ``to_json``."""
        return UnitParts(Unit(**value["unit"]), value["parts"])

    def process(self, work: UnitParts) -> UnitReport:
        """Write the keys of one unit, a frame a part."""
        unit = work.unit
        path = spread_path(self.layout, unit.lang, unit.name)
        rows = write_keys(path, self._columns(unit), work.parts)
        return self.output(UnitReport(work.key), path, rows)

    def _columns(self, unit: Unit) -> list[tuple[Any, Any]]:
        section = self.section
        signatures = signatures_path(self.layout, unit.lang, unit.name)
        names = ["shingles", *(["digest_0"] if section.exact else []), *(["url_0"] if section.url else [])]
        names += [f"band_{band}" for band in range(section.bands)] if section.minhash else []
        table = read_signatures(signatures, names)
        everyone = np.ones(table.num_rows, dtype=bool)
        shingled = table["shingles"].to_numpy() > 0
        # Two rows of one id must meet, to be found out.
        ids = hash128(read_signatures(signatures, ["id"])["id"])[:, 0].copy()
        columns = [(ids, everyone)]
        for name in names[1:]:
            present = table[name].is_valid().to_numpy()
            columns.append((pc.fill_null(table[name], 0).to_numpy(), shingled if name.startswith("band") else present))
        return columns


class TieStep(PartitionStep):
    """Find the ties that a part of the keys shows."""

    phase = "tie"

    def plan(self) -> list[Part]:
        """The parts of each language that has been spread."""
        sizes: dict[str, int] = {}
        for unit in self.units():
            sizes[unit.lang] = sizes.get(unit.lang, 0) + unit.bytes
        return [
            Part(lang, part, parts, sizes[lang] // parts)
            for lang, parts in sorted(self.parts().items())
            for part in range(parts)
        ]

    def work_from_json(self, value: dict[str, Any]) -> Part:
        """The inverse of ``to_json``."""
        return Part(**value)

    def process(self, work: Part) -> UnitReport:
        """Write the ties of one part."""
        path = ties_path(self.layout, work.lang, work.part)
        units = self.units(work.lang)
        spread = [spread_path(self.layout, unit.lang, unit.name) for unit in units]
        rows = write_ties(path, spread, [unit.rows for unit in units], work.part)
        return self.output(UnitReport(work.key), path, rows)


class GroupStep(PartitionStep):
    """Deal the documents of a language that hang together by ties into parts."""

    phase = "group"

    def plan(self) -> list[LanguageWork]:
        """The languages that have been spread."""
        sizes: dict[str, int] = {}
        for report in self.state.reports(TieStep.phase):
            lang = report.key.rpartition("/")[0]
            sizes[lang] = sizes.get(lang, 0) + sum(file.bytes for file in report.files)
        return [LanguageWork(lang, size) for lang, size in sorted(sizes.items())]

    def work_from_json(self, value: dict[str, Any]) -> LanguageWork:
        """The inverse of ``to_json``."""
        return LanguageWork(**value)

    def process(self, work: LanguageWork) -> UnitReport:
        """Write the documents of one language that have a tie, with their parts."""
        units = self.units(work.lang)
        files = [ties_path(self.layout, work.lang, part) for part in range(self.parts()[work.lang])]
        groups = join_ties(files, sum(unit.rows for unit in units))
        report = UnitReport(work.key)
        groups.cut(member_limit(groups.members, self.section, self.memory_bytes))
        report.extra = {"parts": groups.parts, "members": groups.members, "largest": groups.largest}
        path = members_path(self.layout, work.lang)
        with FrameWriter(path, count=len(units)) as writer:
            start = 0
            for number, unit in enumerate(units):
                rows, parts = groups.between(start, start + unit.rows)
                writer.write(number, _batch(MEMBERS, rows, parts))
                start += unit.rows
        return self.output(report, path, writer.rows)


class GatherStep(PartitionStep):
    """Bring the documents of each unit that have a tie together by part."""

    phase = "gather"

    def plan(self) -> list[UnitParts]:
        """The units of the languages that have been spread; says where a group is larger than a part should be."""
        parts: dict[str, int] = {}
        for report in self.state.reports(GroupStep.phase):
            parts[report.key] = report.extra["parts"]
            needed = report.extra["largest"] * GATHERED_BYTES
            if needed > self.memory_bytes:
                say(
                    f"{self.stage}: {report.key}: {report.extra['largest']:,} documents hang together; deciding on "
                    f"them takes about {needed / 1e9:,.1f} GB, and --memory says {self.memory_bytes / 1e9:,.1f} GB"
                )
        return [UnitParts(unit, parts[unit.lang]) for unit in self.units() if unit.lang in parts]

    def work_from_json(self, value: dict[str, Any]) -> UnitParts:
        """The inverse of ``to_json``."""
        return UnitParts(Unit(**value["unit"]), value["parts"])

    def process(self, work: UnitParts) -> UnitReport:
        """Write signatures and texts of one unit's documents, a frame each a part."""
        unit = work.unit
        number = next(place for place, other in enumerate(self.units(unit.lang)) if other.name == unit.name)
        members = Frames(members_path(self.layout, unit.lang), MEMBERS).read(number)
        rows, part = members["row"].to_numpy().astype(np.int64), members["part"].to_numpy()
        schema = signature_schema(self.section.bands if self.section.minhash else 0)
        signatures = read_signatures(signatures_path(self.layout, unit.lang, unit.name), schema.names)
        signatures = signatures.take(pa.array(rows))
        texts = pa.table([TextReader(self.layout.tree("identify"), [unit]).texts(rows)], schema=TEXTS)
        order = np.argsort(part, kind="stable")
        starts = np.searchsorted(part[order], np.arange(work.parts + 1))
        path = gathered_path(self.layout, unit.lang, unit.name)
        with FrameWriter(path, count=2 * work.parts) as writer:
            for first, table, compression in ((0, signatures, None), (work.parts, texts, "zstd")):
                for number in range(work.parts):
                    inside = order[starts[number] : starts[number + 1]]
                    writer.write(first + number, table.take(pa.array(inside)), compression=compression)
        return self.output(UnitReport(work.key), path, writer.rows)
