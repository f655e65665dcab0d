"""The corpus that everything is measured on: real text, tiled to a stated size, with planted duplicates.

In: a tree ``<lang>/*.parquet`` with a column ``text``, or the sample that travels with the package. Out: a tree of raw
CulturaX-shaped shards and ``planted.tsv``, the list of what was planted. The same texts, size and seed give the same
rows.

- Languages. Those with most documents in CulturaX, each with text in proportion to the square root of that number:
  English comes to a sixth where there are 32. Where a language has too little text the others get its part. The real
  shards are large; a tail of files of a few kilobytes would measure the opening of files. A little of every other
  language is kept in a tree of its own, on which results are compared and nothing is timed.
- Documents. Texts of a language are joined, in a random order, until a drawn length is reached, so that the mean comes
  to CulturaX's 3.7 kB: costs per document must not weigh more here than they do there.
- Tiling. When all texts are used, more documents are drawn: the sentences of all texts, shuffled anew for each pass,
  cut into documents. A document whose Jaccard similarity (sets of 5 words) to one before it in the language reaches
  :data:`MOST_ALIKE` is left out, by an exact comparison with all. So only what is planted is a duplicate.
- Plants. Exact copies, copies with single words replaced for similarities from 0.30 to 0.95, and pairs of different
  texts under one URL. A copy comes somewhere after its original in the same language.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpus import PLANT_COLUMNS, Corpus, Plant, open_corpus
from benchmarks.distinct import jaccard, keep_distinct
from benchmarks.edits import edit_words, word_spans
from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.sample_corpus import sample_root
from lola_data.schemas import RAW
from lola_data.unicode_tables import MARK, word_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FORMAT = 1
"""Raised when the same texts, size and seed give another corpus."""
MOST_ALIKE = 0.45
"""Jaccard similarity that two documents do not reach unless one is planted. A planted copy of one of them is no closer
to the other than its original is, but for repeated words, so all unplanted pairs stay below 0.5."""
LEVELS = tuple(round(0.30 + 0.05 * step, 2) for step in range(14))
"""Similarities that edited copies aim at, in turn."""
EXACT_SHARE, NEAR_SHARE, URL_SHARE = 0.04, 0.10, 0.02
"""Plants of each kind per document."""
OTHERS_BYTES = 64_000
"""Of a language that is not measured, only compared."""
MEAN_BYTES = 3_700
"""Of a document: 27 TB in 7.2 billion documents (CulturaX)."""
SPREAD = 1.0
"""Standard deviation of the logarithm of a document's length."""
ROWS_OF_GROUP = 1_000
SHARD_BYTES = 64_000_000
"""Text of a shard; a larger language has several."""
EDITED_WORDS = 100
"""Words of a document that an edited copy is made of, at least: fewer give no fine grades."""
MOST_PASSES = 24
"""Passes over a language's sentences."""
PIECE_CHARACTERS = 300
"""Longest sentence; longer ones are cut."""

SOURCES = ("mC4", "OSCAR-2019", "OSCAR-2109", "OSCAR-2201", "OSCAR-2301")
SOURCE_SHARES = (0.6, 0.06, 0.1, 0.12, 0.12)
_NO_URL = "OSCAR-2019"
_SENTENCE = re.compile(r".+?(?:[.!?…。！？।؟۔](?=\s|$)|[。！？]|$)\s*", re.DOTALL)


