"""The 167 languages of CulturaX: codes, names, scripts, families and published sizes.

In: ``resources/languages.tsv``, read at the first look-up, so that importing this module costs next to nothing.
Out: ``LANGUAGES``, a read-only mapping from CulturaX code to ``Language``, ``language`` to look one up with a
helpful refusal, and ``unicode_scripts``, which joins a language to what a character-level script detector sees.

A CulturaX code is the label that fastText's lid.176 gives the language, not always what ISO 639 means by it:
``als`` is Alemannic (ISO 639-3 ``gsw``), ``sh`` Serbo-Croatian in Latin script, ``no`` Bokmål, ``bh`` and ``nah``
are groups without an ISO 639-3 code. ``Language.note`` says so where it matters.

Sources: document and token counts as published for CulturaX (Nguyen et al. 2023, data card), ISO 639-3, ISO 15924,
and Glottolog's top-level families, where Esperanto and its kin are "Artificial Language" and Basque stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from typing import Any

# ISO 15924 codes that name a way of writing, in terms of the Unicode Script property that its characters carry.
_WRITING_SYSTEMS: dict[str, frozenset[str]] = {
    "Hans": frozenset({"Hani"}),
    "Hant": frozenset({"Hani"}),
    "Jpan": frozenset({"Hani", "Hira", "Kana"}),
    "Kore": frozenset({"Hang", "Hani"}),
}


@dataclass(frozen=True, slots=True)
class Language:
    """One CulturaX language.

    Attributes:
        code: CulturaX code, which is the folder name and the lid.176 label.
        name: English name; published names are kept but for ``als`` and ``sh`` (see ``note``).
        iso639_3: ISO 639-3 code, or None for the group codes ``bh`` and ``nah``.
        script: ISO 15924 code of the script that most of the language's web text is in.
        scripts: every script that the language is ordinarily written in, ``script`` first.
        family: Glottolog top-level family.
        documents: documents in CulturaX, as published.
        tokens: tokens in CulturaX, or None where unpublished.
        lola_v1_docs: documents of the language in the training set of LOLA v1.
        note: what the code covers where that is not plain, else empty.
    """

    code: str
    name: str
    iso639_3: str | None
    script: str
    scripts: tuple[str, ...]
    family: str
    documents: int
    tokens: int | None
    lola_v1_docs: int
    note: str


def _load() -> dict[str, Language]:
    import csv
    from importlib.resources import files

    table = files("lola_data") / "resources" / "languages.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    return {
        row["code"]: Language(
            code=row["code"],
            name=row["name"],
            iso639_3=row["iso639_3"] or None,
            script=row["script"],
            scripts=tuple(row["scripts"].split()),
            family=row["family"],
            documents=int(row["documents"]),
            tokens=int(row["tokens"]) if row["tokens"] else None,
            lola_v1_docs=int(row["lola_v1_docs"]),
            note=row["note"],
        )
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    }


class _Languages(Mapping[str, Language]):
    """Mapping that reads the table once, when first asked."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: dict[str, Language] | None = None

    def _loaded(self) -> dict[str, Language]:
        if self._table is None:
            self._table = _load()
        return self._table

    def __getitem__(self, code: str) -> Language:
        return self._loaded()[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def __contains__(self, code: Any) -> bool:
        return code in self._loaded()

    def __repr__(self) -> str:
        return f"<{len(self)} CulturaX languages>"


LANGUAGES: Mapping[str, Language] = _Languages()
"""Every CulturaX language by code, most documents first."""


def language(code: str) -> Language:
    """The language of a CulturaX code.

    Raises:
        RecipeError: no such code; the message names the nearest valid one. An ISO 639-3 code or an English name is
            led to the CulturaX code of that language.
    """
    found = LANGUAGES.get(code)
    if found is not None:
        return found
    near = LANGUAGES[_nearest_code(code)]
    raise RecipeError(
        f"language {code!r}: not a CulturaX code; the nearest is {near.code!r} ({near.name}); "
        "`lola-data languages` lists all of them"
    )


def _nearest_code(wrong: str) -> str:
    from difflib import get_close_matches

    wanted = wrong.strip().lower()
    aliases: dict[str, str] = {}
    # Codes last, so that they win where an ISO 639-3 code or a name reads the same.
    for entry in LANGUAGES.values():
        aliases.setdefault(entry.name.lower(), entry.code)
    for entry in LANGUAGES.values():
        if entry.iso639_3:
            aliases[entry.iso639_3] = entry.code
    aliases |= {code: code for code in LANGUAGES}
    base = wanted.replace("_", "-").split("-")[0]
    for exact in (wanted, base):
        if exact in aliases:
            return aliases[exact]
    return aliases[get_close_matches(wanted, list(aliases), n=1, cutoff=0.0)[0]]


def unicode_scripts(code: str) -> frozenset[str]:
    """Scripts that a character-level detector may return for text in this language.

    ISO 15924 has codes for ways of writing that mix or specialise scripts; no single character has them. They are
    replaced by the Unicode Script values of their characters: ``Hans`` and ``Hant`` by Hani, ``Jpan`` by Hani, Hira
    and Kana, ``Kore`` by Hang and Hani. Any other code stands for itself.

    Args:
        code: CulturaX code.

    Raises:
        RecipeError: no such code.
    """
    scripts: frozenset[str] = frozenset()
    for script in language(code).scripts:
        scripts |= _WRITING_SYSTEMS.get(script, frozenset({script}))
    return scripts
