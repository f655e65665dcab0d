"""What differs between two texts, word by word: two strings in, the stretches they share and those they do not out.

A word is what it is for deduplication: a run of letters, digits and marks, or one base character of a script written
without spaces. Punctuation is compared too; of white space only where it is, since deduplication sees no more: two runs
of different white space are the same, and are counted. The matching is the standard library's
(``difflib.SequenceMatcher``, after Ratcliff and Obershelp), bounded so that two long texts end soon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """A stretch of text and the :data:`kind <SAME>` it is of; ``second`` is how the second text has it, where both
    share it but for white space, and empty where there is nothing to tell."""

    text: str
    kind: str
    second: str = ""

    @property
    def in_second(self) -> str:
        """The stretch as the second text has it."""
        return self.second or self.text


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two texts compared.

    Attributes:
        stretches: in order; where both differ, the first text's stretch stands before the second's.
        alike: words that both share, twice over those of both, in [0, 1]; 1 for two texts without a word.
        cut: characters of the two texts that were not compared, since the texts differ over too long a way.
        spaces: runs of white space in what both share that are not the same in both.
    """

    stretches: tuple[Stretch, ...]
    alike: float
    cut: int
    spaces: int


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
    """Compare two texts; :attr:`Comparison.stretches` without those of kind ``more`` join to ``first``, and, as the
    second has them, without those of kind ``less`` to ``second``, but for what was cut."""
    ours, theirs = tokens_of(first), tokens_of(second)
    keys, other_keys = list(map(_key, ours)), list(map(_key, theirs))
    start = _shared(keys, other_keys)
    end = _shared(keys[start:][::-1], other_keys[start:][::-1])
    middle, other = ours[start : len(ours) - end], theirs[start : len(theirs) - end]
    cut = len("".join(middle[most_tokens:])) + len("".join(other[most_tokens:]))
    pairs = _same(ours[:start], theirs[:start])
    pairs += _matched(middle[:most_tokens], other[:most_tokens])
    pairs += _same(ours[len(ours) - end :], theirs[len(theirs) - end :])
    alike = sum(kind == SAME and _is_word(token) for token, _, kind in pairs)
    words = sum(map(_is_word, ours)) + sum(map(_is_word, theirs))
    stretches: list[Stretch] = []
    for kind, group in groupby(pairs, key=lambda pair: pair[2]):
        tokens = list(group)
        text, told = ("".join(token[side] for token in tokens) for side in (0, 1))
        stretches.append(Stretch(text, kind, told if kind == SAME and told != text else ""))
    spaces = sum(kind == SAME and one != two for one, two, kind in pairs)
    return Comparison(tuple(stretches), 2 * alike / words if words else 1.0, cut, spaces)


def _same(first: list[str], second: list[str]) -> list[tuple[str, str, str]]:
    """Tokens that both share, as each has them, and their kind."""
    return [(one, other, SAME) for one, other in zip(first, second, strict=True)]


def _key(token: str) -> str:
    """What is compared of a token."""
    return " " if token.isspace() else token


def _shared(first: list[str], second: list[str]) -> int:
    """Tokens with which both begin."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _matched(first: list[str], second: list[str]) -> list[tuple[str, str, str]]:
    """Tokens, in the first text and in the second, and their kinds."""
    found: list[tuple[str, str, str]] = []
    less: list[str] = []
    more: list[str] = []

    def close() -> None:
        found.extend((token, token, LESS) for token in less)
        found.extend((token, token, MORE) for token in more)
        less.clear()
        more.clear()

    operations = SequenceMatcher(None, list(map(_key, first)), list(map(_key, second))).get_opcodes()
    for number, (kind, a, a_end, b, b_end) in enumerate(operations):
        # A space between two words that were both replaced is part of one replacement.
        between = 0 < number < len(operations) - 1 and all(token.isspace() for token in first[a:a_end])
        if kind == "equal" and not between:
            close()
            found += _same(first[a:a_end], second[b:b_end])
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
        tokens, theirs = tokens_of(stretch.text), tokens_of(stretch.in_second)
        start = _tokens_within(tokens, head)
        end = len(tokens) - _tokens_within(tokens[::-1], tail)
        count = len("".join(tokens[start:end]))
        pieces = [
            Stretch("".join(tokens[:start]), SAME, "".join(theirs[:start])),
            Stretch(f"[… {count:,} characters alike …]", ELIDED),
            Stretch("".join(tokens[end:]), SAME, "".join(theirs[end:])),
        ]
        found += [replace(piece, second="") if piece.second == piece.text else piece for piece in pieces if piece.text]
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