def ensure(workdir: Path, *, megabytes: float, languages: int, data: Path | None, seed: int = 0) -> Corpus:
    """The corpus of this size below ``workdir``, built unless it is there.

    Args:
        workdir: corpora are kept in it, each under a name of its own.
        megabytes: of text, in millions of UTF-8 bytes.
        languages: how many, those with most documents in CulturaX.
        data: tree of real text; None: the sample that travels with the package.
        seed: another one gives another corpus.

    Raises:
        ShardError: no text there.
    """
    source = sample_root() if data is None else data
    files = sorted(source.glob("*/*.parquet"))
    if not files:
        raise ShardError(f"{source}: no <lang>/*.parquet there; give the root of a tree of shards with --data")
    listed = [[path.relative_to(source).as_posix(), path.stat().st_size] for path in files]
    key = hashlib.sha256(json.dumps([FORMAT, megabytes, languages, seed, listed]).encode()).hexdigest()[:8]
    root = workdir / f"corpus-{'sample' if data is None else 'data'}-{megabytes:g}mb-{key}"
    facts = root / "corpus.json"
    if not facts.exists():
        shutil.rmtree(root, ignore_errors=True)
        built = _build(root, files, total=round(megabytes * 1e6), count=languages, seed=seed)
        built["origin"] = "the embedded sample" if data is None else data.name
        facts.write_text(json.dumps(built, indent=1, ensure_ascii=False), encoding="utf-8")
    return open_corpus(root)


def _build(root: Path, files: Sequence[Path], *, total: int, count: int, seed: int) -> dict[str, Any]:
    texts = _read_texts(files)
    sizes = {lang: sum(len(text.encode()) for text in found) for lang, found in texts.items()}
    weights = {lang: float(LANGUAGES[lang].documents if lang in LANGUAGES else 1) ** 0.5 for lang in texts}
    chosen = sorted(texts, key=lambda lang: (-weights[lang], lang))[:count]
    languages: dict[str, Any] = {}
    plants: list[Plant] = []
    left, weight = float(total), sum(weights[lang] for lang in chosen)
    # Those with least text for their share come first; what they cannot fill goes to the others.
    for lang in sorted(chosen, key=lambda lang: (sizes[lang] / weights[lang], lang)):
        made = _Language(lang, texts[lang], _draws(seed, lang))
        made.draw(round(left * weights[lang] / weight))
        plants += made.plant()
        made.write(root / "raw" / lang)
        languages[lang] = made.facts()
        left, weight = max(0.0, left - languages[lang]["bytes"]), weight - weights[lang]
    others: dict[str, Any] = {}
    for lang in sorted(texts.keys() - set(chosen)):
        made = _Language(lang, texts[lang], _draws(seed, lang))
        made.draw(min(OTHERS_BYTES, sizes[lang]))
        made.number_rows()
        made.write(root / "others" / lang)
        others[lang] = made.facts()
    with (root / "planted.tsv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(PLANT_COLUMNS)
        plants.sort(key=lambda plant: (plant.lang, plant.file, plant.row))
        writer.writerows(asdict(plant).values() for plant in plants)
    kinds = sorted({plant.kind for plant in plants})
    totals = {name: sum(one[name] for one in languages.values()) for name in ("documents", "bytes", "redrawn_bytes")}
    return {
        "format": FORMAT,
        "seed": seed,
        **totals,
        "planted": {kind: sum(plant.kind == kind for plant in plants) for kind in kinds},
        "languages": dict(sorted(languages.items())),
        "others": others,
    }


def _draws(seed: int, lang: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(lang.encode())])


