"""A corpus on disk: its tree of raw shards, what was planted in it, and where stages keep their inputs.

:mod:`benchmarks.build` makes one. This module is all of it that a contender's process loads.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PLANT_COLUMNS = ("kind", "lang", "file", "row", "of_file", "of_row", "jaccard")
"""Of ``planted.tsv``."""


@dataclass(frozen=True, slots=True)
class Plant:
    """One planted row, as in ``planted.tsv``.

    ``kind``: ``exact``, ``near`` or ``url``. ``file`` and ``row``: where it lies in the language's folder; ``of_file``
    and ``of_row``: its original, which comes before it. ``jaccard``: of the sets of 5 words, as measured.
    """

    kind: str
    lang: str
    file: str
    row: int
    of_file: str
    of_row: int
    jaccard: float


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk. ``facts``: what ``corpus.json`` says of it."""

    root: Path
    facts: dict[str, Any]

    @property
    def raw(self) -> Path:
        """The tree of shards."""
        return self.root / "raw"

    @property
    def others(self) -> Path:
        """A little text of every language that is not in :attr:`raw`, for comparing results; it may be missing."""
        return self.root / "others"

    @property
    def inputs(self) -> Path:
        """Where stages keep what they make of the corpus before the clock starts."""
        return self.root / "inputs"

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all texts."""
        return int(self.facts["bytes"])

    def planted(self) -> list[Plant]:
        """What was planted."""
        return read_planted(self.root)


def read_planted(root: Path) -> list[Plant]:
    """The plants of the corpus at ``root``."""
    with (root / "planted.tsv").open(encoding="utf-8", newline="") as lines:
        return [
            Plant(
                row["kind"],
                row["lang"],
                row["file"],
                int(row["row"]),
                row["of_file"],
                int(row["of_row"]),
                float(row["jaccard"]),
            )
            for row in csv.DictReader(lines, delimiter="\t")
        ]


def open_corpus(root: Path) -> Corpus:
    """The corpus at ``root``."""
    return Corpus(root, json.loads((root / "corpus.json").read_text(encoding="utf-8")))
