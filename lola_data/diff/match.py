"""Which record of one tree is which of another: two arrays of records in, pairs of positions out; NumPy throughout.

A hash may be there several times (a text that several pages have). Each is paired once: first with one in the same
language folder and of the same text, then in the same folder, then elsewhere. What is left has gone, or come.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lola_data.diff.records import RECORD
from lola_data.errors import ShardError
from lola_data.text_tables import readable_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lola_data.diff.records import Records

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """Positions in the two arrays: pairs (N, 2) int64, and those without a partner.

    Attributes:
        same: in the same folder, with the same text.
        changed: in the same folder, with another text.
        moved: in different folders.
        went: only in the first.
        came: only in the second.
    """

    same: Positions
    changed: Positions
    moved: Positions
    went: Positions
    came: Positions


def match(first: Records, second: Records) -> Matching:
    """Pair the records of two arrays."""
    ours, theirs = np.arange(first.size), np.arange(second.size)
    pairs: list[Positions] = []
    for fields in (("high", "low", "lang", "text"), ("high", "low", "lang"), ("high", "low", "text"), ("high", "low")):
        a, b = _pairs(first[ours], second[theirs], fields)
        pairs.append(np.stack([ours[a], theirs[b]], axis=1))
        ours, theirs = np.delete(ours, a), np.delete(theirs, b)
    same, changed, moved, moved_changed = pairs
    return Matching(same, changed, np.concatenate([moved, moved_changed]), ours, theirs)


def _pairs(first: Records, second: Records, fields: Sequence[str]) -> tuple[Positions, Positions]:
    """Positions of records that are alike in ``fields``, each at most once, in the order of the arrays."""
    if not first.size or not second.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    both = [np.concatenate([first[name], second[name]]) for name in fields]
    order = np.lexsort(both[::-1])  # Stable: of what is alike, the first array's come first.
    begins = np.zeros(order.size, np.bool_)
    begins[0] = True
    for column in both:
        sorted_column = column[order]
        begins[1:] |= sorted_column[1:] != sorted_column[:-1]
    group = np.cumsum(begins) - 1
    start = np.flatnonzero(begins)
    is_first = order < first.size
    ours = np.bincount(group, weights=is_first).astype(np.int64)
    theirs = np.bincount(group).astype(np.int64) - ours
    paired = np.minimum(ours, theirs)[group]
    place = np.arange(order.size) - start[group]
    a = order[is_first & (place < paired)]
    b = order[~is_first & (place - ours[group] < paired)] - first.size
    return a, b


class Shelves:
    """Records of two trees, dealt by their hash to shelves that are matched one at a time; a context manager.

    All that are alike come to one shelf. With one shelf all stays in memory; with more, they lie in files of a
    temporary folder, so that memory holds one shelf.

    Args:
        documents: of both trees together.
        memory_bytes: for the records of a shelf.
    """

    def __init__(self, documents: int, memory_bytes: int) -> None:
        # Matching takes about four times the records themselves.
        self.count = max(1, -(-documents * RECORD.itemsize * 4 // memory_bytes))
        self._held: tuple[list[Records], list[Records]] = ([], [])
        self._folder = ""
        self._stack = ExitStack()

    def __enter__(self) -> Shelves:
        if self.count > 1:
            self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lola-data-diff-"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check_space(self, documents: int) -> None:
        """Raise ShardError unless the temporary folder has room for the records of so many documents."""
        if not self._folder:
            return
        needed, free = documents * RECORD.itemsize, shutil.disk_usage(self._folder).free
        if needed > free:
            raise ShardError(
                f"{self._folder}: {readable_bytes(needed)} of hashes do not fit into the {readable_bytes(free)} free; "
                f"set TMPDIR to a folder on a bigger disk, or compare fewer languages (`--lang`)"
            )

    def add(self, side: int, records: Records) -> None:
        """Add records of the first (0) or the second (1) tree."""
        if not self._folder:
            self._held[side].append(records)
            return
        shelf = records["low"] % np.uint64(self.count)
        order = np.argsort(shelf, kind="stable")
        ends = np.searchsorted(shelf[order], np.arange(self.count + 1))
        for number in range(self.count):
            part = records[order[ends[number] : ends[number + 1]]]
            if part.size:
                with self._file(side, number).open("ab") as handle:
                    handle.write(part.tobytes())

    def __iter__(self) -> Iterator[tuple[Records, Records]]:
        """The shelves: records of the first tree, records of the second, each in the order added."""
        for number in range(self.count):
            yield self._shelf(0, number), self._shelf(1, number)

    def _shelf(self, side: int, number: int) -> Records:
        if self._folder:
            path = self._file(side, number)
            return np.fromfile(path, RECORD) if path.exists() else np.empty(0, RECORD)
        held = self._held[side]
        return np.concatenate(held) if held else np.empty(0, RECORD)

    def _file(self, side: int, number: int) -> Path:
        return Path(self._folder) / f"{side}-{number:05d}"
