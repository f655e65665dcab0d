"""Near-duplicates of a stated similarity: single words of a text replaced by other words of its language."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from lola_data.unicode_tables import CONTINUOUS, LETTER, MARK, word_class

if TYPE_CHECKING:
    import numpy as np

Span = tuple[int, int]
"""First character and one past the last."""

_RUN = re.compile(r"\S+")


@lru_cache(maxsize=1 << 16)
def _class(character: str) -> int:
    return word_class(ord(character))


def word_spans(text: str) -> list[Span]:
    """Places of the words of a text, in order.

    A word here is a run without white space that has a letter in it; in scripts written without spaces it is one
    character with its marks. Punctuation stays with its word.
    """
    spans: list[Span] = []
    for run in _RUN.finditer(text):
        classes = list(map(_class, run.group()))
        if CONTINUOUS in classes:
            spans += _characters(classes, run.start())
        elif LETTER in classes:
            spans.append(run.span())
    return spans


def _characters(classes: list[int], start: int) -> list[Span]:
    spans: list[Span] = []
    for place, kind in enumerate(classes):
        if kind == CONTINUOUS:
            spans.append((start + place, start + place + 1))
        elif kind == MARK and spans and spans[-1][1] == start + place:
            spans[-1] = (spans[-1][0], start + place + 1)
    return spans


def replaced_words(words: int, similarity: float, ngram: int) -> int:
    """How many of ``words`` words to replace, apart from each other, for a Jaccard similarity of the word n-grams.

    One replaced word takes ``ngram`` n-grams out of either set, so of S n-grams k such words leave a similarity of
    (S - ngram k) / (S + ngram k).

    >>> replaced_words(104, 0.6, 5)
    5
    """
    sets = max(0, words - ngram + 1)
    return round(sets * (1.0 - similarity) / (ngram * (1.0 + similarity)))


def edit_words(text: str, similarity: float, pool: list[str], draws: np.random.Generator, *, ngram: int = 5) -> str:
    """A copy of ``text`` with about this Jaccard similarity to it; measure what it came to.

    Args:
        text: at least some 50 words.
        similarity: aimed at, of the sets of word n-grams, in (0, 1).
        pool: words to put in.
        draws: decides which words.
        ngram: words of an n-gram.
    """
    spans = word_spans(text)
    count = max(1, replaced_words(len(spans), similarity, ngram))
    # One word in each of `count` equal stretches, so that few n-grams hold two replaced words.
    borders = [stretch * len(spans) // count for stretch in range(count + 1)]
    pieces: list[str] = []
    done = 0
    for first, last in pairwise(borders):
        if first == last:
            continue
        start, end = spans[int(draws.integers(first, last))]
        word = text[start:end]
        other = word
        while other == word:
            other = pool[int(draws.integers(len(pool)))]
        pieces += [text[done:start], other]
        done = end
    return "".join([*pieces, text[done:]])
