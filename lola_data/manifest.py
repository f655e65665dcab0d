"""What a unit of work took in, put out and removed, and the manifest of a whole tree added up from such reports.

Row balance, always: documents in = documents out + documents removed, by reason. :meth:`UnitReport.check` raises when
a stage breaks it. Of one language, in + relabelled_in = out + removed + relabelled_out, where the two are the documents
that came from the folders of other languages and that went there. Everything here is deterministic: times are kept in
the logs, not in the manifest.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lola_data.buffers import count_characters, string_buffer, string_chunks
from lola_data.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lola_data.buffers import Text

FORMAT = 2
"""Version of the manifest's layout."""
NOT_CONTENT = frozenset({"forecast", "made_by"})
"""Keys that say nothing about the tree, and are in no digest of a manifest."""


def made_by() -> dict[str, str]:
    """The package and its version, for the key ``made_by``."""
    return {"lola-data": version("lola-data")}


@dataclass(slots=True)
class Counts:
    """Sizes of a set of documents."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    """UTF-8 bytes of the texts."""
    tokens: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        self.documents += other.documents
        self.characters += other.characters
        self.bytes += other.bytes
        self.tokens += other.tokens
        return self

    def __isub__(self, other: Counts) -> Counts:
        self.documents -= other.documents
        self.characters -= other.characters
        self.bytes -= other.bytes
        self.tokens -= other.tokens
        return self

    @classmethod
    def of(cls, text: Text, *, tokens: int = 0) -> Counts:
        """Sizes of a string array of valid UTF-8 (nulls count as empty documents)."""
        found = cls(documents=len(text), tokens=tokens)
        for chunk in string_chunks(text):
            data, offsets = string_buffer(chunk)
            start, stop = int(offsets[0]), int(offsets[-1])
            found.bytes += stop - start
            found.characters += count_characters(data[start:stop])
        return found

    def to_json(self) -> dict[str, int]:
        """A plain dict; ``Counts(**value)`` is its inverse."""
        return {
            "documents": self.documents,
            "characters": self.characters,
            "bytes": self.bytes,
            "tokens": self.tokens,
        }


@dataclass(slots=True)
class OutputFile:
    """A file written by a unit."""

    path: str
    """Relative to the work folder."""
    bytes: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict; ``OutputFile(**value)`` is its inverse."""
        return {"path": self.path, "bytes": self.bytes, "rows": self.rows}


@dataclass(slots=True)
class UnitReport:
    """What one unit of work did. Kept as JSON; the record that it is finished."""

    key: str
    taken: dict[str, Counts] = field(default_factory=dict)
    """Folder -> documents read."""
    given: dict[str, Counts] = field(default_factory=dict)
    """Folder -> documents written to the stage's tree."""
    removed: dict[str, dict[str, Counts]] = field(default_factory=dict)
    """Folder they lay in -> reason -> documents removed."""
    files: list[OutputFile] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """What a stage wants to tell its own last step."""

    def take(self, lang: str, counts: Counts) -> None:
        """Count documents read."""
        self.taken.setdefault(lang, Counts()).__iadd__(counts)

    def give(self, lang: str, counts: Counts) -> None:
        """Count documents written."""
        self.given.setdefault(lang, Counts()).__iadd__(counts)

    def remove(self, lang: str, reason: str, counts: Counts) -> None:
        """Count documents removed."""
        if counts.documents:
            self.removed.setdefault(lang, {}).setdefault(reason, Counts()).__iadd__(counts)

    def moved(self, lang: str) -> tuple[Counts, Counts]:
        """Documents that came into a folder from others, and that left it for others.

        It follows from what the folder was given and what it had to give, exactly so for a unit that reads one folder,
        as all do; of a unit that reads several, what they exchange cancels out.
        """
        had, given = Counts(), self.given.get(lang, Counts())
        had += self.taken.get(lang, Counts())
        for gone in self.removed.get(lang, {}).values():
            had -= gone
        if given.documents == had.documents:
            return Counts(), Counts()
        more, less = (given, had) if given.documents > had.documents else (had, given)
        difference = Counts()
        difference += more
        difference -= less
        return (difference, Counts()) if more is given else (Counts(), difference)

    def check(self) -> None:
        """Raise StageError unless documents in = documents out + removed."""
        check_row_balance(self.key, self.taken, self.given, self.removed)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "key": self.key,
            "taken": {lang: counts.to_json() for lang, counts in self.taken.items()},
            "given": {lang: counts.to_json() for lang, counts in self.given.items()},
            "removed": {
                lang: {reason: counts.to_json() for reason, counts in reasons.items()}
                for lang, reasons in self.removed.items()
            },
            "files": [file.to_json() for file in self.files],
            "extra": self.extra,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnitReport:
        """The inverse of :meth:`to_json`."""
        return cls(
            key=value["key"],
            taken={lang: Counts(**counts) for lang, counts in value["taken"].items()},
            given={lang: Counts(**counts) for lang, counts in value["given"].items()},
            removed={
                lang: {reason: Counts(**counts) for reason, counts in reasons.items()}
                for lang, reasons in value["removed"].items()
            },
            files=[OutputFile(**file) for file in value["files"]],
            extra=value["extra"],
        )


