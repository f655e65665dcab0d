"""Two trees compared document by document: two places in, a :class:`TreeDiff` of counts and sample documents out.

One pass over each tree makes records (:mod:`lola_data.diff.records`), which are matched by hash
(:mod:`lola_data.diff.match`). Of the texts only those of the sample documents are read a second time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import xxhash

from lola_data.diff.match import Shelves, match
from lola_data.diff.records import RECORD, Names, records_of
from lola_data.inspect.places import rows_of_shards
from lola_data.inspect.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.diff.match import Matching, Positions
    from lola_data.diff.records import Match, Records
    from lola_data.inspect.places import Place
    from lola_data.inspect.rows import Row

Kind = Literal["went", "came", "changed", "moved"]
KINDS: tuple[Kind, ...] = ("went", "came", "changed", "moved")
MEMORY_BYTES = 2**30
"""For the records in memory at one time, and the matching of them."""


@dataclass
class Changes:
    """What became of the documents of a language, a source, or both.

    first = same + changed + moved_out + went, and second = same + changed + moved_in + came.
    """

    first: int = 0
    second: int = 0
    same: int = 0
    changed: int = 0
    moved_out: int = 0
    moved_in: int = 0
    went: int = 0
    came: int = 0

    def __iadd__(self, other: Changes) -> Changes:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass(frozen=True)
class Sample:
    """A document that differs.

    Attributes:
        kind: how.
        first: its row in the first tree; None if it came.
        second: its row in the second tree; None if it went.
        why: what the other run did with it, if that is known.
    """

    kind: Kind
    first: Row | None
    second: Row | None
    why: str = ""

    @property
    def row(self) -> Row:
        """The row there is, of the first tree if there are two."""
        row = self.first or self.second
        assert row is not None
        return row


@dataclass
class TreeDiff:
    """Two trees compared.

    Attributes:
        match: what documents are known by.
        with_text: whether texts were compared; otherwise none counts as changed.
        changes: (folder, source) -> counts.
        moves: (folder in the first, folder in the second) -> documents.
        samples: by kind, from as many languages as there are.
    """

    match: Match
    with_text: bool
    changes: dict[tuple[str, str], Changes] = field(default_factory=lambda: defaultdict(Changes))
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    def by(self, what: Literal["language", "source"]) -> dict[str, Changes]:
        """Counts by folder or by source, sorted by name."""
        found: dict[str, Changes] = defaultdict(Changes)
        for (lang, source), changes in self.changes.items():
            found[lang if what == "language" else source] += changes
        return dict(sorted(found.items()))

    @property
    def totals(self) -> Changes:
        """Counts of all."""
        total = Changes()
        for changes in self.changes.values():
            total += changes
        return total


def compare_trees(
    first: Place,
    second: Place,
    *,
    match_by: Match,
    with_text: bool = True,
    samples: int = 0,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> TreeDiff:
    """Compare two trees of text.

    Args:
        first: the tree before.
        second: the tree after.
        match_by: ``id``, or ``text``: then no document counts as changed.
        with_text: compare the texts of documents with the same id.
        samples: documents of each kind to show.
        seed: decides which.
        memory_bytes: for the records; with more of them, they are kept in files of a temporary folder.
        progress: called with shards done and shards in all.

    Raises:
        ShardError: a shard that cannot be read, or no room for the temporary files.
    """
    languages, sources = Names(), Names()
    documents = sum(map(sum, (rows_of_shards(first), rows_of_shards(second))))
    found = TreeDiff(match_by, with_text or match_by == "text")
    drawn = _Draw(samples, seed)
    shards = len(first.shards) + len(second.shards)
    with Shelves(documents, memory_bytes) as shelves:
        shelves.check_space(documents)
        done = 0
        for side, place in enumerate((first, second)):
            for records in records_of(place, match_by, languages, sources, with_text=with_text):
                shelves.add(side, records)
                if progress is not None and records.size:
                    progress(done + int(records["file"][0]) + 1, shards)
            done += len(place.shards)
        for ours, theirs in shelves:
            matching = match(ours, theirs)
            _count(found, matching, ours, theirs, languages, sources)
            drawn.offer(matching, ours, theirs)
    found.samples = _rows_of(drawn, first, second)
    found.changes = dict(sorted(found.changes.items()))
    return found


def _count(
    found: TreeDiff, matching: Matching, first: Records, second: Records, languages: Names, sources: Names
) -> None:
    names = [*languages.numbers], [*sources.numbers]

    def add(name: str, records: Records) -> None:
        width = len(names[1])
        counts = np.bincount(records["lang"].astype(np.int64) * width + records["source"])
        for pair in np.flatnonzero(counts).tolist():
            changes = found.changes[names[0][pair // width], names[1][pair % width]]
            setattr(changes, name, getattr(changes, name) + int(counts[pair]))

    add("first", first)
    add("second", second)
    add("same", first[matching.same[:, 0]])
    add("changed", first[matching.changed[:, 0]])
    add("moved_out", first[matching.moved[:, 0]])
    add("moved_in", second[matching.moved[:, 1]])
    add("went", first[matching.went])
    add("came", second[matching.came])
    folders = zip(
        first["lang"][matching.moved[:, 0]].tolist(), second["lang"][matching.moved[:, 1]].tolist(), strict=True
    )
    for (left, entered), count in Counter(folders).items():
        found.moves[names[0][left], names[0][entered]] += count


_DRAWN = np.dtype([("order", "<u8"), ("lang", "<u2"), ("first", RECORD), ("second", RECORD)])


class _Draw:
    """For each kind, of every language the ``count`` documents whose hashes come first in an order of the seed's."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._key = np.uint64(xxhash.xxh64_intdigest(f"{seed}/diff".encode()))
        self._held = {kind: np.empty(0, _DRAWN) for kind in KINDS}

    def offer(self, matching: Matching, first: Records, second: Records) -> None:
        """Take from a shelf what comes first."""
        if not self.count:
            return
        nothing = np.full(0, -1)
        pairs: dict[Kind, tuple[Positions, Positions]] = {
            "went": (matching.went, nothing),
            "came": (nothing, matching.came),
            "changed": (matching.changed[:, 0], matching.changed[:, 1]),
            "moved": (matching.moved[:, 0], matching.moved[:, 1]),
        }
        for kind, (ours, theirs) in pairs.items():
            rows = np.zeros(max(ours.size, theirs.size), _DRAWN)
            if ours.size:
                rows["first"] = first[ours]
            if theirs.size:
                rows["second"] = second[theirs]
            known = rows["first"] if ours.size else rows["second"]
            rows["lang"] = known["lang"]
            # A hash with bits turned by another is as even as it was, and in another order.
            rows["order"] = known["low"] ^ self._key
            self._held[kind] = _foremost(np.concatenate([self._held[kind], rows]), self.count)

    def chosen(self, kind: Kind) -> Records:
        """The documents of a kind to show: the first of each language, then the second of each, up to ``count``."""
        held = self._held[kind]
        return held[np.lexsort((held["order"], _rank(held["lang"])))][: self.count]


