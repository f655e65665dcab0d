"""How well a tokenizer serves each language.

In: documents of each language. Out: one :class:`Fairness` row per language.

- Fertility is tokens per word (Rust et al. 2021, section 3.2); words are those of :mod:`lola_data.words`, so that a
  character of a script written without spaces counts as a word.
- Parity is how many times as much a language pays as a reference language (Petrov et al. 2023, "premium"). On texts
  that say the same, document by document, it is the ratio of their tokens; on other texts, where only rates can be
  compared, the ratio of the fertilities.
- Byte fallback is the share of tokens that are bytes of characters without a piece of their own. Line breaks, tabs and
  other ASCII controls, which are always one byte piece each, do not count.
- Every document is decoded again and compared: ``round_trip_failures`` must be 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.words import word_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenizer.encode import Encoder
    from tokenizer.sample import Source


@dataclass(frozen=True, slots=True)
class Fairness:
    """Counts of one language, and the rates made of them (0 where there is nothing to divide by)."""

    lang: str
    documents: int
    bytes: int
    """UTF-8 bytes."""
    characters: int
    """Code points."""
    words: int
    tokens: int
    fallback_tokens: int
    """Tokens that are bytes of characters without a piece."""
    round_trip_failures: int
    """Documents that did not come back as they were. Must be 0."""
    parity: float | None = None
    """Cost against the reference language; None where that was not measured."""

    @property
    def tokens_per_word(self) -> float:
        """Fertility."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def tokens_per_character(self) -> float:
        """Tokens a code point."""
        return self.tokens / self.characters if self.characters else 0.0

    @property
    def bytes_per_token(self) -> float:
        """Compression, in UTF-8 bytes."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def fallback_share(self) -> float:
        """Share of the tokens that are byte fallback, in [0, 1]."""
        return self.fallback_tokens / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """Counts and rates as a plain dict, rates rounded to six places."""
        rates = {
            "tokens_per_word": self.tokens_per_word,
            "tokens_per_character": self.tokens_per_character,
            "bytes_per_token": self.bytes_per_token,
            "fallback_share": self.fallback_share,
        }
        parity = None if self.parity is None else round(self.parity, 6)
        return {**asdict(self), "parity": parity, **{name: round(rate, 6) for name, rate in rates.items()}}


def measure_fairness(
    encoder: Encoder,
    texts: Mapping[str, pa.Array | pa.ChunkedArray],
    *,
    reference: str = "en",
    parallel: bool = False,
) -> list[Fairness]:
    """One row per language, sorted by code.

    Args:
        encoder: the tokenizer.
        texts: language -> its documents.
        reference: language that parity is measured against.
        parallel: the texts of all languages say the same, in the same order; parity compares tokens, not fertilities.

    Raises:
        ValueError: ``parallel`` texts of different length.
    """
    if parallel and len({len(text) for text in texts.values()}) > 1:
        raise ValueError("parallel texts must have the same number of documents in every language")
    rows = [_measure(encoder, lang, text) for lang, text in sorted(texts.items())]
    base = next((row for row in rows if row.lang == reference), None)
    if base is None:
        return rows
    return [replace(row, parity=_parity(row, base, parallel)) for row in rows]


def head_of(source: Source, max_bytes: int) -> dict[str, pa.ChunkedArray]:
    """The first documents of each language, up to the one that reaches ``max_bytes``: text to measure on."""
    return {lang: _head(read(), max_bytes) for lang, read in source.items()}


def _head(batches: Iterable[pa.RecordBatch], max_bytes: int) -> pa.ChunkedArray:
    chunks: list[pa.Array] = []
    left = max_bytes
    for batch in batches:
        text = batch.column("text").cast(pa.large_string())
        ends = np.cumsum(pc.fill_null(pc.binary_length(text), 0).to_numpy())
        chunks.append(text.slice(0, int(np.searchsorted(ends, left)) + 1))
        left -= int(ends[-1]) if ends.size else 0
        if left <= 0:
            break
    return pa.chunked_array(chunks, pa.large_string())


def _measure(encoder: Encoder, lang: str, text: pa.Array | pa.ChunkedArray) -> Fairness:
    ids, lengths = encoder.encode(text)
    failures = 0
    at = 0
    for value, length in zip(text, lengths.tolist(), strict=True):
        failures += encoder.decode(ids[at : at + length]) != (value.as_py() or "")
        at += length
    return Fairness(
        lang=lang,
        documents=len(text),
        bytes=int(pc.sum(pc.binary_length(text)).as_py() or 0),
        characters=int(pc.sum(pc.utf8_length(text)).as_py() or 0),
        words=int(word_counts(text).sum()),
        tokens=int(ids.size),
        fallback_tokens=int((encoder.byte_values[ids] >= 0x80).sum()),
        round_trip_failures=failures,
    )


def _parity(row: Fairness, base: Fairness, parallel: bool) -> float | None:
    ours, theirs = (row.tokens, base.tokens) if parallel else (row.tokens_per_word, base.tokens_per_word)
    return ours / theirs if theirs else None