def check_row_balance(
    name: str, taken: dict[str, Counts], given: dict[str, Counts], removed: dict[str, dict[str, Counts]]
) -> None:
    """Raise StageError unless documents in = documents out + documents removed, over all languages."""
    came = sum(counts.documents for counts in taken.values())
    went = sum(counts.documents for counts in given.values())
    gone = sum(counts.documents for reasons in removed.values() for counts in reasons.values())
    if came != went + gone:
        raise StageError(
            f"{name}: {came} documents in, but {went} out and {gone} removed: {came - went - gone} unaccounted for. "
            f"This is a fault of the stage; nothing of it is passed on"
        )


def build_manifest(
    stage: str, reports: Iterable[UnitReport], *, fingerprint: dict[str, Any], extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The manifest of a stage: totals per language, removals by reason, files, fingerprint. Plain JSON, deterministic.

    A language some of whose documents changed folder has ``relabelled_in`` or ``relabelled_out``, or both.

    Args:
        stage: name of the stage.
        reports: one per unit, any order.
        fingerprint: see :mod:`pipelines.state`.
        extra: further top-level keys (the token shards, for example).

    Raises:
        StageError: the rows do not balance.
    """
    taken: dict[str, Counts] = defaultdict(Counts)
    given: dict[str, Counts] = defaultdict(Counts)
    removed: dict[str, dict[str, Counts]] = defaultdict(lambda: defaultdict(Counts))
    arrived: dict[str, Counts] = defaultdict(Counts)
    departed: dict[str, Counts] = defaultdict(Counts)
    files: list[OutputFile] = []
    for report in sorted(reports, key=lambda report: report.key):
        for lang, counts in report.taken.items():
            taken[lang] += counts
        for lang, counts in report.given.items():
            given[lang] += counts
        for lang, reasons in report.removed.items():
            for reason, counts in reasons.items():
                removed[lang][reason] += counts
        for lang in {**report.taken, **report.given}:
            came, went = report.moved(lang)
            arrived[lang] += came
            departed[lang] += went
        files.extend(report.files)
    check_row_balance(stage, taken, given, removed)
    languages = sorted({*taken, *given})
    return {
        "format": FORMAT,
        "made_by": made_by(),
        "stage": stage,
        "fingerprint": fingerprint,
        "languages": {
            lang: {
                "in": taken.get(lang, Counts()).to_json(),
                "out": given.get(lang, Counts()).to_json(),
                "removed": {reason: counts.to_json() for reason, counts in sorted(removed.get(lang, {}).items())},
                **_relabelled(arrived[lang], departed[lang]),
            }
            for lang in languages
        },
        "totals": {
            "in": _total(taken.values()).to_json(),
            "out": _total(given.values()).to_json(),
            "removed": {
                reason: _total(reasons[reason] for reasons in removed.values() if reason in reasons).to_json()
                for reason in sorted({reason for reasons in removed.values() for reason in reasons})
            },
        },
        "files": [file.to_json() for file in sorted(files, key=lambda file: file.path)],
        **(extra or {}),
    }


def _relabelled(arrived: Counts, departed: Counts) -> dict[str, Any]:
    """The keys of documents that changed their folder; none of a language without such."""
    both = {"relabelled_in": arrived, "relabelled_out": departed}
    return {key: counts.to_json() for key, counts in both.items() if counts.documents}


def _total(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for one in counts:
        total += one
    return total
