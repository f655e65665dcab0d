"""Build the embedded sample corpus: ``python -m lola_data.resources.build_sample DATA [TARGET]``.

In: DATA, a folder with ``udhr.parquet`` (the Universal Declaration of Human Rights, a row a paragraph) and
``culturax_sample/`` (CulturaX-shaped shards, with the origin and licence of every row in its ``provenance.parquet``).
Out: TARGET, by default ``sample/`` beside this file:

- ``<lang>/<lang>_part_0000N.parquet``: text, timestamp, url, source;
- ``planted.tsv``: the faults put in on purpose (``sample_plants``), and where the document each was made from lies;
- ``provenance.tsv.gz``: origin, page and licence of every row;
- the table between the two markers of ``README.md``, where TARGET has one. ``NOTICE.md`` and the licence texts stay.

Only rows whose licence lets them travel in this project's data folder are read (``sample_sources``). Documents of one
language are taken in the order of a hash of their page, skipping those that share 0.4 or more of their shingles, or
their address, with one taken before: what is alike in the sample was planted. Same inputs and the same versions of
Python, pyarrow and zstd give the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq

from lola_data.languages import LANGUAGES
from lola_data.resources import sample_plants as plants
from lola_data.resources.sample_sources import dated, read_shards, read_udhr, shortest
from lola_data.schemas import RAW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.resources.sample_plants import Document

LARGE = {
    "cs": 420, "de": 420, "el": 420, "en": 420, "es": 420, "eu": 420, "fi": 420, "fr": 420, "hu": 420,
    "id": 420, "km": 420, "ko": 420, "ru": 420, "th": 400, "tr": 420, "vi": 420, "zh": 480,
}  # fmt: skip
"""Languages meant for training and measuring, and the most documents taken of each."""

MEDIUM = 90
"""Most documents taken of any other language."""

HARD = ("am", "ast", "mai", "ms", "nn", "oc", "os", "wuu", "yo")
"""Languages that lid.176 mistakes for a neighbour more than one time in five, kept so that no trouble is hidden."""

EASY = [
    "af", "als", "ar", "az", "be", "bg", "bn", "bo", "br", "ca", "ceb", "cy", "da", "dv", "eo", "et", "fa",
    "fy", "ga", "gd", "gl", "gu", "he", "hi", "hr", "hy", "ilo", "is", "it", "ja", "jv", "ka", "kk", "kn", "ku",
    "ky", "la", "lb", "lo", "lt", "lv", "mg", "mk", "ml", "mn", "mr", "mt", "my", "nds", "ne", "nl", "no", "pa",
    "pl", "pnb", "ps", "pt", "ro", "sah", "si", "sk", "sl", "sq", "sr", "su", "sv", "sw", "ta", "te", "tg",
    "tl", "tt", "ug", "uk", "ur", "uz", "yi",
]  # fmt: skip
"""The other languages: those that lid.176 names right in at least four documents of five."""

DONORS = [
    "nl", "el", "cs", "pt", "th", "fr", "pl", "en", "km", "de", "it", "ru", "ko", "ja", "uk", "vi", "tr", "hu",
    "zh",
]  # fmt: skip
"""Languages that lid.176 names right, with a score above 0.5, in at least 95 of 100 documents: where strangers come
from. They are drawn by language, never by looking at what the model says of a document."""

CONFUSABLE = [
    set(group.split())
    for group in ("hr bs sr sh", "id ms jv su min", "zh yue wuu", "no nn da", "az azb", "hi bh mai ne mr", "cs sk",
                  "es gl pt ast", "uk be ru bg mk")
]  # fmt: skip
"""Languages so close that a stranger from one in the folder of another would prove nothing."""

SMALL_WITH_COPY = [
    "ar", "bn", "bo", "hi", "hy", "ja", "ka", "lo", "my", "ta", "uk",
]  # fmt: skip
SMALL_WITH_STRANGER = [
    "ar", "ca", "da", "gu", "he", "hi", "hr", "ja", "ka", "lv", "mr", "nl", "pl", "sw", "uk",
]  # fmt: skip
SPARE = 16
"""Documents of a large language kept back to make plants of."""

ROW_GROUP = 100
PART_ROWS = 300
LONGEST = 4500

PLANT_COLUMNS = ("kind", "lang", "file", "row", "of_file", "of_row", "jaccard", "true_lang")
PROVENANCE_COLUMNS = ("lang", "file", "row", "origin", "origin_doc", "licence", "plant")


@dataclass
class Pool:
    """What was taken of one language: documents that stay, and spare ones that only serve to make plants."""

    kept: list[Document] = field(default_factory=list)
    spare: list[Document] = field(default_factory=list)


def choose(lang: str, documents: list[Document], addresses: set[str]) -> Pool:
    """Documents unlike each other, in the order of their keys."""
    pool = Pool()
    most = LARGE.get(lang, MEDIUM)
    spare = SPARE if lang in LARGE or lang in DONORS else 0
    sets: list[frozenset[str]] = []
    holders: dict[str, list[int]] = defaultdict(list)
    for document in sorted(documents, key=lambda d: (d.origin != "udhr", d.key)):
        if document.origin != "udhr" and not shortest(lang) <= len(document.text) <= LONGEST:
            continue
        address = bare_address(document.url)
        if address in addresses or len(pool.kept) >= most + spare:
            continue
        mine = plants.shingles(document.text)
        shared = Counter(at for shingle in mine for at in holders.get(shingle, ()))
        if not mine or any(n >= 0.4 * (len(mine) + len(sets[at]) - n) for at, n in shared.items()):
            continue
        for shingle in mine:
            holders[shingle].append(len(sets))
        sets.append(mine)
        pool.kept.append(document)
        if address:
            addresses.add(address)
    if spare:
        pages = [document for document in pool.kept if document.origin != "udhr"]
        pool.spare = pages[-spare:]
        aside = {id(document) for document in pool.spare}
        pool.kept = [document for document in pool.kept if id(document) not in aside]
    return pool


def bare_address(url: str | None) -> str:
    """A URL without what its spellings differ in: scheme, ``www.``, case of the host, fragment, last slash."""
    if url is None:
        return ""
    parts = urlsplit(url)
    return f"{parts.netloc.lower().removeprefix('www.')}{parts.path.rstrip('/')}?{parts.query}"


def plant(pools: dict[str, Pool]) -> dict[str, list[Document]]:
    """Every language's documents with its plants among them, in their final order."""
    spare = {lang: iter(pool.spare) for lang, pool in pools.items()}
    fragments = {lang: [d for d in pool.kept if d.origin == "udhr"] for lang, pool in pools.items() if lang in DONORS}
    corpus: dict[str, list[Document]] = {}
    strangers = Strangers(pools, spare, fragments)
    for lang, pool in pools.items():
        added: list[Document] = []
        if lang in LARGE:
            added += plant_large(pool, spare[lang])
        elif lang in SMALL_WITH_COPY:
            added.append(plants.exact_copy(max(pool.kept, key=lambda d: len(d.text))))
        corpus[lang] = pool.kept + added
    for lang in LARGE:
        corpus[lang] += strangers.long(lang, 4)
    for lang in SMALL_WITH_STRANGER:
        corpus[lang] += strangers.long(lang, 1)
    for lang in LARGE:
        corpus[lang] += strangers.short(lang)
    for documents in corpus.values():
        documents.sort(key=lambda d: d.key)
    return corpus


