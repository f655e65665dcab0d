"""What differs between two texts, word by word: two strings in, the stretches they share and those they do not out.

A word is what it is for deduplication: a run of letters, digits and marks, or one base character of a script written
without spaces. White space and punctuation are compared too. The matching is the standard library's
(``difflib.SequenceMatcher``, after Ratcliff and Obershelp), bounded so that two long texts end soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from lola_data.unicode_tables import CONTINUOUS, FORMAT, LETTER, MARK, SPACE, word_class

if TYPE_CHECKING:
    from collections.abc import Iterable

SAME, LESS, MORE, ELIDED = "", "less", "more", "elided"
"""Kinds of a stretch: in both texts, only in the first, only in the second; a note on what is left out."""
MOST_TOKENS = 4000
"""Tokens of each text that are matched between what both begin with and what both end with."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of text and the :data:`kind <SAME>` it is of."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two texts compared.

    Attributes:
        stretches: in order; where both differ, the first text's stretch stands before the second's.
        alike: words that both share, twice over those of both, in [0, 1]; 1 for two texts without a word.
        cut: characters of the two texts that were not compared, since the texts differ over too long a way.
    """

    stretches: tuple[Stretch, ...]
    alike: float
    cut: int


def tokens_of(text: str) -> list[str]:
    """Words, runs of white space, and single characters of any other kind; joined they are ``text``.

    >>> tokens_of("Zwei  Wörter, 漢字")
    ['Zwei', '  ', 'Wörter', ',', ' ', '漢', '字']
    """
    found: list[str] = []
    before = -1
    for character in text:
        kind = _class_of(character)
        belongs = kind in (MARK, FORMAT) and before in (LETTER, CONTINUOUS)
        if belongs or (kind in (LETTER, SPACE) and kind == before):
            found[-1] += character
        else:
            found.append(character)
            before = kind
    return found


@lru_cache(maxsize=1 << 16)
def _class_of(character: str) -> int:
    return word_class(ord(character))


def compare(first: str, second: str, *, most_tokens: int = MOST_TOKENS) -> Comparison:
    """Compare two texts; :attr:`Comparison.stretches` without those of kind ``more`` join to ``first``, and without
    those of kind ``less`` to ``second``, but for what was cut."""
    ours, theirs = tokens_of(first), tokens_of(second)
    start = _shared(ours, theirs)
    end = _shared(ours[start:][::-1], theirs[start:][::-1])
    middle, other = ours[start : len(ours) - end], theirs[start : len(theirs) - end]
    cut = len("".join(middle[most_tokens:])) + len("".join(other[most_tokens:]))
    tail = ours[len(ours) - end :]
    pairs = [(token, SAME) for token in ours[:start]]
    pairs += _matched(middle[:most_tokens], other[:most_tokens])
    pairs += [(token, SAME) for token in tail]
    shared = sum(kind == SAME and _is_word(token) for token, kind in pairs)
    words = sum(map(_is_word, ours)) + sum(map(_is_word, theirs))
    stretches = tuple(
        Stretch("".join(token for token, _ in group), kind) for kind, group in groupby(pairs, key=lambda pair: pair[1])
    )
    return Comparison(stretches, 2 * shared / words if words else 1.0, cut)


def _shared(first: list[str], second: list[str]) -> int:
    """Tokens with which both begin."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _matched(first: list[str], second: list[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    less: list[str] = []
    more: list[str] = []

    def close() -> None:
        found.extend((token, LESS) for token in less)
        found.extend((token, MORE) for token in more)
        less.clear()
        more.clear()

    operations = SequenceMatcher(None, first, second).get_opcodes()
    for number, (kind, a, a_end, b, b_end) in enumerate(operations):
        # A space between two words that were both replaced is part of one replacement.
        between = 0 < number < len(operations) - 1 and all(token.isspace() for token in first[a:a_end])
        if kind == "equal" and not between:
            close()
            found.extend((token, SAME) for token in first[a:a_end])
        else:
            less.extend(first[a:a_end])
            more.extend(second[b:b_end])
    close()
    return found


def _is_word(token: str) -> bool:
    return token[0].isalnum()


def excerpt(stretches: Iterable[Stretch], around: int) -> list[Stretch]:
    """The stretches with about ``around`` characters of what both texts share on either side of a difference; the rest
    of it is replaced by a stretch of kind :data:`ELIDED` that says how much it is."""
    given = list(stretches)
    found: list[Stretch] = []
    for number, stretch in enumerate(given):
        head = around if number else 0
        tail = around if number < len(given) - 1 else 0
        left_out = len(stretch.text) - head - tail
        if stretch.kind != SAME or left_out < around:
            found.append(stretch)
            continue
        tokens = tokens_of(stretch.text)
        start = _tokens_within(tokens, head)
        end = len(tokens) - _tokens_within(tokens[::-1], tail)
        count = len("".join(tokens[start:end]))
        pieces = ["".join(tokens[:start]), f"[… {count:,} characters alike …]", "".join(tokens[end:])]
        kinds = [SAME, ELIDED, SAME]
        found += [Stretch(text, kind) for text, kind in zip(pieces, kinds, strict=True) if text]
    return found


def _tokens_within(tokens: list[str], characters: int) -> int:
    """How many of the first tokens it takes to have ``characters`` characters; a longer one is left out."""
    count = 0
    for token in tokens:
        characters -= len(token)
        if characters < 0:
            break
        count += 1
    return count
