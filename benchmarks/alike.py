"""What is alike in truth: sets of n words spelled out here, all pairs compared, the stated rule played through.

Nothing of this uses the library's words, hashes or buckets, so that it can judge them. Words are those that
:mod:`lola_data.words` promises: runs of letters, marks and numbers of the case-folded text in NFC, single characters
with their marks in scripts without spaces, format characters as if they were not there.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numba
import numpy as np
import numpy.typing as npt

from lola_data.unicode_tables import CONTINUOUS_RANGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NGRAM = 5
_STEP = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=1 << 16)
def _unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last, _ in CONTINUOUS_RANGES)


class _Spelling(dict[int, str]):
    """For ``str.translate``: what becomes of a code point, found out when it is first met."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        kind = unicodedata.category(character)
        if kind[0] in "LMN":
            spelled = f" {character}" if kind[0] == "L" and _unspaced(character) else character
        else:
            spelled = "" if kind == "Cf" else " "
        self[point] = spelled
        return spelled


_SPELLING = _Spelling()


def normalised(text: str) -> str:
    """Case-folded, in NFC, white space trimmed and collapsed: texts that come out the same are exact duplicates.

    >>> normalised(" Straße\\n\\nNr. 1 ")
    'strasse nr. 1'
    """
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def words(text: str) -> list[str]:
    """The words of a text.

    >>> words("L'été, 3.5 km")
    ['l', 'été', '3', '5', 'km']
    """
    spelled = unicodedata.normalize("NFC", text.casefold()).translate(_SPELLING)
    parts = spelled.split()
    return _split_unspaced(parts) if any(map(_unspaced, set(spelled))) else parts


def _split_unspaced(parts: list[str]) -> list[str]:
    """A letter that follows a character of an unspaced script is a word of its own."""
    found: list[str] = []
    for part in parts:
        if len(part) == 1 or not _unspaced(part[0]):
            found.append(part)
            continue
        end = 1
        while end < len(part) and unicodedata.category(part[end])[0] == "M":
            end += 1
        found.append(part[:end])
        if end < len(part):
            found.append(part[end:])
    return found


@dataclass(frozen=True, eq=False)
class Grams:
    """Sets of n-grams of N texts: ``values`` ascending and distinct within a text, ``offsets`` (N + 1,)."""

    values: npt.NDArray[np.int64]
    """Numbers of n-grams, from 0."""
    offsets: npt.NDArray[np.int64]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """N-grams of each text."""
        return np.diff(self.offsets)


def grams_of(texts: Iterable[str], ngram: int = NGRAM, cut: Callable[[str], list[str]] = words) -> Grams:
    """The sets of runs of ``ngram`` words as ``cut`` finds them."""
    numbers: dict[str, int] = {}
    parts: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    sizes: list[int] = [0]
    for text in texts:
        ids = np.array([numbers.setdefault(word, len(numbers)) for word in cut(text)], dtype=np.uint64)
        if ids.size < ngram:
            sizes.append(0)
            continue
        # One run, one number: the numbers of its words, mixed in turn. 64 bits leave no room for chance.
        runs = np.zeros(ids.size - ngram + 1, dtype=np.uint64)
        for place in range(ngram):
            runs = (runs ^ ids[place : place + runs.size]) * _STEP
            runs ^= runs >> np.uint64(29)
        distinct = np.unique(runs)
        parts.append(distinct)
        sizes.append(distinct.size)
    _, values = np.unique(np.concatenate(parts), return_inverse=True)
    return Grams(values.reshape(-1).astype(np.int64), np.cumsum(sizes))