def plant_large(pool: Pool, spare: Iterator[Document]) -> list[Document]:
    """Copies, near-duplicates, decoys and shared addresses. No document is the original of two plants."""
    roomy = sorted(
        (d for d in pool.kept if d.key < 0.8), key=lambda d: plants.fraction("original", d.lang, d.origin_doc, d.text)
    )
    # A stream, shared by all kinds: whatever one kind has looked at, the next does not.
    originals = iter(roomy)
    long = (d for d in originals if len(plants.shingles(d.text)) >= 150)
    added = [plants.exact_copy(next(long)) for _ in range(3)]
    added += [plants.normalised_copy(next(long)) for _ in range(2)]
    for low, high in ((0.94, 0.97), (0.903, 0.93)):
        added += plants.take((lambda d=d, low=low, high=high: plants.near_duplicate(d, low, high) for d in long), 3)
    tails = [d for d in (next(spare) for _ in range(5)) if len(d.text) >= shortest(d.lang)]
    for tail in tails[:3]:
        added += plants.take((lambda d=d, tail=tail: plants.decoy(d, tail) for d in long), 1)
    addressed = (d for d in long if d.url is not None)
    added += [plants.same_url(next(addressed), other) for other in tails[3:]]
    return added


class Strangers:
    """Documents for folders they do not belong in, from each donor language in turn; none is used twice."""

    def __init__(
        self, pools: dict[str, Pool], spare: dict[str, Iterator[Document]], fragments: dict[str, list[Document]]
    ) -> None:
        self._spare = spare
        self._fragments = fragments
        self._turn = 0

    def long(self, folder: str, count: int) -> list[Document]:
        """Strangers of 500 characters and more."""
        found: list[Document] = []
        while len(found) < count:
            donor = self._next_donor(folder)
            stranger = next((d for d in self._spare[donor] if len(d.text) >= 500), None)
            if stranger is not None:
                found.append(plants.wrong_language(stranger, folder))
        return found

    def short(self, folder: str) -> list[Document]:
        """One stranger of 40 to 160 characters: a paragraph of the Declaration."""
        donor = self._next_donor(folder)
        for document in self._fragments[donor]:
            for line in document.text.split("\n"):
                if 40 <= len(line) <= 160:
                    self._fragments[donor] = [d for d in self._fragments[donor] if d is not document]
                    stranger = dated(donor, line, f"{document.origin_doc.split('/')[0]}", 0)
                    return [plants.wrong_language(stranger, folder, "wrong_language_short")]
        raise ValueError(f"no short paragraph left in {donor}")

    def _next_donor(self, folder: str) -> str:
        while True:
            donor = DONORS[self._turn % len(DONORS)]
            self._turn += 1
            if donor != folder and not any({donor, folder} <= group for group in CONFUSABLE):
                return donor


