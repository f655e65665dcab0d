"""What a run removed, and why: a work folder in, an :class:`Audit` of counts by stage, language, source and reason out.

Counted from the shards: the columns of the removed rows, and ``source`` of the rows kept. A stage was given what it
kept and what it removed, so the raw shards need not be at hand. ``identify`` is counted by the folder a document was
claimed for, ``dedup`` and ``sample`` by the folder it lay in. What sampling leaves out has no rows of its own: it is
the difference of two trees, its bytes are those of the manifest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.inspect.documents import Seen, with_texts
from lola_data.inspect.places import removed_of, tree_of
from lola_data.inspect.rows import read_rows, read_shard
from lola_data.schemas import IDENTIFIED, REMOVED
from lola_data.unit_hash import unit_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lola_data.balance.trees import Shard
    from lola_data.inspect.places import Place
    from lola_data.layout import Layout

STAGES = ("identify", "dedup", "sample")
"""Stages that remove, in the order of the pipeline."""
NOT_SAMPLED = "not_sampled"
Key = tuple[str, str, str]
"""Stage, folder, source."""


@dataclass
class Removal:
    """What was removed: documents, and UTF-8 bytes of their texts (None where that is not known)."""

    documents: int = 0
    bytes: int | None = 0

    def __iadd__(self, other: Removal) -> Removal:
        self.documents += other.documents
        self.bytes = None if self.bytes is None or other.bytes is None else self.bytes + other.bytes
        return self


@dataclass(frozen=True)
class AuditRow:
    """A row of the audit: documents a stage was given in a group, and what it removed of them, by reason."""

    stage: str
    group: str
    given: int
    removed: dict[str, Removal]

    @property
    def documents(self) -> int:
        """Documents removed."""
        return sum(removal.documents for removal in self.removed.values())

    @property
    def share(self) -> float:
        """Of the documents given, in [0, 1]."""
        return self.documents / self.given if self.given else 0.0


@dataclass
class Audit:
    """What a run removed.

    Attributes:
        given: (stage, folder, source) -> documents that the stage was given.
        removed: (stage, folder, source) -> reason -> what was removed.
        relabelled: (claimed folder, folder) -> documents that identify moved.
        stages: those that have been run, in order.
        given_bytes: (stage, folder) -> bytes of the texts given, as far as manifests say.
        unsampled_bytes: folder -> bytes of what was not sampled, of the manifest.
        samples: removed documents with their texts and their survivors'.
    """

    given: Counter[Key] = field(default_factory=Counter)
    removed: dict[Key, dict[str, Removal]] = field(default_factory=lambda: defaultdict(dict))
    relabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    stages: list[str] = field(default_factory=list)
    given_bytes: dict[tuple[str, str], int] = field(default_factory=dict)
    unsampled_bytes: dict[str, int] = field(default_factory=dict)
    samples: list[Seen] = field(default_factory=list)

    def rows(self, by: Literal["language", "source"], stage: str) -> list[AuditRow]:
        """One row for each language or source that the stage was given, sorted by name."""
        place = 1 if by == "language" else 2
        given: Counter[str] = Counter()
        removed: dict[str, dict[str, Removal]] = defaultdict(dict)
        for key, documents in self.given.items():
            if key[0] == stage:
                given[key[place]] += documents
        for key, reasons in self.removed.items():
            if key[0] == stage:
                for reason, removal in reasons.items():
                    removed[key[place]].setdefault(reason, Removal()).__iadd__(removal)
        if by == "language":
            for lang, size in self.unsampled_bytes.items():
                if NOT_SAMPLED in removed[lang]:
                    removed[lang][NOT_SAMPLED].bytes = size
        return [AuditRow(stage, name, given[name], removed[name]) for name in sorted(given)]

    def totals(self, stage: str) -> AuditRow:
        """The row of all that a stage was given."""
        total: dict[str, Removal] = {}
        rows = self.rows("language", stage)
        for row in rows:
            for reason, removal in row.removed.items():
                total.setdefault(reason, Removal()).__iadd__(removal)
        return AuditRow(stage, "total", sum(row.given for row in rows), total)


def audit(
    layout: Layout,
    *,
    languages: Sequence[str] = (),
    samples: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Count what a run removed.

    Args:
        layout: of the run; ``trees["download"]`` where its raw shards lie elsewhere.
        languages: only these folders (none: all).
        samples: removed documents to show for each stage and reason, of as many languages as there are.
        seed: decides which.
        progress: called with shards done and shards in all.

    Raises:
        ShardError: a shard that cannot be read.
    """
    found = Audit()
    kept = {stage: _only(tree_of(layout, stage), languages, moved=stage == "identify") for stage in STAGES}
    gone = {stage: _only(removed_of(layout, stage), languages) for stage in ("identify", "dedup")}
    # A tree whose only rows were removed has no shard, so either shows that the stage was run.
    found.stages = [stage for stage in STAGES if kept[stage] is not None or gone.get(stage) is not None]
    shards = [shard for place in (*kept.values(), *gone.values()) if place is not None for shard in place.shards]
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(shards))

    _count_kept(found, kept, languages, step)
    drawn = _Drawn(samples, seed)
    for stage, place in gone.items():
        if place is not None:
            for number, shard in enumerate(place.shards):
                _count_removed(found, stage, shard, number, drawn)
                step()
    _note_bytes(found, layout)
    found.samples = _samples(drawn, gone, layout)
    return found