def _read_texts(files: Sequence[Path]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for path in files:
        column = pq.read_table(path, columns=["text"])["text"].to_pylist()
        texts.setdefault(path.parent.name, []).extend(text for text in column if text and not text.isspace())
    return {lang: found for lang, found in texts.items() if found}


@dataclass
class _Document:
    text: str
    url: str | None
    timestamp: str | None
    source: str
    at: float
    """Place in the language: where it is sorted to."""
    redrawn: bool = False
    plant: str | None = None
    of: _Document | None = None
    similarity: float = 0.0
    file: str = ""
    row: int = 0


@dataclass
class _Language:
    """The documents of one language, on their way from texts to shards."""

    lang: str
    texts: list[str]
    draws: np.random.Generator
    documents: list[_Document] = field(default_factory=list)
    left_out: int = 0

    def draw(self, budget: int) -> None:
        """Documents of about ``budget`` bytes, what will be planted reckoned in."""
        # Copies have the mean length of what they are copies of.
        budget = round(budget / (1.0 + EXACT_SHARE + NEAR_SHARE))
        order = self.draws.permutation(len(self.texts))
        used, size = self._take((self.texts[number] for number in order), budget, "\n")
        originals = len(used)
        if size < budget:
            used += self._redraw(budget, size)
        kept = keep_distinct(used, limit=MOST_ALIKE)
        sizes = np.cumsum([len(text.encode()) for text, keep in zip(used, kept, strict=True) if keep])
        enough = int(np.searchsorted(sizes, budget)) + 1
        chosen = np.flatnonzero(kept)[:enough]
        self.left_out = int((~kept[: chosen[-1] + 1]).sum()) if chosen.size else len(used)
        places = self.draws.permutation(chosen.size)
        for place, number in zip(places, chosen, strict=True):
            self.documents.append(self._document(used[number], float(place), redrawn=bool(number >= originals)))
        self.documents.sort(key=lambda document: document.at)

    def _take(self, texts: Iterator[str], budget: int, joint: str) -> tuple[list[str], int]:
        """Texts joined to documents of drawn lengths, until ``budget`` bytes are reached or there are no more."""
        documents: list[str] = []
        parts: list[str] = []
        size = total = 0
        wanted = self._length()
        for text in texts:
            more = len(text.encode())
            # At the border the nearer end is taken, so that long texts do not raise the mean.
            if parts and size + more / 2 > wanted:
                documents.append(joint.join(parts))
                total += size
                parts, size, wanted = [], 0, self._length()
                if total >= budget:
                    return documents, total
            parts.append(text.strip())
            size += more
        if parts:
            documents.append(joint.join(parts))
            total += size
        return documents, total

    def _length(self) -> float:
        mean = np.log(MEAN_BYTES) - SPREAD**2 / 2
        return float(np.clip(np.exp(self.draws.normal(mean, SPREAD)), 200, 100_000))

    def _redraw(self, budget: int, size: int) -> list[str]:
        pieces = [piece for text in self.texts for line in text.split("\n") for piece in sentences(line)]
        documents: list[str] = []
        # Some will be left out for being alike: draw half as much again.
        wanted = size + 1.5 * (budget - size)
        for _ in range(MOST_PASSES):
            order = self.draws.permutation(len(pieces))
            more, more_size = self._take((pieces[number] for number in order), budget, " ")
            documents += more
            size += more_size
            if size >= wanted or not more:
                break
        return documents

    def _document(self, text: str, at: float, *, redrawn: bool) -> _Document:
        source = SOURCES[int(self.draws.choice(len(SOURCES), p=SOURCE_SHARES))]
        number = int(self.draws.integers(2**62))
        if source == _NO_URL:
            return _Document(text, None, None, source, at, redrawn)
        day = f"20{13 + number % 10:02d}-{1 + number // 7 % 12:02d}-{1 + number // 91 % 28:02d}"
        time = f"{number // 3 % 24:02d}:{number // 5 % 60:02d}:{number // 11 % 60:02d}"
        url = f"https://www.{self.lang}-{number % 997}.example/{number:x}"
        return _Document(text, url, f"{day}T{time}Z", source, at, redrawn)

    def plant(self) -> list[Plant]:
        """Add copies and shared URLs, fix the rows; what was planted."""
        count = len(self.documents)
        order = self.draws.permutation(count - 1) if count > 1 else np.zeros(0, dtype=np.int64)
        exact, near, url = (_rounded(share * count, self.draws) for share in (EXACT_SHARE, NEAR_SHARE, URL_SHARE))
        originals = [self.documents[int(number)] for number in order]
        copies = [self._copy(original, "exact") for original in originals[:exact]]
        copies += self._edited(originals[exact:], near)
        shared = [document for document in originals[exact + near :] if document.url][: 2 * url]
        for one, other in zip(shared[::2], shared[1::2], strict=False):
            first, second = sorted((one, other), key=lambda document: document.at)
            second.url, second.plant, second.of = first.url, "url", first
        for plant, similarity in zip(
            pairs := [document for document in self.documents if document.of],
            jaccard([(document.text, document.of.text) for document in pairs if document.of]),
            strict=True,
        ):
            plant.similarity = similarity
        self.documents = sorted([*self.documents, *copies], key=lambda document: document.at)
        self.number_rows()
        return [
            Plant(
                document.plant or "",
                self.lang,
                document.file,
                document.row,
                document.of.file,
                document.of.row,
                round(document.similarity, 6),
            )
            for document in self.documents
            if document.of
        ]

    def _copy(self, original: _Document, kind: str, text: str | None = None, similarity: float = 1.0) -> _Document:
        at = float(self.draws.uniform(original.at, len(self.documents)))
        copy = self._document(original.text if text is None else text, at, redrawn=True)
        copy.plant, copy.of, copy.similarity = kind, original, similarity
        return copy

    def _edited(self, originals: list[_Document], wanted: int) -> list[_Document]:
        pool = self._words()
        chosen: list[tuple[_Document, str]] = []
        level = int(self.draws.integers(len(LEVELS)))
        for original in originals:
            if len(chosen) == wanted or len(pool) < 2:
                break
            if len(word_spans(original.text)) < EDITED_WORDS:
                continue
            similarity = LEVELS[level % len(LEVELS)]
            level += 1
            chosen.append((original, edit_words(original.text, similarity, pool, self.draws)))
        measured = jaccard([(original.text, text) for original, text in chosen])
        return [
            self._copy(original, "near", text, similarity)
            for (original, text), similarity in zip(chosen, measured, strict=True)
        ]

    def _words(self) -> list[str]:
        found: set[str] = set()
        for text in self.texts[:50]:
            found.update(text[start:end] for start, end in word_spans(text[:4_000]))
        return sorted(found)

    def number_rows(self) -> None:
        """Give each document its place in a shard."""
        file, row, size = 0, 0, 0
        for document in self.documents:
            if size >= SHARD_BYTES:
                file, row, size = file + 1, 0, 0
            document.file, document.row = f"{self.lang}_part_{file:05d}.parquet", row
            row, size = row + 1, size + len(document.text.encode())

    def write(self, folder: Path) -> None:
        """Write the shards."""
        folder.mkdir(parents=True)
        by_file: dict[str, list[_Document]] = {}
        for document in self.documents:
            by_file.setdefault(document.file, []).append(document)
        for name, documents in by_file.items():
            columns = [[getattr(document, column) for document in documents] for column in RAW.names]
            table = pa.table([pa.array(column, pa.string()) for column in columns], schema=RAW)
            pq.write_table(table, folder / name, compression="zstd", row_group_size=ROWS_OF_GROUP)

    def facts(self) -> dict[str, int]:
        """Sizes, how much of it is drawn anew (copies included), and how many documents were left out as alike."""
        return {
            "documents": len(self.documents),
            "bytes": sum(len(document.text.encode()) for document in self.documents),
            "redrawn_bytes": sum(len(document.text.encode()) for document in self.documents if document.redrawn),
            "left_out": self.left_out,
        }


def _rounded(number: float, draws: np.random.Generator) -> int:
    """``number`` up or down by chance, so that small languages get their part of the plants too."""
    return int(number + draws.random())


def sentences(line: str) -> list[str]:
    """The sentences of a line, none longer than :data:`PIECE_CHARACTERS`; together they are the line.

    >>> sentences("One. Two? Three")
    ['One. ', 'Two? ', 'Three']
    """
    pieces: list[str] = []
    for match in _SENTENCE.finditer(line):
        piece = match.group()
        while len(piece) > PIECE_CHARACTERS:
            cut = piece.rfind(" ", PIECE_CHARACTERS // 2, PIECE_CHARACTERS) + 1 or PIECE_CHARACTERS
            while cut < len(piece) and word_class(ord(piece[cut])) == MARK:
                cut += 1
            pieces.append(piece[:cut])
            piece = piece[cut:]
        if piece:
            pieces.append(piece)
    return [piece for piece in pieces if not piece.isspace()]