def write_shards(target: Path, corpus: dict[str, list[Document]]) -> dict[int, tuple[str, int]]:
    """Write every language; returns the file name and row of each document, by ``id(document)``."""
    places: dict[int, tuple[str, int]] = {}
    for lang, documents in corpus.items():
        folder = target / lang
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        first = PART_ROWS if len(documents) > PART_ROWS + ROW_GROUP else len(documents)
        for part, rows in enumerate((documents[:first], documents[first:])):
            if not rows:
                continue
            name = f"{lang}_part_{part:05d}.parquet"
            columns = [[getattr(d, column) for d in rows] for column in RAW.names]
            pq.write_table(
                pa.table(columns, schema=RAW),
                folder / name,
                row_group_size=ROW_GROUP,
                compression="zstd",
                compression_level=19,
                use_dictionary=False,
                write_statistics=False,
                store_schema=False,
            )
            places |= {id(document): (name, at) for at, document in enumerate(rows)}
    return places


def write_planted(target: Path, corpus: dict[str, list[Document]], places: dict[int, tuple[str, int]]) -> None:
    lines = []
    for documents in corpus.values():
        for d in documents:
            if d.kind:
                of = places[id(d.original)] if d.original else ("", "")
                similarity = "" if d.jaccard is None else f"{d.jaccard:.6f}"
                lines.append((d.kind, d.lang, *places[id(d)], *of, similarity, d.true_lang))
    lines.sort(key=lambda line: (line[0], line[1], line[2], line[3]))
    with (target / "planted.tsv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, delimiter="\t", lineterminator="\n").writerows([PLANT_COLUMNS, *lines])


def write_provenance(target: Path, corpus: dict[str, list[Document]], places: dict[int, tuple[str, int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(PROVENANCE_COLUMNS)
    for documents in corpus.values():
        writer.writerows((d.lang, *places[id(d)], d.origin, d.origin_doc, d.licence, d.kind) for d in documents)
    (target / "provenance.tsv.gz").write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def write_table(target: Path, corpus: dict[str, list[Document]]) -> None:
    """Put the counts of every language between the markers of the README."""
    model = fasttext.load_model(str(Path(__file__).with_name("lid.176.ftz")))
    lines = [
        "| language | name | scripts | documents | planted | bytes of text | named right by lid.176.ftz |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for lang, documents in sorted(corpus.items(), key=lambda item: (-len(item[1]), item[0])):
        found = [d for d in documents if not d.kind]
        named = model.predict([" ".join(d.text.split()) for d in found])[0]
        right = sum(labels[0] == f"__label__{lang}" for labels in named) / len(found)
        size = sum(len(d.text.encode()) for d in documents)
        entry = LANGUAGES[lang]
        lines.append(
            f"| {lang} | {entry.name} | {', '.join(entry.scripts)} | {len(found)} | {len(documents) - len(found)} "
            f"| {size:,} | {right:.0%} |"
        )
    every = [d for documents in corpus.values() for d in documents]
    planted = sum(bool(d.kind) for d in every)
    size = sum(len(d.text.encode()) for d in every)
    lines.append(f"| **{len(corpus)}** | | | **{len(every) - planted}** | **{planted}** | **{size:,}** | |")
    readme = target / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end of table -->")
    readme.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


def build(data: Path, target: Path) -> None:
    """Make the whole sample in ``target``."""
    shards, declaration = read_shards(data), read_udhr(data)
    addresses: set[str] = set()
    pools = {
        lang: choose(lang, declaration.get(lang, []) + shards.get(lang, []), addresses)
        for lang in sorted({*LARGE, *HARD, *EASY})
    }
    corpus = plant(pools)
    target.mkdir(parents=True, exist_ok=True)
    places = write_shards(target, corpus)
    write_planted(target, corpus, places)
    write_provenance(target, corpus, places)
    if (target / "README.md").exists():
        write_table(target, corpus)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m lola_data.resources.build_sample DATA [TARGET]")
    build(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).with_name("sample"))
