"""What the word kernel must know of every code point, as one flat table of 0x110000 entries.

In: the Unicode database of the running Python (``unicodedata``). Out: :class:`UnicodeTables`, NumPy arrays that a
compiled kernel can read: word class, case folding, canonical order and canonical composition. Built in about 0.1 s at
first use and kept for the life of the process.

Word classes follow the general category: letters, marks and numbers make words. Scripts that write no space between
words are listed in :data:`CONTINUOUS_RANGES`; there each base character, with the marks that follow it, is one word.
The list holds the scripts whose letters may be parted at a line end anywhere (classes ID, SA, AK and AS of Unicode
Standard Annex 14), and Tibetan, where only the syllable is marked. Digits of these scripts (category Nd) make words
like any other digits.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000

SEPARATOR = 0
"""Ends a word: punctuation, symbols, controls, unassigned code points."""
SPACE = 1
"""White space: ends a word; a run of it counts as one space where whole texts are compared."""
LETTER = 2
"""Letter or number: a run of them is one word."""
CONTINUOUS = 3
"""Letter of a script written without spaces: a word of its own."""
MARK = 4
"""Combining mark: belongs to the word before it, and to nothing after a separator."""
FORMAT = 5
"""Invisible format character such as ZWJ, ZWNJ or soft hyphen: neither ends a word nor counts in its spelling."""

POINT_BITS = 21
POINT_MASK = (1 << POINT_BITS) - 1
CLASS_SHIFT = 21
CLASS_MASK = 0x7
ORDER_SHIFT = 24
ORDER_MASK = 0x3F
COMPOSES_BIT = 1 << 30
EXPANDS_BIT = 1 << 31

PAIR_SLOTS = 1 << 12
PAIR_MULTIPLIER = 0x9E3779B97F4A7C15
EMPTY_PAIR = 0xFFFF_FFFF_FFFF_FFFF

CONTINUOUS_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1950, 0x197F, "Tai Le"),
    (0x1980, 0x19DF, "New Tai Lue"),
    (0x1A00, 0x1A1F, "Buginese"),
    (0x1A20, 0x1AAF, "Tai Tham"),
    (0x1B00, 0x1B7F, "Balinese"),
    (0x1BC0, 0x1BFF, "Batak"),
    (0x2E80, 0x2FDF, "Han: radicals"),
    (0x3005, 0x3007, "Han: iteration mark, closing mark, zero"),
    (0x3021, 0x3029, "Han: Hangzhou numerals"),
    (0x3031, 0x3035, "Kana repeat marks"),
    (0x3038, 0x303C, "Han: Hangzhou numerals, masu mark"),
    (0x3040, 0x309F, "Hiragana"),
    (0x30A0, 0x30FF, "Katakana"),
    (0x3100, 0x312F, "Bopomofo"),
    (0x31A0, 0x31BF, "Bopomofo"),
    (0x31F0, 0x31FF, "Katakana phonetic extensions"),
    (0x3400, 0x4DBF, "Han: extension A"),
    (0x4E00, 0x9FFF, "Han"),
    (0xA000, 0xA48F, "Yi"),
    (0xA980, 0xA9DF, "Javanese"),
    (0xA9E0, 0xA9FF, "Myanmar extended B"),
    (0xAA00, 0xAA5F, "Cham"),
    (0xAA60, 0xAA7F, "Myanmar extended A"),
    (0xAA80, 0xAADF, "Tai Viet"),
    (0xF900, 0xFAFF, "Han: compatibility"),
    (0xFF66, 0xFF9F, "Katakana: half width"),
    (0x11000, 0x1107F, "Brahmi"),
    (0x11300, 0x1137F, "Grantha"),
    (0x116D0, 0x116FF, "Myanmar extended C"),
    (0x11700, 0x1174F, "Ahom"),
    (0x11F00, 0x11F5F, "Kawi"),
    (0x17000, 0x18D8F, "Tangut, Khitan"),
    (0x1AFF0, 0x1AFFF, "Kana extended B"),
    (0x1B000, 0x1B2FF, "Kana supplement and extensions, Nushu"),
    (0x20000, 0x3FFFD, "Han: extensions B and later"),
)
"""First and last code point, script: written without spaces between words."""

# Blocks of nothing but caseless letters that do not compose: filled by range, which keeps the build short.
_HANGUL_RANGE = (0xAC00, 0xD7A3)
_IDEOGRAPH_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x17000, 0x18CFF), (0x20000, 0x2F7FF), (0x2FA20, 0x3FFFD))
_PRIVATE_OR_EMPTY = ((0xD800, 0xF8FF), (0x3FFFE, 0xE0000), (0xE0200, 0x10FFFF))


@dataclass(frozen=True, eq=False)
class UnicodeTables:
    """Arrays for one pass over text. All are read-only.

    ``entry`` (0x110000,) uint32, for an input code point: bits 0-20 the code point it folds to, bits 21-23 the class of
    that code point, bits 24-29 the rank of its canonical combining class, bit 30 set where it may compose with a
    starter before it, bit 31 set where it folds to several code points (bits 0-20 are then an index into
    ``expansion``). ``expansion`` uint32: at that index the number of code points, then the code points, each of which
    folds to itself. ``pairs`` (4096,) uint64: open hash table of ``starter << 21 | following`` over all pairs that
    compose under NFC, save conjoining Hangul jamo.
    """

    entry: npt.NDArray[np.uint32]
    expansion: npt.NDArray[np.uint32]
    pairs: npt.NDArray[np.uint64]


def word_class(code_point: int) -> int:
    """Class of one code point before case folding, as the module docstring states it.

    Code points still unassigned in blocks of ideographs count as such, so that a later Unicode changes nothing.
    """
    character = chr(code_point)
    category = unicodedata.category(character)
    if character.isspace():
        return SPACE
    if category == "Cf":
        # U+200B ZERO WIDTH SPACE marks word borders in Thai, Khmer and Burmese; UAX 29 takes it out of Format as well.
        return SEPARATOR if code_point == 0x200B else FORMAT
    if category[0] == "M":
        return MARK
    if category == "Cn" and any(first <= code_point <= last for first, last in _IDEOGRAPH_RANGES):
        return CONTINUOUS
    if category[0] not in "LN":
        return SEPARATOR
    if category != "Nd" and _is_continuous(code_point):
        return CONTINUOUS
    return LETTER


_CONTINUOUS_STARTS = [first for first, _, _ in CONTINUOUS_RANGES]


def _is_continuous(code_point: int) -> bool:
    place = bisect_right(_CONTINUOUS_STARTS, code_point) - 1
    return place >= 0 and code_point <= CONTINUOUS_RANGES[place][1]


def _pair_slot(key: int) -> int:
    return ((key * PAIR_MULTIPLIER) & 0xFFFF_FFFF_FFFF_FFFF) >> 52


def _listed_points() -> list[int]:
    skipped = np.zeros(CODE_POINTS, dtype=bool)
    for first, last in (_HANGUL_RANGE, *_IDEOGRAPH_RANGES, *_PRIVATE_OR_EMPTY):
        skipped[first : last + 1] = True
    return np.flatnonzero(~skipped).tolist()


@lru_cache(maxsize=1)
def unicode_tables() -> UnicodeTables:
    """The tables of the running Python's Unicode version (``unicodedata.unidata_version``)."""
    points = _listed_points()
    classes = np.full(CODE_POINTS, SEPARATOR, dtype=np.uint32)
    classes[_HANGUL_RANGE[0] : _HANGUL_RANGE[1] + 1] = LETTER
    for first, last in _IDEOGRAPH_RANGES:
        classes[first : last + 1] = CONTINUOUS
    classes[points] = [word_class(point) for point in points]

    orders = np.zeros(CODE_POINTS, dtype=np.uint32)
    combining = {point: order for point in points if (order := unicodedata.combining(chr(point)))}
    ranks = {order: rank for rank, order in enumerate(sorted({0, *combining.values()}))}
    orders[list(combining)] = [ranks[order] for order in combining.values()]

    composes = np.zeros(CODE_POINTS, dtype=bool)
    composes[0x1161:0x1176] = True
    composes[0x11A8:0x11C3] = True
    pairs = [EMPTY_PAIR] * PAIR_SLOTS
    folds = np.arange(CODE_POINTS, dtype=np.uint32)
    expansion: list[int] = []
    expands: dict[int, int] = {}
    for point in points:
        character = chr(point)
        folded = character.casefold()
        parts = unicodedata.decomposition(character).split()
        if folded == character and not parts:
            continue
        folded = unicodedata.normalize("NFC", folded)
        if len(folded) == 1:
            folds[point] = ord(folded)
        else:
            expands[point] = len(expansion)
            expansion += [len(folded), *map(ord, folded)]
        if len(parts) == 2 and parts[0][0] != "<" and unicodedata.normalize("NFC", character) == character:
            starter, following = (int(part, 16) for part in parts)
            composes[following] = True
            key = starter << POINT_BITS | following
            slot = _pair_slot(key)
            while pairs[slot] != EMPTY_PAIR:
                slot = (slot + 1) % PAIR_SLOTS
            pairs[slot] = key

    entry = np.bitwise_or(folds, classes[folds] << np.uint32(CLASS_SHIFT))
    entry |= orders[folds] << np.uint32(ORDER_SHIFT)
    entry[composes[folds]] |= COMPOSES_BIT
    entry[list(expands)] = np.array(list(expands.values()), dtype=np.uint32) | EXPANDS_BIT
    tables = UnicodeTables(entry, np.array(expansion, dtype=np.uint32), np.array(pairs, dtype=np.uint64))
    for array in (tables.entry, tables.expansion, tables.pairs):
        array.setflags(write=False)
    return tables
