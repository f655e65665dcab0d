"""Which files of a source are shards, of which language, and what each is called in the raw tree.

In: paths below the root of a source, and a pattern such as ``{lang}/**`` (CulturaX), ``data/{lang}/train/*`` or
``multilingual/c4-{lang}.tfrecord-*`` (mC4). Out: for each file that is a shard its language and raw path.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_FILES = "{lang}/**"
"""A folder for each language, as CulturaX and every tree of this project has it."""
PARQUET = ".parquet"
JSON_LINES = tuple(
    f"{kind}{packed}" for kind in (".jsonl", ".json", ".ndjson") for packed in ("", ".gz", ".zst", ".bz2")
)
"""Endings of files with one JSON object a line."""
_NO_SHARDS = frozenset({"manifest.json", "dataset_infos.json", "dataset_info.json", "state.json", "croissant.json"})
_LANG = "{lang}"


@dataclass(frozen=True, slots=True)
class Match:
    """A file that is a shard."""

    lang: str
    """The project's code of the language."""
    path: str
    """Below the root of the source."""
    raw: str
    """In the raw tree: ``<lang>/<name>.parquet``."""


@dataclass(frozen=True)
class ShardPattern:
    """Tells shards from other files.

    Args:
        files: pattern of paths below the root; ``{lang}`` stands for the source's name of the language, ``*`` for
            anything inside a name, ``**`` for anything, ``?`` for one character.
        names: the project's code -> the source's name of that language, where the two differ.
    """

    files: str = DEFAULT_FILES
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.files.count(_LANG) < 1:
            raise RecipeError(f"`files: {self.files}` has no {_LANG}; write it where the source names the language")

    def name_of(self, lang: str) -> str:
        """What the source calls a language."""
        return self.names.get(lang, lang)

    def folder(self, lang: str) -> str:
        """The folder below which all shards of a language lie; "" is the root."""
        fixed = self.files.replace(_LANG, self.name_of(lang))
        return re.split(r"[*?]", fixed)[0].rpartition("/")[0]

    def match(self, path: str) -> Match | None:
        """The language and raw path of a file, or None if it is no shard."""
        ending = next((end for end in (PARQUET, *reversed(JSON_LINES)) if path.endswith(end)), None)
        parts = path.split("/")
        if ending is None or parts[-1] in _NO_SHARDS or any(part.startswith(".") or part == "" for part in parts):
            return None
        found = _compiled(self.files).fullmatch(path)
        if found is None:
            return None
        name = found["lang"]
        lang = next((code for code, other in self.names.items() if other == name), name)
        inner = path.removeprefix(self.folder(lang)).strip("/") if self.folder(lang) else path
        return Match(lang, path, f"{lang}/{inner.replace('/', '-').removesuffix(ending)}{PARQUET}")

    def matches(self, paths: Iterable[str], languages: list[str] | None) -> list[Match]:
        """The shards among ``paths`` of the languages (None: all), by raw path.

        Where a language has Parquet files, its JSON files are taken for something else.
        """
        by_lang: dict[str, list[Match]] = defaultdict(list)
        for path in paths:
            found = self.match(path)
            if found is not None and (languages is None or found.lang in languages):
                by_lang[found.lang].append(found)
        kept: list[Match] = []
        for some in by_lang.values():
            parquet = [one for one in some if one.path.endswith(PARQUET)]
            kept += parquet or some
        return sorted(kept, key=lambda one: (one.raw, one.path))

    def beside(self, paths: Iterable[str], languages: list[str] | None) -> list[str]:
        """Files of JSON lines that :meth:`matches` leaves out since their language has Parquet files, sorted.

        Not those that end in ``.json``: beside Parquet files such a file describes them.
        """
        found = [one for path in paths if (one := self.match(path)) and (languages is None or one.lang in languages)]
        parquet = {one.lang for one in found if one.path.endswith(PARQUET)}
        lines = [one.path for one in found if one.lang in parquet and not one.path.endswith(PARQUET)]
        return sorted(path for path in lines if not re.search(r"\.json(\.\w+)?$", path))


def _compiled(files: str) -> re.Pattern[str]:
    pattern = ""
    named = False
    for part in re.split(r"(\{lang\}|\*\*|\*|\?)", files):
        if part == _LANG:
            pattern += "(?P=lang)" if named else "(?P<lang>[^/]+?)"
            named = True
        else:
            pattern += {"**": ".+", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part)
    return re.compile(pattern, re.DOTALL)
