"""Documents that may be shipped, read from the folder that the sample is built from.

In: a folder with ``udhr.parquet`` (the Universal Declaration of Human Rights, a row a paragraph) and
``culturax_sample/`` (CulturaX-shaped shards; ``provenance.parquet`` there has the origin of every row). Out: documents
by language, of the origins in ``LICENCES`` alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lola_data.languages import LANGUAGES, unicode_scripts
from lola_data.resources.sample_plants import Document, fraction
from lola_data.schemas import RAW

if TYPE_CHECKING:
    from pathlib import Path

LICENCES = {
    "udhr": "free of copyright",
    "libreoffice-help": "MPL-2.0",
    "gnome-user-docs": "CC-BY-SA-3.0",
    "mozilla-legal-docs": "CC-BY-SA-3.0",
    "contributor-covenant": "CC-BY-4.0",
    "thaigov-corpus": "public domain",
}
"""Origins that may be shipped, and the terms of each. All else in the folder (GPL, or unclear) is left out."""

SHORTEST = {"zh": 110, "wuu": 110, "ja": 110, "ko": 110}
"""Fewest characters of a document in scripts that need few; elsewhere 300."""


def read_shards(data: Path) -> dict[str, list[Document]]:
    """Documents of the origins in LICENCES, by language."""
    table = pq.read_table(data / "culturax_sample" / "provenance.parquet")
    table = table.filter(pc.is_in(table["origin"], pa.array(list(LICENCES))))
    origins = {(row["file"], row["row"]): row for row in table.to_pylist()}
    documents: dict[str, list[Document]] = defaultdict(list)
    for path in sorted(data.glob("culturax_sample/*/*.parquet")):
        lang = path.parent.name
        for at, row in enumerate(pq.read_table(path, columns=RAW.names).to_pylist()):
            origin = origins.get((path.name, at))
            if origin is None:
                continue
            documents[lang].append(
                Document(
                    lang,
                    row["text"],
                    row["timestamp"],
                    row["url"],
                    row["source"],
                    origin["origin"],
                    origin["origin_doc"],
                    LICENCES[origin["origin"]],
                    fraction("order", lang, origin["origin"], origin["origin_doc"], at),
                )
            )
    return documents


def read_udhr(data: Path) -> dict[str, list[Document]]:
    """The Declaration cut into documents: consecutive paragraphs, joined until they are long enough.

    One version of it for each language, in the script that most of the language's text is in; for Serbian both.
    """
    rows = pq.read_table(
        data / "udhr.parquet",
        columns=["culturax", "script", "udhr_code", "primary", "kind", "article", "text"],
        filters=[("primary", "==", True), ("kind", "in", ["preamble", "article"])],
    ).to_pylist()
    documents: dict[str, list[Document]] = defaultdict(list)
    waiting: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        lang, code = row["culturax"], row["udhr_code"]
        if lang not in LANGUAGES or row["script"] not in (
            *LANGUAGES[lang].scripts[: 2 if lang == "sr" else 1],
            "Hani",
            "Hang",
        ):
            continue
        waiting[code].append(row["text"])
        text = "\n".join(waiting[code])
        if len(text) < shortest(lang):
            continue
        waiting[code].clear()
        documents[lang].append(dated(lang, text, code, row["article"]))
    return documents


def _usual_scripts(lang: str) -> set[str]:
    """Script tags under which the Declaration stands: ISO 15924 codes, or Hani where those tell kinds of Han apart."""
    entry = LANGUAGES[lang]
    if lang == "sr":
        return set(entry.scripts)
    return {entry.script} | (set(unicode_scripts(lang)) if entry.script in ("Hans", "Hant", "Kore") else set())


def dated(lang: str, text: str, code: str, article: int) -> Document:
    """A document of the Declaration, with an address, source and time made up by rule (it has none of its own)."""
    page = f"{code}/{article}-{int(fraction('page', code, text) * 1e6):06d}"
    source = "mC4"
    if fraction("source", page) > 0.62:
        source = ("OSCAR-2019", "OSCAR-2109", "OSCAR-2201", "OSCAR-2301")[int(fraction("oscar", page) * 4)]
    bare = source == "OSCAR-2019"
    clock = [int(fraction(part, page) * size) for part, size in (("d", 28), ("h", 24), ("m", 60), ("s", 60))]
    year, month = 2013 + int(fraction("y", page) * 9), 1 + int(fraction("mo", page) * 12)
    stamp = f"{year}-{month:02d}-{1 + clock[0]:02d}T{clock[1]:02d}:{clock[2]:02d}:{clock[3]:02d}Z"
    url = f"https://human-rights-{code.replace('_', '-')}.example/declaration/{page.partition('/')[2]}"
    order = fraction("order", lang, page)
    return Document(
        lang, text, None if bare else stamp, None if bare else url, source, "udhr", page, LICENCES["udhr"], order
    )


def shortest(lang: str) -> int:
    """Fewest characters of a document."""
    return SHORTEST.get(lang, 300)
