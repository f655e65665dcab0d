"""Faults of a real crawl, planted in clean documents by rule, so that what a stage finds can be held against the truth.

In: for each language the documents that stay and a few spare ones, all of them unlike each other (no two share 0.4 of
their shingles). Out: the planted documents, each knowing its kind and the document it was made from. Every choice is a
BLAKE2b hash of what is chosen, so the same documents give the same plants on any machine.

Similarity is the Jaccard index of the sets of word 5-grams. A word is a run of letters, marks and numbers of the
case-folded NFC text; in scripts without spaces it is one base character with its marks. Written in plain Python, apart
from the kernels it serves to judge.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SHINGLE = 5

# Thai, Lao, Tibetan, Myanmar, Khmer, Han and kana: the scripts without spaces of which the sample has text.
_NO_SPACES = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
)


@dataclass(slots=True)
class Document:
    """One row of the sample while it is being built.

    ``key`` in [0, 1) orders the rows of a language. ``kind`` is empty for a document as found; a plant names its
    ``original``, ``jaccard`` where two texts are compared, and ``true_lang`` where it lies in the wrong folder.
    """

    lang: str
    text: str
    timestamp: str | None
    url: str | None
    source: str
    origin: str
    origin_doc: str
    licence: str
    key: float
    kind: str = ""
    original: Document | None = None
    jaccard: float | None = None
    true_lang: str = ""


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def _continuous(character: str) -> bool:
    point = ord(character)
    return unicodedata.category(character) != "Nd" and any(first <= point <= last for first, last in _NO_SPACES)


def words(text: str) -> list[str]:
    """Words of the case-folded NFC text, in order."""
    found: list[str] = []
    within = False
    for character in unicodedata.normalize("NFC", text.casefold()):
        category = unicodedata.category(character)
        if category == "Cf" and character != "\u200b":
            continue
        if category[0] not in "LMN":
            within = False
        elif category[0] == "M":
            # A mark with no letter before it belongs to no word.
            if within:
                found[-1] += character
        elif within and not _continuous(character) and not _continuous(found[-1][0]):
            found[-1] += character
        else:
            found.append(character)
            within = True
    return found


def shingles(text: str) -> frozenset[str]:
    """Set of word 5-grams; empty for a text of fewer words."""
    sequence = words(text)
    return frozenset(" ".join(sequence[at : at + SHINGLE]) for at in range(len(sequence) - SHINGLE + 1))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared part of the union of two shingle sets, in [0, 1]."""
    return len(a & b) / len(a | b) if a or b else 1.0


def exact_copy(original: Document) -> Document:
    """The same text once more, from a mirror."""
    return _planted(original, "exact_copy", original.text, 1.0)


def normalised_copy(original: Document) -> Document:
    """The same words with other white space, and another case where that can be undone by case folding."""
    lines = original.text.split("\n")
    shouted = [lines[0].upper(), *lines[1:]]
    if "\n".join(shouted).casefold() == original.text.casefold():
        lines = shouted
    style = int(fraction("style", original.url, original.text) * 3)
    if style == 0:
        text = "\r\n".join(lines) + "\r\n"
    elif style == 1:
        text = "  " + "\n\n".join(line.replace(" ", "  ") for line in lines)
    else:
        text = " \n\t".join(lines) + "\n\n"
    if words(text) != words(original.text) or text == original.text:
        raise ValueError(f"normalised copy changed the words of {original.origin_doc}")
    return _planted(original, "normalised_copy", text, 1.0)


def near_duplicate(original: Document, low: float, high: float) -> Document | None:
    """The text with single words replaced, dropped or swapped until its similarity lies in [low, high).

    None where no number of edits gets there, as in a short text, each of whose words counts for too much.
    """
    before = shingles(original.text)
    for attempt in range(8):
        text = original.text
        for step in range(40):
            text = _edit_word(text, (original.origin_doc, original.lang, attempt, step))
            similarity = jaccard(before, shingles(text))
            if similarity < low:
                break
            if similarity < high:
                return _planted(original, "near_duplicate", text, similarity)
    return None


_WORD = re.compile(r"[^\W_]+")


def _edit_word(text: str, seed: tuple[object, ...]) -> str:
    spans = [match.span() for match in _WORD.finditer(text)]
    at = 1 + int(fraction("place", *seed) * (len(spans) - 2))
    start, end = spans[at]
    if _continuous(text[start]):
        # One character is one word here, so only one is touched; of those that begin one, to leave marks in place.
        start += int(fraction("character", *seed) * (end - start))
        end = start + 1
    way = int(fraction("way", *seed) * 3)
    if way == 0:
        other_start, other_end = spans[int(fraction("other", *seed) * len(spans))]
        other = text[other_start:other_end]
        return text[:start] + (other[0] if _continuous(other[0]) else other) + text[end:]
    if way == 1:
        return text[:start] + text[end:].lstrip(" ")
    next_start, next_end = spans[at + 1]
    return text[:start] + text[next_start:next_end] + text[end:next_start] + text[start:end] + text[next_end:]


def decoy(original: Document, rest: Document) -> Document | None:
    """The opening of one document and the remainder of another: alike to the eye, not to be removed.

    The opening grows line by line until the similarity reaches 0.1; None where that line takes it to 0.35 or beyond.
    """
    opening = original.text.split("\n")
    tail = rest.text.split("\n")
    before = shingles(original.text)
    for lines in range(2, len(opening)):
        text = "\n".join([*opening[:lines], *tail[1:]])
        similarity = jaccard(before, shingles(text))
        if similarity >= 0.35 or original.licence != rest.licence:
            return None
        if similarity >= 0.1:
            made = _planted(original, "decoy", text, similarity)
            return replace(made, origin_doc=f"{original.origin_doc} + {rest.origin_doc}")
    return None


def same_url(original: Document, other: Document) -> Document:
    """Another page, filed under the address of the first, as when a site changes between two crawls."""
    later = f"{min(int(original.timestamp[:4]) + 1, 2023)}{original.timestamp[4:]}" if original.timestamp else None
    return replace(
        other,
        url=original.url,
        timestamp=later,
        source=original.source,
        kind="same_url",
        original=original,
        jaccard=jaccard(shingles(original.text), shingles(other.text)),
        key=_after(original, "same_url"),
    )


def wrong_language(stranger: Document, folder: str, kind: str = "wrong_language") -> Document:
    """A document of one language in the folder of another."""
    key = fraction("stranger", folder, stranger.lang, stranger.origin_doc)
    return replace(stranger, lang=folder, true_lang=stranger.lang, kind=kind, key=key)


def _planted(original: Document, kind: str, text: str, similarity: float) -> Document:
    """A changed copy that comes after its original, from another address."""
    slug = blake2b(f"{kind}\x1f{original.lang}\x1f{original.origin_doc}\x1f{original.text}".encode(), digest_size=5)
    return replace(
        original,
        text=text,
        url=f"https://mirror-{slug.hexdigest()[:3]}.example/{original.lang}/{slug.hexdigest()}",
        timestamp=original.timestamp or "2019-11-20T00:00:00Z",
        source=original.source if original.timestamp else "OSCAR-2109",
        kind=kind,
        original=original,
        jaccard=similarity,
        key=_after(original, kind),
    )


def _after(original: Document, kind: str) -> float:
    return original.key + (1 - original.key) * fraction(kind, original.lang, original.origin_doc, original.text)


def take(makers: Iterable[Callable[[], Document | None]], count: int) -> Iterator[Document]:
    """The first ``count`` plants that could be made."""
    for make in makers:
        if count == 0:
            return
        plant = make()
        if plant is not None:
            count -= 1
            yield plant