@numba.njit(cache=True, nogil=True)
def _pairs(values, offsets, starts, holders, limit):
    """Pairs of texts (earlier, later) with a Jaccard similarity of at least ``limit``, above 0."""
    count = offsets.size - 1
    common = np.zeros(count, dtype=np.int64)
    touched = np.empty(count, dtype=np.int64)
    room = 1024
    ones, others, similarities = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    found = 0
    for text in range(count):
        size = offsets[text + 1] - offsets[text]
        met = 0
        for place in range(offsets[text], offsets[text + 1]):
            gram = values[place]
            for holder in range(starts[gram], starts[gram + 1]):
                other = holders[holder]
                if other >= text:
                    break
                if common[other] == 0:
                    touched[met] = other
                    met += 1
                common[other] += 1
        for number in range(met):
            other = touched[number]
            both = size + offsets[other + 1] - offsets[other] - common[other]
            if common[other] >= limit * both:
                if found == room:
                    room *= 2
                    ones, others, similarities = (
                        np.append(ones, np.empty(found, np.int64)),
                        np.append(others, np.empty(found, np.int64)),
                        np.append(similarities, np.empty(found, np.float64)),
                    )
                ones[found], others[found], similarities[found] = other, text, common[other] / both
                found += 1
            common[other] = 0
    return ones[:found], others[:found], similarities[:found]


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of texts: ``one`` < ``other``, both (P,), and their Jaccard ``similarity``."""

    one: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        """Some of them."""
        return Pairs(self.one[chosen], self.other[chosen], self.similarity[chosen])


@numba.njit(cache=True, nogil=True)
def _similarities(values, offsets, ones, others):
    found = np.ones(ones.size, dtype=np.float64)
    for pair in range(ones.size):
        i, end = offsets[ones[pair]], offsets[ones[pair] + 1]
        j, other_end = offsets[others[pair]], offsets[others[pair] + 1]
        both = end - i + other_end - j
        common = 0
        while i < end and j < other_end:
            if values[i] == values[j]:
                common += 1
                i += 1
                j += 1
            elif values[i] < values[j]:
                i += 1
            else:
                j += 1
        if both:
            found[pair] = common / (both - common)
    return found


def similarity_of(
    grams: Grams, ones: npt.NDArray[np.integer], others: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Jaccard similarity of pairs of texts, given by their numbers; 1 where neither has any n-gram."""
    return _similarities(grams.values, grams.offsets, ones, others)


def all_pairs(grams: Grams, limit: float) -> Pairs:
    """Every pair of texts whose similarity reaches ``limit``, found by comparing all that have anything in common."""
    count = int(grams.values.max()) + 1 if grams.values.size else 0
    owner = np.repeat(np.arange(grams.sizes.size), grams.sizes)
    order = np.argsort(grams.values, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(grams.values, minlength=count))])
    return Pairs(*_pairs(grams.values, grams.offsets, starts, owner[order], limit))


def play(count: int, texts: Sequence[str], pairs: Pairs) -> npt.NDArray[np.int64]:
    """The rule of :mod:`lola_data.clusters` without URLs, documents visited as they are numbered.

    Args:
        count: documents.
        texts: normalised.
        pairs: those at or above the threshold that are compared.

    Returns:
        (count,) the kept document that each was removed for, -1 where it is kept.
    """
    near: dict[int, list[tuple[int, float]]] = {}
    for one, other, similarity in zip(pairs.one.tolist(), pairs.other.tolist(), pairs.similarity.tolist(), strict=True):
        near.setdefault(other, []).append((one, similarity))
    keeper = np.full(count, -1, dtype=np.int64)
    kept_texts: dict[str, int] = {}
    for document in range(count):
        if texts[document] in kept_texts:
            keeper[document] = kept_texts[texts[document]]
            continue
        like = [(-similarity, one) for one, similarity in near.get(document, ()) if keeper[one] < 0]
        if like:
            keeper[document] = min(like)[1]
        else:
            kept_texts[texts[document]] = document
    return keeper


def chance(similarity: npt.ArrayLike, bands: int, rows: int) -> npt.NDArray[np.float64]:
    """The S-curve 1 - (1 - s^rows)^bands, written out once more."""
    return 1.0 - (1.0 - np.asarray(similarity, dtype=np.float64) ** rows) ** bands


@dataclass(frozen=True)
class Found:
    """Of ``pairs`` pairs with similarities about ``level``, the share found and the share that the S-curve gives."""

    level: float
    pairs: int
    share: float
    expected: float

    @property
    def gap(self) -> float:
        """How far apart both are."""
        return self.share - self.expected


def by_level(
    similarities: npt.NDArray[np.float64],
    met: npt.NDArray[np.bool_],
    levels: Sequence[float],
    *,
    bands: int,
    rows: int,
) -> list[Found]:
    """Pairs found beside the S-curve at each level; a pair counts for the nearest level, if one is within half a step
    of it, and its chance is that of its own similarity."""
    step = min((abs(b - a) for a, b in pairwise(levels)), default=0.05)
    expected = chance(similarities, bands, rows)
    found: list[Found] = []
    for level in levels:
        chosen = np.abs(similarities - level) < step / 2
        if chosen.any():
            found.append(Found(level, int(chosen.sum()), float(met[chosen].mean()), float(expected[chosen].mean())))
    return found


def within_chance(hits: int, chances: npt.NDArray[np.float64], deviations: float = 4.0) -> tuple[float, float, bool]:
    """What is expected of independent trials with these chances, its standard deviation, and whether ``hits`` is
    within some of them (one at least)."""
    expected = float(chances.sum())
    spread = float(np.sqrt((chances * (1.0 - chances)).sum()))
    return expected, spread, abs(hits - expected) <= deviations * max(spread, 1.0)
