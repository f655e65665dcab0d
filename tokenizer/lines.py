"""Documents cut into the lines a SentencePiece trainer takes, so that it skips none of them.

In: a string array. Out: byte spans of lines. A line ends at every control character (a line break, a tab, a NUL: none
of them ever becomes part of a piece, the byte pieces spell them) and at U+2581 and U+2585, which the trainer keeps for
itself: it would drop a whole line with a U+2585 in it. A line beyond the limit, which it would drop as well, is cut:

1. before the last space that fits, where the trainer would split the words in any case;
2. else after the last punctuation mark or symbol;
3. else between two grapheme clusters, near enough by the rules of Unicode Standard Annex 29;
4. else (a cluster longer than a whole line) between two characters.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numba
import numpy as np

from lola_data.buffers import Bytes, string_buffer

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

RESERVED = ("\u2581", "\u2585")
"""Characters that SentencePiece's trainer uses as marks of its own."""

_OTHER, _SPACE, _PUNCTUATION, _EXTENDS, _JOINS, _REGIONAL = range(6)


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of N documents, in order.

    Attributes:
        data: uint8[B], the UTF-8 bytes that the spans point into.
        spans: int64[L, 2], start and stop of each line; no line is empty.
        documents: int64[N + 1], the lines of document i are ``spans[documents[i]:documents[i + 1]]``.
        separator_bytes: bytes between the lines, which are control characters and reserved ones.
        reserved: how many characters of ``RESERVED`` there were.
        cuts: how many lines were cut for their length.
    """

    data: Bytes
    spans: NDArray[np.int64]
    documents: NDArray[np.int64]
    separator_bytes: int
    reserved: int
    cuts: int


def split_lines(text: pa.Array, max_bytes: int) -> Lines:
    """Lines of at most ``max_bytes`` bytes (at least 4) of a ``string`` or ``large_string`` array of valid UTF-8."""
    data, offsets = string_buffer(text)
    classes = _break_classes()
    capacity = 64 + 2 * len(text) + int(offsets[-1] - offsets[0]) // 64
    while True:
        spans = np.empty((capacity, 2), np.int64)
        documents = np.zeros(len(text) + 1, np.int64)
        lines, separators, reserved, cuts = _split(data, offsets, classes, max_bytes, spans, documents)
        if lines <= capacity:
            return Lines(data, spans[:lines], documents, separators, reserved, cuts)
        capacity = lines


@lru_cache(maxsize=1)
def _break_classes() -> NDArray[np.uint8]:
    """uint8[0x110000]: what each code point means to the place of a cut."""
    classes = np.full(0x110000, _OTHER, np.uint8)
    # Between these ranges lie nothing but letters.
    for start, stop in ((0, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0x1FC00)):
        _classify(classes, start, stop)
    classes[0x200D] = _JOINS
    classes[0x200C] = _EXTENDS
    classes[[0x0E33, 0x0EB3]] = _EXTENDS  # SARA AM of Thai and Lao
    classes[0x1160:0x1200] = _EXTENDS  # vowels and final consonants of conjoining Hangul
    classes[0xD7B0:0xD7FC] = _EXTENDS
    classes[0x1F3FB:0x1F400] = _EXTENDS  # skin tones
    classes[0x1F1E6:0x1F200] = _REGIONAL  # two letters make a flag
    classes[0xE0020:0xE01F0] = _EXTENDS  # tags and variation selectors
    return classes


def _classify(classes: NDArray[np.uint8], start: int, stop: int) -> None:
    """Set the classes of ``[start, stop)`` by general category."""
    for point in range(start, stop):
        category = unicodedata.category(chr(point))
        if category == "Zs":
            classes[point] = _SPACE
        elif category[0] in "PS":
            classes[point] = _PUNCTUATION
        elif category[0] == "M":
            # A virama joins the consonant before it to the one after it (rule GB9c).
            classes[point] = _JOINS if unicodedata.combining(chr(point)) == 9 else _EXTENDS


@numba.njit(nogil=True, cache=True)
def _split(data, offsets, classes, max_bytes, spans, documents):
    """Fill ``spans`` as far as it reaches; returns (lines needed, separator bytes, reserved characters, cuts)."""
    lines = 0
    separators = 0
    reserved = 0
    cuts = 0
    for row in range(len(offsets) - 1):
        at = offsets[row]
        end = offsets[row + 1]
        start = at
        space = clause = cluster = at
        before = _SPACE
        while at < end:
            lead = data[at]
            if lead < 0x80:
                width, point = 1, np.int64(lead)
            elif lead < 0xE0:
                width, point = 2, np.int64(lead & 0x1F)
            elif lead < 0xF0:
                width, point = 3, np.int64(lead & 0x0F)
            else:
                width, point = 4, np.int64(lead & 0x07)
            for byte in range(1, width):
                point = point << 6 | np.int64(data[at + byte] & 0x3F)
            if point < 0x20 or point == 0x7F or point == 0x2581 or point == 0x2585:
                if at > start:
                    if lines < len(spans):
                        spans[lines, 0] = start
                        spans[lines, 1] = at
                    lines += 1
                separators += width
                if point > 0x7F:
                    reserved += 1
                at += width
                start = space = clause = cluster = at
                before = _SPACE
                continue

            kind = classes[point]
            # Places where the line may end, if the character at hand no longer fits.
            if kind != _EXTENDS and kind != _JOINS and before != _JOINS and not (kind == before == _REGIONAL):
                cluster = at
                if kind == _SPACE and before != _SPACE:
                    space = at
                if before == _PUNCTUATION:
                    clause = at
            while at + width - start > max_bytes:
                if space > start:
                    cut = space
                elif clause > start:
                    cut = clause
                elif cluster > start:
                    cut = cluster
                else:
                    cut = at
                if lines < len(spans):
                    spans[lines, 0] = start
                    spans[lines, 1] = cut
                lines += 1
                cuts += 1
                start = cut
                space = max(space, cut)
                clause = max(clause, cut)
                cluster = max(cluster, cut)
            if kind != _EXTENDS:
                before = kind
            at += width
        if end > start:
            if lines < len(spans):
                spans[lines, 0] = start
                spans[lines, 1] = end
            lines += 1
        documents[row + 1] = lines
    return lines, separators, reserved, cuts
