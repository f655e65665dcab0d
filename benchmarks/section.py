"""Sections of RESULTS.md that are no race of contenders: what each is given, and what it tells.

A new one is a module with a ``SECTION`` and a line in :data:`SECTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Row
    from benchmarks.summary import Entry

SECTIONS = {
    "quality": "benchmarks.quality",
    "hard": "benchmarks.hard",
    "memory": "benchmarks.memory",
    "scale": "benchmarks.scale",
    "limits": "benchmarks.limits",
    "loader": "benchmarks.loader",
    "balance": "benchmarks.stages.balance",
    "cost": "benchmarks.cost",
    "chaos": "benchmarks.chaos.section",
}
"""Name on the command line -> module, in the order of RESULTS.md, after the stages."""


@dataclass(frozen=True)
class Bench:
    """What a section is given.

    Attributes:
        corpus: of this run.
        work: a folder of the section's own; what it leaves there is deleted.
        rounds: of the stages.
        say: tells the user how far it is.
        measured: rows of the stages that this run has measured already on that corpus.
    """

    corpus: Corpus
    work: Path
    rounds: int
    say: Callable[[str], None] = lambda line: None
    measured: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What a section found out.

    Attributes:
        body: Markdown, tables with what they need to be understood.
        entries: its lines in the summary.
        values: the same for programs.
        sound: whether everything held that must; if not, the command ends with code 1.
    """

    body: str
    entries: Sequence[Entry]
    values: Any
    sound: bool


@dataclass(frozen=True)
class Section:
    """A section. ``versions``: distributions whose versions are told."""

    name: str
    title: str
    measure: Callable[[Bench], Told]
    versions: tuple[str, ...] = ()


def load_section(name: str) -> Section:
    """The section of this name."""
    return import_module(SECTIONS[name]).SECTION