def _foremost(rows: Records, count: int) -> Records:
    """Of each language the ``count`` first, by language and order."""
    rows = rows[np.lexsort((rows["order"], rows["lang"]))]
    return rows[_rank(rows["lang"]) < count]


def _rank(sorted_values: Records) -> Positions:
    """Number of each value among those equal to it, of a sorted array."""
    return np.arange(sorted_values.size) - np.searchsorted(sorted_values, sorted_values)


def _rows_of(drawn: _Draw, first: Place, second: Place) -> list[Sample]:
    if not drawn.count:
        return []
    chosen = {kind: drawn.chosen(kind) for kind in KINDS}
    ours = _read(first, [record for kind in ("went", "changed", "moved") for record in chosen[kind]["first"]])
    theirs = _read(second, [record for kind in ("came", "changed", "moved") for record in chosen[kind]["second"]])
    found: list[Sample] = []
    for kind in KINDS:
        for one in chosen[kind]:
            a, b = (rows.get((int(record["file"]), int(record["row"]))) for rows, record in
                    ((ours, one["first"]), (theirs, one["second"])))  # fmt: skip
            found.append(Sample(kind, None if kind == "came" else a, None if kind == "went" else b))
    return found


def _read(place: Place, records: Sequence[Records]) -> dict[tuple[int, int], Row]:
    by_file: dict[int, list[int]] = defaultdict(list)
    for record in records:
        by_file[int(record["file"])].append(int(record["row"]))
    found: dict[tuple[int, int], Row] = {}
    for file, numbers in by_file.items():
        shard = place.shards[file]
        found |= {(file, number): row for number, row in read_rows(shard.path, shard.lang, numbers).items()}
    return found
