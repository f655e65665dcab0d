"""What the compiled encoder must know of a SentencePiece BPE model, as arrays.

In: a model file. Out: the piece of each character, the merge of each pair of pieces with its rank, and which characters
stand side by side in any piece.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from tokenizer.formats import SPACE_SYMBOL, Algorithm, PieceType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizer.formats import ModelFile

NO_PIECE = np.int32(2**31 - 1)
"""Stands for a character without a piece, and for the piece of two that do not merge."""
ASCII = 128
EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_POINTS = 0x110000
_PIECE_BITS = 20
_PAIR_BITS = 19
_PAIR_SHIFT = np.uint64(64 - _PAIR_BITS)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_1, _5, _20, _21, _24, _31 = (np.uint64(number) for number in (1, 5, 20, 21, 24, 31))
_RESULT = np.uint64((1 << 24) - 1)


class UnsupportedModel(Exception):
    """A model that sentencepiece itself must encode with."""


class BpeTables(NamedTuple):
    """A BPE model. Its pieces are numbered anew: those of several characters by score, the best 0, then the others.

    ``characters`` (0x110000,) int32: piece of each code point, or :data:`NO_PIECE`; that of a space is the model's
    U+2581, which is nobody else's. ``ids`` (pieces,) int32: the numbers that the model gives. ``byte_ids`` (256,)
    int32: those of the byte pieces. ``merges`` (2^k,) uint64: a hash table with linear probing, left << 44 |
    right << 24 | merged, or :data:`EMPTY`; ``merge_shift`` leaves k bits of a hash. ``ascii_pairs`` (128 * 128,) bool:
    whether two characters stand side by side in a piece. ``pair_bits`` (2^14,) uint32: the same of all characters, by
    :func:`pair_place`; of some pairs it says so that do not.
    """

    characters: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    byte_ids: npt.NDArray[np.int32]
    merges: npt.NDArray[np.uint64]
    merge_shift: np.uint64
    ascii_pairs: npt.NDArray[np.bool_]
    pair_bits: npt.NDArray[np.uint32]


@numba.njit(cache=True, nogil=True, inline="always")
def merged(left, right, merges, shift):
    """The piece of two pieces side by side, :data:`NO_PIECE` if there is none."""
    found = NO_PIECE
    if (left != NO_PIECE) & (right != NO_PIECE):
        key = np.uint64(left) << _20 | np.uint64(right)
        slot = key * _STEP >> shift
        entry = merges[slot]
        while entry >> _24 != key and entry != EMPTY:
            slot = (slot + _1) & np.uint64(merges.size - 1)
            entry = merges[slot]
        if entry != EMPTY:
            found = np.int32(entry & _RESULT)
    return found


@numba.njit(cache=True, nogil=True, inline="always")
def pair_place(first, second):
    """The bit of two code points, uint64."""
    return (np.uint64(first) << _21 | np.uint64(second)) * _STEP >> _PAIR_SHIFT


@numba.njit(cache=True, nogil=True)
def _fill_merges(entries, merges, shift):
    for entry in entries:
        slot = (entry >> _24) * _STEP >> shift
        while merges[slot] != EMPTY:
            slot = (slot + _1) & np.uint64(merges.size - 1)
        merges[slot] = entry


@numba.njit(cache=True, nogil=True)
def _fill_pairs(firsts, seconds, ascii_pairs, pair_bits):
    for pair in range(firsts.size):
        first, second = firsts[pair], seconds[pair]
        if first < ASCII and second < ASCII:
            ascii_pairs[first * ASCII + second] = True
        place = pair_place(first, second)
        pair_bits[place >> _5] |= np.uint32(1) << np.uint32(place & _31)


def build_tables(model: ModelFile) -> BpeTables:
    """The tables of a lossless BPE model.

    Raises:
        UnsupportedModel: of another algorithm or of a million pieces; with pieces that the user defined, that are not
            in use, or that share a score; without a piece for some byte, or for some character of a longer piece.
    """
    if model.algorithm != Algorithm.BPE or len(model.pieces) >= 1 << _PIECE_BITS:
        raise UnsupportedModel("not BPE, or too large")
    if any(piece.type in (PieceType.USER_DEFINED, PieceType.UNUSED) for piece in model.pieces):
        raise UnsupportedModel("pieces defined by the user, or not in use")
    normal = [at for at, piece in enumerate(model.pieces) if piece.type == PieceType.NORMAL]
    long = sorted((at for at in normal if len(model.pieces[at].text) > 1), key=lambda at: -model.pieces[at].score)
    order = [*long, *(at for at in normal if len(model.pieces[at].text) == 1)]
    numbers = {model.pieces[at].text: number for number, at in enumerate(order)}
    scores = {model.pieces[at].score for at in long}
    if len(scores) != len(long) or any(math.isnan(score) for score in scores):
        raise UnsupportedModel("pieces of one score, or of none")
    characters = np.full(_POINTS, NO_PIECE, np.int32)
    for text, number in list(numbers.items())[len(long) :]:
        characters[0x20 if text == SPACE_SYMBOL else ord(text)] = number
    entries = np.array(list(_entries(numbers)), np.uint64)
    bits = max(4, (2 * entries.size).bit_length())
    merges, shift = np.full(1 << bits, EMPTY), np.uint64(64 - bits)
    _fill_merges(entries, merges, shift)
    ascii_pairs, pair_bits = np.zeros(ASCII * ASCII, np.bool_), np.zeros(1 << _PAIR_BITS - 5, np.uint32)
    _fill_pairs(*_neighbours(numbers), ascii_pairs, pair_bits)
    return BpeTables(characters, np.array(order, np.int32), _byte_ids(model), merges, shift, ascii_pairs, pair_bits)


def _entries(numbers: dict[str, int]) -> Iterator[int]:
    """Each way in which two pieces make a third."""
    for text, number in numbers.items():
        if len(text) > 1 and not all(character in numbers for character in text):
            raise UnsupportedModel("a character of a piece has no piece of its own")
        for cut in range(1, len(text)):
            left, right = numbers.get(text[:cut]), numbers.get(text[cut:])
            if left is not None and right is not None:
                yield left << 44 | right << 24 | number


def _neighbours(numbers: dict[str, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    pairs = {pair for text in numbers for pair in pairwise(text)}
    points = np.array([[ord(one) for one in pair] for pair in pairs], np.int64).reshape(-1, 2)
    points[points == ord(SPACE_SYMBOL)] = 0x20
    return points[:, 0].copy(), points[:, 1].copy()


def _byte_ids(model: ModelFile) -> npt.NDArray[np.int32]:
    found = np.full(256, -1, np.int32)
    for at, piece in enumerate(model.pieces):
        if piece.type == PieceType.BYTE:
            found[int(piece.text[1:-1], 16)] = at
    if (found < 0).any():
        raise UnsupportedModel("bytes without a piece")
    return found