def _only(place: Place | None, languages: Sequence[str], *, moved: bool = False) -> Place | None:
    """The shards of the languages; ``moved``: those, too, of rows that moved from their folders to others."""
    if place is None:
        return None
    chosen = [
        shard
        for shard in place.shards
        if not languages
        or shard.lang in languages
        or (moved and any(f".from-{lang}" in shard.path.rpartition("/")[2] for lang in languages))
    ]
    return replace(place, shards=tuple(chosen))


def _count_kept(
    found: Audit, kept: dict[str, Place | None], languages: Sequence[str], step: Callable[[], None]
) -> None:
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for stage, place in kept.items():
        counts[stage] = Counter()
        for shard in place.shards if place is not None else ():
            for claimed, source, documents in _sources(shard):
                counts[stage][shard.lang, source] += documents
                if stage == "identify" and claimed != shard.lang:
                    found.relabelled[claimed, shard.lang] += documents
                if stage == "identify" and (not languages or claimed in languages):
                    found.given[stage, claimed, source] += documents
            step()
    if "dedup" in found.stages:
        for (lang, source), documents in counts["dedup"].items():
            found.given["dedup", lang, source] += documents
    if "sample" in found.stages:
        for (lang, source), documents in counts["dedup"].items():
            found.given["sample", lang, source] += documents
            left = documents - counts["sample"][lang, source]
            if left:
                # Which bytes they are is known of a language, not of a source.
                found.removed["sample", lang, source][NOT_SAMPLED] = Removal(left, None)


def _sources(shard: Shard) -> Iterator[tuple[str, str, int]]:
    """Claimed folder, source, documents of a shard of kept rows."""
    schema = pa.schema([IDENTIFIED.field("claimed_lang"), IDENTIFIED.field("source")])
    for batch in read_shard(shard.path, shard.lang, schema):
        table = pa.table({"claimed": _text(batch["claimed_lang"], shard.lang), "source": _text(batch["source"], "")})
        for one in table.group_by(["claimed", "source"]).aggregate([([], "count_all")]).to_pylist():
            yield one["claimed"], one["source"], one["count_all"]


def _text(column: pa.Array, missing: str) -> pa.Array:
    return column.fill_null(missing)


_COUNTED = pa.schema([REMOVED.field(name) for name in ("id", "source", "reason", "bytes")])


def _count_removed(found: Audit, stage: str, shard: Shard, number: int, drawn: _Drawn) -> None:
    row = 0
    for batch in read_shard(shard.path, shard.lang, _COUNTED):
        table = pa.table(
            {
                "source": _text(batch["source"], ""),
                "reason": _text(batch["reason"], ""),
                "bytes": batch["bytes"].fill_null(0),
            }
        )
        for one in table.group_by(["source", "reason"]).aggregate([([], "count_all"), ("bytes", "sum")]).to_pylist():
            key = (stage, shard.lang, one["source"])
            removal = Removal(one["count_all"], one["bytes_sum"])
            found.removed[key].setdefault(one["reason"], Removal()).__iadd__(removal)
            found.given[key] += one["count_all"]
        drawn.offer(stage, shard.lang, number, row, batch)
        row += batch.num_rows


def _note_bytes(found: Audit, layout: Layout) -> None:
    for stage in found.stages:
        path = layout.manifest(stage)
        languages = storage.read_json(path).get("languages", {}) if storage.exists(path) else {}
        for lang, counts in languages.items():
            found.given_bytes[stage, lang] = counts["in"]["bytes"]
            if stage == "sample" and NOT_SAMPLED in counts["removed"]:
                found.unsampled_bytes[lang] = counts["removed"][NOT_SAMPLED]["bytes"]


@dataclass(order=True, frozen=True)
class _Candidate:
    order: int
    lang: str
    shard: int
    row: int


class _Drawn:
    """For each stage, reason and language the rows whose hash of (seed, id) is least."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._held: dict[tuple[str, str], dict[str, list[_Candidate]]] = defaultdict(lambda: defaultdict(list))

    def offer(self, stage: str, lang: str, shard: int, first_row: int, batch: pa.RecordBatch) -> None:
        """Take from a batch of removed rows what comes first."""
        if not self.count:
            return
        hashes = unit_hash(self.seed, batch["id"], "audit")
        for reason in pc.unique(batch["reason"]).to_pylist():
            rows = np.flatnonzero(pc.equal(batch["reason"], reason).fill_null(False).to_numpy(zero_copy_only=False))
            first = rows[np.argsort(hashes[rows], kind="stable")[: self.count]]
            held = self._held[stage, str(reason)][lang]
            held += [_Candidate(int(hashes[row]), lang, shard, first_row + int(row)) for row in first]
            held.sort()
            del held[self.count :]

    def chosen(self) -> Iterator[tuple[str, list[_Candidate]]]:
        """Stage, and the rows to show for one of its reasons: the first of each language, then the second, ..."""
        for (stage, _), languages in sorted(self._held.items(), key=lambda item: (STAGES.index(item[0][0]), item[0])):
            ranked = [(rank, one) for held in languages.values() for rank, one in enumerate(held)]
            yield stage, [one for _, one in sorted(ranked)[: self.count]]


def _samples(drawn: _Drawn, gone: dict[str, Place | None], layout: Layout) -> list[Seen]:
    found: list[Seen] = []
    for stage, chosen in drawn.chosen():
        place = gone[stage]
        assert place is not None
        for one in chosen:
            shard = place.shards[one.shard]
            found.append(Seen(place, read_rows(shard.path, shard.lang, [one.row])[one.row]))
    return with_texts(found, layout.trees.get("download"))
