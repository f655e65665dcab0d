"""Why two ways to deduplicate removed different documents: each difference gets one kind of reason, and is counted."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.alike import NGRAM, all_pairs, grams_of, normalised, similarity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

ANYTHING = 0.05
"""Pairs below are not looked at: no band is shared by chance there."""


def split_at_non_word(text: str) -> list[str]:
    """text-dedup's words: whatever stands between single characters that are no word characters, nothing included."""
    return re.split(r"\W", text.lower())


def simplified(text: str) -> list[str]:
    """datatrove's words: numbers made 0, diacritics dropped, then the regular expression it is given."""
    import regex
    from datatrove.utils.text import simplify_text

    from benchmarks.datatrove_peer import word_pattern

    return regex.findall(word_pattern(), simplify_text(text))


def lowered(text: str) -> list[str]:
    """The words that the loop around rensa makes."""
    import regex

    from benchmarks.datatrove_peer import word_pattern

    return regex.findall(word_pattern(), text.lower())


CUTS: Mapping[str, Callable[[str], list[str]]] = {
    "datatrove MinHash, four stages": simplified,
    "text-dedup minhash": split_at_non_word,
    "rensa RMinHashDeduplicator, regex words": lowered,
}
"""Contender -> how it cuts words."""


class Truth:
    """Which documents are alike: all pairs, compared exactly, and what is the same text."""

    def __init__(self, ids: Sequence[str], texts: Sequence[str], threshold: float) -> None:
        self.ids = list(ids)
        self.texts = list(texts)
        self.threshold = threshold
        self.place = {one: row for row, one in enumerate(self.ids)}
        pairs = all_pairs(grams_of(self.texts, NGRAM), ANYTHING)
        self.partners: dict[int, list[tuple[float, int]]] = {}
        for one, other, similarity in zip(
            pairs.one.tolist(), pairs.other.tolist(), pairs.similarity.tolist(), strict=True
        ):
            self._add(one, other, similarity)
        same: dict[str, list[int]] = {}
        for row, text in enumerate(self.texts):
            same.setdefault(normalised(text), []).append(row)
        known = {(one, other) for one, other in zip(pairs.one.tolist(), pairs.other.tolist(), strict=True)}
        for rows in same.values():
            for number, other in enumerate(rows):
                for one in rows[:number]:
                    if (one, other) not in known:
                        self._add(one, other, 1.0)
        self.short = {row for rows in same.values() for row in rows if not self._has_grams(rows[0])}

    def _add(self, one: int, other: int, similarity: float) -> None:
        self.partners.setdefault(one, []).append((similarity, other))
        self.partners.setdefault(other, []).append((similarity, one))

    def _has_grams(self, row: int) -> bool:
        return grams_of([self.texts[row]], NGRAM).values.size > 0

    def folder(self, row: int) -> str:
        """The language's folder."""
        return self.ids[row].partition("/")[0]

    def like(self, row: int) -> list[int]:
        """Documents of the same folder whose similarity reaches the threshold."""
        return [
            other
            for similarity, other in self.partners.get(row, ())
            if similarity >= self.threshold and self.folder(other) == self.folder(row)
        ]


def explain(
    truth: Truth, ours: Set[str], theirs: Set[str], cut: Callable[[str], list[str]] | None = None
) -> dict[str, int]:
    """Count the documents that are in one of two removed sets alone, by kind.

    Args:
        ours, theirs: ids removed.
        cut: how the other side finds words, if not as we do.
    """
    counts: Counter[str] = Counter()
    mine = {truth.place[one] for one in ours}
    others = {truth.place[one] for one in theirs}
    for row in others - mine:
        counts["only theirs: " + _only_theirs(truth, row, mine, others, cut)] += 1
    for row in mine - others:
        counts["only ours: " + _only_ours(truth, row, mine, others, cut)] += 1
    unexplained = sum(number for kind, number in counts.items() if kind.endswith("unexplained"))
    return {**counts, **({"unexplained": unexplained} if unexplained else {})}


def _only_theirs(
    truth: Truth, row: int, mine: Set[int], others: Set[int], cut: Callable[[str], list[str]] | None
) -> str:
    like = truth.like(row)
    if any(one in mine and one not in others for one in like):
        return "another one of a group stays"
    if any(one not in mine for one in like):
        return "our LSH miss"
    if like:
        return "a chain: no kept document is like it"
    partners = truth.partners.get(row, [])
    if any(truth.folder(other) != truth.folder(row) for similarity, other in partners if similarity >= truth.threshold):
        return "across languages"
    if cut is not None and any(similarity >= truth.threshold for similarity in _theirs(truth, row, cut)):
        return "alike by their words only"
    if partners:
        return "an unverified join or estimate below the threshold"
    if row in truth.short or not _has_grams(truth, row, cut):
        return "too short for a run of five words"
    return "unexplained"


def _only_ours(truth: Truth, row: int, mine: Set[int], others: Set[int], cut: Callable[[str], list[str]] | None) -> str:
    like = truth.like(row)
    if any(one in others and one not in mine for one in like):
        return "another one of a group stays"
    if not any(one not in mine for one in like):
        # We never remove a document unless one like it is kept.
        return "unexplained"
    if row in truth.short or not _has_grams(truth, row, cut):
        return "too short for a run of five words"
    if cut is not None and max(_theirs(truth, row, cut), default=0.0) < truth.threshold:
        return "not alike by their words"
    return "their LSH miss or estimate"


def _theirs(truth: Truth, row: int, cut: Callable[[str], list[str]]) -> list[float]:
    """Similarities to the documents most alike, by the other side's words."""
    nearest = [other for _, other in sorted(truth.partners.get(row, []), reverse=True)[:20]]
    grams = grams_of([truth.texts[one] for one in (row, *nearest)], NGRAM, cut)
    return similarity_of(grams, np.zeros(len(nearest), np.int64), np.arange(1, len(nearest) + 1)).tolist()


def _has_grams(truth: Truth, row: int, cut: Callable[[str], list[str]] | None) -> bool:
    return cut is None or grams_of([truth.texts[row]], NGRAM, cut).values.size > 0


def told(counts: Mapping[str, int]) -> str:
    """The counts in words, the greatest first."""
    kinds = sorted(
        ((number, kind) for kind, number in counts.items() if kind != "unexplained"), key=lambda one: (-one[0], one[1])
    )
    return ", ".join(f"{kind}: {number:,}" for number, kind in kinds) or "the same documents"
