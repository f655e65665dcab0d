"""Training lines of a language identifier: documents cut into pieces, languages balanced, order mixed.

In: documents and their codes. Out: the text of a training file, ``__label__<code> <piece>`` a line.

Pieces are short and long alike, for a model that was shown whole documents only is at a loss before a single sentence.
Every choice is a hash of the seed and the text, so the lines do not depend on the order of the documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.buffers import string_buffer
from lola_data.hashes import STEP_A, STEP_B, mix64
from lola_data.lid.binding import one_line_each
from lola_data.lid.labels import PREFIX
from lola_data.unit_hash import unit_hash

if TYPE_CHECKING:
    from lola_data.buffers import Bytes, Offsets

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Pieces:
    """P pieces of documents, each of one document.

    Attributes:
        document: (P,) int64, which document.
        start, end: (P,) int64, where it lies in the document's buffer.
        characters: (P,) int64.
        order: (P,) uint64, evenly spread over [0, 2^64): which to take first.
    """

    document: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64]
    order: Hashes

    def take(self, rows: npt.NDArray[Any]) -> Pieces:
        """Some of them."""
        return Pieces(
            self.document[rows], self.start[rows], self.end[rows], self.characters[rows], self.order[rows]
        )  # fmt: skip


def cut(
    chunk: pa.Array, documents: npt.NDArray[np.int64], keys: Hashes, *, shortest: int, longest: int, turn: int = 0
) -> Pieces:
    """Cut documents into consecutive pieces, at white space where there is some near.

    Lengths in characters are drawn between ``shortest`` and ``longest`` such that each doubling is as likely as the
    next. A rest below ``shortest`` stays with the piece before it. Each ``turn`` draws anew.

    Args:
        chunk: (n,) large_string or string.
        documents: (m,) which of them to cut.
        keys: (n,) what the draws of a document are made from.
        shortest, longest: characters, 1 <= shortest <= longest.
        turn: from 0.
    """
    data, offsets = string_buffer(chunk)
    counts = np.zeros(len(documents), np.int64)
    nothing = np.empty(0, np.int64)
    lengths = (shortest, longest, turn)
    _cut(data, offsets, documents, keys, lengths, counts, nothing, nothing, nothing, nothing, nothing.view(np.uint64))
    total = int(counts.sum())
    document, start, end, characters = (np.empty(total, np.int64) for _ in range(4))
    order = np.empty(total, np.uint64)
    if total:
        _cut(data, offsets, documents, keys, lengths, counts, document, start, end, characters, order)
    return Pieces(document, start, end, characters, order)


@numba.njit(cache=True, nogil=True)
def _cut(data, offsets, documents, keys, lengths, counts, document, start, end, characters, order):
    """Counts the pieces of each document; where ``document`` is not empty, writes them down too."""
    shortest, longest, turn = lengths
    fill = document.size > 0
    out = 0
    for place in range(documents.size):
        row = documents[place]
        key = mix64(keys[row] + np.uint64(turn))
        at, stop = offsets[row], offsets[row + 1]
        number = 0
        while True:
            while at < stop and _is_space(data, at, stop):
                at += 1
            if at >= stop:
                break
            draw = mix64(key + np.uint64(number + 1) * STEP_A)
            part = np.float64(draw >> np.uint64(11)) / 9007199254740992.0
            wanted = np.int64(shortest * (longest / shortest) ** part)
            begin, length, last_space, at_space = at, 0, np.int64(-1), 0
            while at < stop:
                if length >= wanted and (_is_space(data, at, stop) or length >= wanted + wanted // 2 + 16):
                    break
                if _is_space(data, at, stop):
                    last_space, at_space = at, length
                at += _width(data[at])
                length += 1
            # A word too long to wait for its end: go back to its beginning, unless it is most of the piece.
            if at < stop and not _is_space(data, at, stop) and at_space * 2 >= length:
                at, length = last_space, at_space
            if at > stop:
                at = stop
            rest, left = at, 0
            while rest < stop and left < shortest:
                rest += _width(data[rest])
                left += 1
            if left < shortest:
                at = stop
                length += left
            if fill:
                document[out], start[out], end[out], characters[out] = row, begin, at, length
                order[out] = mix64(draw ^ STEP_B)
            out += 1
            number += 1
        counts[place] = number


@numba.njit(cache=True, nogil=True)
def _mixed(values: Hashes) -> Hashes:
    """:func:`lola_data.hashes.mix64` of each value: (n,) uint64."""
    mixed = np.empty_like(values)
    for at in range(values.size):
        mixed[at] = mix64(values[at])
    return mixed


@numba.njit(cache=True, nogil=True, inline="always")
def _width(byte):
    """Bytes of the character that begins with ``byte``."""
    return 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


@numba.njit(cache=True, nogil=True, inline="always")
def _is_space(data, at, stop):
    """White space of ASCII: what fastText parts words at."""
    byte = data[at]
    return byte == 32 or 9 <= byte <= 13 or byte == 0


def budgets(sizes: npt.NDArray[np.int64], *, alpha: float, total: int, repeats: float) -> npt.NDArray[np.int64]:
    """Characters that each language gives: in proportion to ``sizes ** alpha``, none more than ``repeats * sizes``.

    What a language cannot give goes to the others, so that the sum is ``total`` where that can be reached.

    Args:
        sizes: (L,) characters that each language has, all above 0.
        alpha: 1 leaves the shares as they are, 0 makes them equal.
    """
    weights = sizes.astype(np.float64) ** alpha
    most = sizes * repeats
    given = np.zeros(len(sizes))
    open_ = np.ones(len(sizes), bool)
    while open_.any():
        left = total - given[~open_].sum()
        wanted = left * weights / weights[open_].sum()
        full = open_ & (wanted >= most)
        if not full.any():
            given[open_] = wanted[open_]
            break
        given[full] = most[full]
        open_ &= ~full
    return np.maximum(1, np.rint(given)).astype(np.int64)


def training_text(
    chunk: pa.Array,
    codes: pa.Array,
    *,
    shortest: int,
    longest: int,
    alpha: float,
    total: int,
    repeats: float,
    seed: int,
) -> tuple[pa.Buffer, dict[str, tuple[int, int]]]:
    """The training file: one line a piece, languages mixed.

    Args:
        chunk: (n,) large_string, the documents.
        codes: (n,) string.
        shortest, longest: characters of a piece.
        alpha, repeats: see :func:`budgets`.
        total: characters of all lines, at the most; never more than there are.
        seed: of all draws.

    Returns:
        The bytes, and per code its lines and characters in them.
    """
    names = sorted(cast("list[str]", codes.unique().to_pylist()))
    label = cast("Any", pc).index_in(codes, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)
    keys = unit_hash(seed, chunk, "lid-pieces")
    first = cut(chunk, np.arange(len(chunk)), keys, shortest=shortest, longest=longest)
    sizes = np.bincount(label[first.document], first.characters, len(names)).astype(np.int64)
    # A language of nothing but white space has no pieces.
    wanted = budgets(np.maximum(1, sizes), alpha=alpha, total=min(total, int(sizes.sum())), repeats=repeats)
    chosen: list[Pieces] = []
    turn, pieces = 0, first
    open_ = sizes > 0
    while open_.any():
        owner = label[pieces.document]
        by_order = np.lexsort((pieces.order, owner))
        owner, characters = owner[by_order], pieces.characters[by_order]
        before = np.cumsum(characters) - characters
        before -= before[np.searchsorted(owner, owner)]
        chosen.append(pieces.take(by_order[open_[owner] & (before < (wanted - turn * sizes)[owner])]))
        turn += 1
        open_ &= wanted > turn * sizes
        if open_.any():
            again = np.flatnonzero(open_[label])
            pieces = cut(chunk, again, keys, shortest=shortest, longest=longest, turn=turn)
    merged = Pieces(*(np.concatenate([getattr(part, name) for part in chosen]) for name in Pieces.__slots__))
    # By another draw than they were chosen by: the chosen pieces of a large language all have a low order, and at the
    # end of the file there would be small languages alone, for whose sake fastText forgets the others.
    merged = merged.take(np.lexsort((label[merged.document], _mixed(merged.order ^ np.uint64(STEP_A)))))
    owner = label[merged.document]
    lines = np.bincount(owner, minlength=len(names))
    characters = np.bincount(owner, merged.characters, len(names))
    counts = {name: (int(lines[at]), int(characters[at])) for at, name in enumerate(names)}
    return _lines(chunk, merged, names, owner), counts


def piece_texts(chunk: pa.Array, pieces: Pieces) -> pa.Array:
    """The pieces themselves, (P,) large_string."""
    gathered, borders = _gathered(chunk, pieces)
    return pa.LargeStringArray.from_buffers(len(borders) - 1, pa.py_buffer(borders), pa.py_buffer(gathered))


def _gathered(chunk: pa.Array, pieces: Pieces) -> tuple[Bytes, Offsets]:
    data, _ = string_buffer(chunk)
    borders = np.concatenate([[0], np.cumsum(pieces.end - pieces.start)]).astype(np.int64)
    gathered = np.empty(int(borders[-1]), np.uint8)
    _gather(data, pieces.start, pieces.end, gathered)
    return gathered, borders


def _lines(chunk: pa.Array, pieces: Pieces, names: list[str], owner: npt.NDArray[np.int64]) -> pa.Buffer:
    # As the model will be shown them; and fastText takes every word with its prefix for a label.
    shown = cast("Any", pc).replace_substring(one_line_each(*_gathered(chunk, pieces)), PREFIX, " ")
    heads = pa.array([f"{PREFIX}{name}" for name in names], pa.large_string()).take(pa.array(owner))
    joined = cast("Any", pc).binary_join_element_wise(heads, shown, pa.scalar(" ", pa.large_string()))
    return cast("pa.Buffer", joined.buffers()[2])


@numba.njit(cache=True, nogil=True)
def _gather(data: Bytes, start, end, out: Bytes) -> None:
    to = 0
    for piece in range(start.size):
        for at in range(start[piece], end[piece]):
            out[to] = data[at]
            to += 1
