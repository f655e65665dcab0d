"""Byte-pair encoding as one compiled pass over UTF-8 bytes.

In: texts in a buffer, the tables of a model. Out: the ids that sentencepiece gives. The text is cut into parts wherever
two characters stand side by side that do so in no piece, so that nothing can merge across the cut; most parts are words
or less, and most have been seen before: their ids are kept in a memo. What is new is merged as SentencePiece merges
(Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016): the pair whose piece has the
best score first, the leftmost of equals.

Parts are taken by the block, so that the memo's lines are on their way from memory before they are read.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from lola_data.lid.tokens import first_8
from lola_data.lid.vectors import load_8, prefetch
from tokenizer.bpe_tables import ASCII, NO_PIECE, merged, pair_place

SPARE_IDS = 15
"""Room that must be left behind the ids: as many as the memo keeps of a part."""
_BLOCK = 32
# A record of the memo is a line of the cache, in int32: 8 of bytes, then bytes and ids in one number, then up to 7 ids.
# That of a wide part is two lines: 16 of bytes, the number, up to 15 ids.
_LINE, _WIDE_LINE = 16, 32
_BYTES, _WIDE_BYTES = 32, 64
_MOST_IDS, _MOST_WIDE_IDS = 7, 15
_HEAD, _IDS = np.uint64(8), np.uint64(9)
_WIDE_HEAD, _WIDE_IDS = np.uint64(16), np.uint64(17)
_1, _2, _3, _4, _5, _8, _16, _24, _31, _32 = (np.uint64(number) for number in (1, 2, 3, 4, 5, 8, 16, 24, 31, 32))
_LOW = np.uint64(0xFFFF_FFFF)
_STEPS = tuple(
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F, 0xBF58476D1CE4E5B9)
)
# The bytes of each of four words that a part of so many bytes fills.
MASKS = np.array(
    [[(1 << 8 * min(max(size - 8 * word, 0), 8)) - 1 for word in range(4)] for size in range(_BYTES + 1)], np.uint64
).ravel()


class Memo(NamedTuple):
    """Ids of parts by their bytes, 2^k records of each width, in int32 and in uint64. What is new takes the place of
    what was there."""

    records: npt.NDArray[np.int32]
    record_keys: npt.NDArray[np.uint64]
    wide: npt.NDArray[np.int32]
    wide_keys: npt.NDArray[np.uint64]


def new_memo(bits: int) -> Memo:
    """An empty memo of 2^bits records of 64 bytes, and of a quarter as many of 128 bytes for wide parts."""
    records, wide = _lines(1 << bits), _lines(1 << bits - 1)
    return Memo(records, records.view(np.uint64), wide, wide.view(np.uint64))


def _lines(count: int) -> npt.NDArray[np.int32]:
    numbers = np.zeros((count + 1) * _LINE, np.int32)
    first = -numbers.ctypes.data // 4 % _LINE
    return numbers[first : first + count * _LINE]


@numba.njit(cache=True, nogil=True, inline="always")
def _decode(data, place):
    """Code point of valid UTF-8 at ``place``, and the place after it."""
    first = np.int64(data[np.uint64(place)])
    if first < 0x80:
        return first, place + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[np.uint64(place + 1)]) & 0x3F, place + 2
    second, third = np.int64(data[np.uint64(place + 1)]) & 0x3F, np.int64(data[np.uint64(place + 2)]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, place + 3
    fourth = np.int64(data[np.uint64(place + 3)]) & 0x3F
    return (first & 0x07) << 18 | second << 12 | third << 6 | fourth, place + 4


@numba.njit(cache=True, nogil=True)
def _split(data, begin, end, characters, pieces, places):
    """Pieces and places of the characters; returns how many."""
    count, at = np.int64(0), begin
    while at < end:
        places[np.uint64(count)] = at
        point, at = _decode(data, at)
        pieces[np.uint64(count)] = characters[np.uint64(point)]
        count += 1
    places[np.uint64(count)] = end
    return count


@numba.njit(cache=True, nogil=True)
def _merge_short(count, pieces, places, waiting, merges, shift):
    """Merge in place, by looking through all pairs each time; returns how many pieces are left."""
    for at in range(count - 1):
        waiting[np.uint64(at)] = merged(pieces[np.uint64(at)], pieces[np.uint64(at + 1)], merges, shift)
    while count > 1:
        best, place = NO_PIECE, np.int64(0)
        for at in range(count - 1):
            # Equal numbers are equal pieces: the first stays.
            if waiting[np.uint64(at)] < best:
                best, place = waiting[np.uint64(at)], at
        if best == NO_PIECE:
            break
        pieces[np.uint64(place)] = best
        count -= 1
        for at in range(place + 1, count):
            pieces[np.uint64(at)] = pieces[np.uint64(at + 1)]
            places[np.uint64(at)] = places[np.uint64(at + 1)]
            waiting[np.uint64(at - 1)] = waiting[np.uint64(at)]
        places[np.uint64(count)] = places[np.uint64(count + 1)]
        if place > 0:
            waiting[np.uint64(place - 1)] = merged(pieces[np.uint64(place - 1)], best, merges, shift)
        if place < count - 1:
            waiting[np.uint64(place)] = merged(best, pieces[np.uint64(place + 1)], merges, shift)
    return count


@numba.njit(cache=True, nogil=True)
def _push(heap, size, key):
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if heap[above] <= key:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = key
    return size + 1


@numba.njit(cache=True, nogil=True)
def _pop(heap, size):
    """Take the first away: the last goes to its place and sinks. Returns the new size."""
    size -= 1
    key, at = heap[size], 0
    below = 1
    while below < size:
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if key <= heap[below]:
            break
        heap[at] = heap[below]
        at = below
        below = 2 * at + 1
    heap[at] = key
    return size


@numba.njit(cache=True, nogil=True)
def _merge_long(count, pieces, places, merges, shift):
    """As :func:`_merge_short`, in n log n steps. A pair waits as piece << 32 | place; one that is no more, or another
    by now, is known by its piece. The pairs of the beginning are sorted once, those to come wait in a heap."""
    before, after = np.arange(-1, count - 1), np.arange(1, count + 1)
    waiting, early = np.full(count, NO_PIECE), np.empty(count, np.uint64)
    pairs = 0
    for at in range(count - 1):
        waiting[at] = merged(pieces[at], pieces[at + 1], merges, shift)
        if waiting[at] != NO_PIECE:
            early[pairs] = np.uint64(waiting[at]) << _32 | np.uint64(at)
            pairs += 1
    early[:pairs].sort()
    heap = np.empty(2 * count, np.uint64)
    taken, size = 0, 0
    while taken < pairs or size > 0:
        if size == 0 or (taken < pairs and early[taken] < heap[0]):
            key = early[taken]
            taken += 1
        else:
            key = heap[0]
            size = _pop(heap, size)
        best, at = np.int32(key >> _32), np.int64(key & _LOW)
        if waiting[at] != best:
            continue
        gone, previous = after[at], before[at]
        following = after[gone]
        pieces[at], after[at] = best, following
        waiting[at] = waiting[gone] = NO_PIECE
        if following < count:
            before[following] = at
            waiting[at] = merged(best, pieces[following], merges, shift)
            if waiting[at] != NO_PIECE:
                size = _push(heap, size, np.uint64(waiting[at]) << _32 | np.uint64(at))
        if previous >= 0:
            waiting[previous] = merged(pieces[previous], best, merges, shift)
            if waiting[previous] != NO_PIECE:
                size = _push(heap, size, np.uint64(waiting[previous]) << _32 | np.uint64(previous))
    left, at = 0, 0
    while at < count:
        pieces[left], places[left] = pieces[at], places[at]
        left += 1
        at = after[at]
    places[left] = places[count]
    return left


@numba.njit(cache=True, nogil=True)
def _write(data, count, pieces, places, ids, byte_ids, out, into):
    """Write the ids of pieces, and of each byte of what has none; returns where they end."""
    for number in range(count):
        piece = pieces[np.uint64(number)]
        if piece != NO_PIECE:
            out[np.uint64(into)] = ids[np.uint64(piece)]
            into += 1
        else:
            for place in range(places[number], places[number + 1]):
                out[into] = byte_ids[data[place]]
                into += 1
    return into


@numba.njit(cache=True, nogil=True)
def _encode_long(data, begin, end, characters, ids, byte_ids, merges, shift, out, into):
    """Ids of a part of any length; returns where they end."""
    pieces, places = np.empty(end - begin, np.int32), np.empty(end - begin + 1, np.int64)
    count = _split(data, begin, end, characters, pieces, places)
    count = _merge_long(count, pieces, places, merges, shift)
    return _write(data, count, pieces, places, ids, byte_ids, out, into)


@numba.njit(cache=True, nogil=True)
def _take_block(data, point, at, following, end, ascii_pairs, pair_bits, begins):
    """The next parts: where they begin, and where the last ends.

    ``point`` is the character at ``at``, ``following`` the place after it. Returns how many parts there are, and those
    three again.
    """
    number = np.int64(0)
    while at < end and number < _BLOCK:
        begins[np.uint64(number)] = at
        at = following
        while at < end:
            last = point
            point, following = _decode(data, at)
            if (last | point) < ASCII:
                if not ascii_pairs[np.uint64(last * ASCII + point)]:
                    break
            else:
                place = pair_place(last, point)
                if pair_bits[place >> _5] >> np.uint32(place & _31) & np.uint32(1) == 0:
                    break
            at = following
        number += 1
    begins[np.uint64(number)] = at
    return number, point, at, following


@numba.njit(cache=True, nogil=True, inline="always")
def _write_key(data, begin, size, masks, keys, at):
    """Write ``size`` <= 32 bytes, filled up with zeros, into keys[at : at + 4]; returns a hash of them."""
    for word in range(4):
        place = begin + 8 * word
        # Behind the end of the data there is nothing that the mask would let through.
        found = load_8(data, place) if place + 8 <= data.size else first_8(data, place, max(data.size - place, 0))
        keys[at + np.uint64(word)] = found & masks[np.uint64(4 * size + word)]
    value = keys[at] * _STEPS[0] ^ keys[at + _1] * _STEPS[1] ^ keys[at + _2] * _STEPS[2] ^ keys[at + _3] * _STEPS[3]
    return (value ^ value >> _32) * _STEPS[0]


@numba.njit(cache=True, nogil=True)
def _encode_wide(
    data,
    begin,
    size,
    masks,
    wide,
    wide_keys,
    characters,
    ids,
    byte_ids,
    merges,
    shift,
    pieces,
    places,
    waiting,
    out,
    into,
):
    """Ids of a part of 33 to 64 bytes; returns where they end."""
    keys = np.empty(8, np.uint64)
    value = _write_key(data, begin, _BYTES, masks, keys, np.uint64(0))
    value += _write_key(data, begin + _BYTES, size - _BYTES, masks, keys, _4) * _STEPS[1]
    slot = value >> _32 & np.uint64(wide.size // _WIDE_LINE - 1)
    line, words = slot * np.uint64(_WIDE_LINE), slot * np.uint64(_WIDE_LINE // 2)
    about = np.int64(wide[line + _WIDE_HEAD])
    known = about & 0xFF == size
    for word in range(8):
        known &= wide_keys[words + np.uint64(word)] == keys[word]
    if known:
        for place in range(_MOST_WIDE_IDS):
            out[np.uint64(into + place)] = wide[line + _WIDE_IDS + np.uint64(place)]
        return into + (about >> 8)
    start = into
    count = _split(data, begin, begin + size, characters, pieces, places)
    count = _merge_short(count, pieces, places, waiting, merges, shift)
    into = _write(data, count, pieces, places, ids, byte_ids, out, into)
    if into - start <= _MOST_WIDE_IDS:
        for word in range(8):
            wide_keys[words + np.uint64(word)] = keys[word]
        wide[line + _WIDE_HEAD] = np.int32(size | (into - start) << 8)
        for place in range(into - start):
            wide[line + _WIDE_IDS + np.uint64(place)] = out[start + place]
    return into


@numba.njit(cache=True, nogil=True)
def encode_texts(data, offsets, tables, memo, masks, out, counts):
    """Ids of the texts data[offsets[i] : offsets[i + 1]] of valid UTF-8, one after the other, and how many of each.

    ``masks``: :data:`MASKS`. ``out`` has room for an id a byte and :data:`SPARE_IDS`. Returns the number of ids.
    """
    # Taken out once: each access to an array in a tuple counts a reference, which takes longer than a step below.
    characters, ids, byte_ids = tables.characters, tables.ids, tables.byte_ids
    merges, shift = tables.merges, tables.merge_shift
    ascii_pairs, pair_bits = tables.ascii_pairs, tables.pair_bits
    records, record_keys, wide, wide_keys = memo.records, memo.record_keys, memo.wide, memo.wide_keys
    mask = np.uint64(records.size // _LINE - 1)
    begins = np.empty(_BLOCK + 1, np.int64)
    slots, keys = np.empty(_BLOCK, np.uint64), np.empty(4 * _BLOCK, np.uint64)
    pieces, places = np.empty(_WIDE_BYTES, np.int32), np.empty(_WIDE_BYTES + 1, np.int64)
    waiting = np.empty(_WIDE_BYTES, np.int32)
    into = np.int64(0)
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        first_id = into
        point, following = np.int64(0), at
        if at < end:
            point, following = _decode(data, at)
        while at < end:
            number, point, at, following = _take_block(data, point, at, following, end, ascii_pairs, pair_bits, begins)
            for part in range(number):
                begin = begins[np.uint64(part)]
                size = begins[np.uint64(part + 1)] - begin
                if size <= _BYTES:
                    slot = _write_key(data, begin, size, masks, keys, np.uint64(4 * part)) >> _32 & mask
                    slots[np.uint64(part)] = slot
                    prefetch(records, np.int64(slot) * _LINE)
            for part in range(number):
                begin = begins[np.uint64(part)]
                size = begins[np.uint64(part + 1)] - begin
                if size > _BYTES:
                    if size > _WIDE_BYTES:
                        into = _encode_long(
                            data, begin, begin + size, characters, ids, byte_ids, merges, shift, out, into
                        )
                    else:
                        into = _encode_wide(
                            data,
                            begin,
                            size,
                            masks,
                            wide,
                            wide_keys,
                            characters,
                            ids,
                            byte_ids,
                            merges,
                            shift,
                            pieces,
                            places,
                            waiting,
                            out,
                            into,
                        )
                    continue
                key, slot = np.uint64(4 * part), slots[np.uint64(part)]
                line, words = slot * np.uint64(_LINE), slot * np.uint64(_LINE // 2)
                about = np.int64(records[line + _HEAD])
                # As in _encode_wide, but written out: with calls in it, all texts took half as long again.
                if (
                    (about & 0xFF == size)
                    & (record_keys[words] == keys[key])
                    & (record_keys[words + _1] == keys[key + _1])
                    & (record_keys[words + _2] == keys[key + _2])
                    & (record_keys[words + _3] == keys[key + _3])
                ):
                    for place in range(_MOST_IDS):
                        out[np.uint64(into + place)] = records[line + _IDS + np.uint64(place)]
                    into += about >> 8
                    continue
                start = into
                count = _split(data, begin, begin + size, characters, pieces, places)
                count = _merge_short(count, pieces, places, waiting, merges, shift)
                into = _write(data, count, pieces, places, ids, byte_ids, out, into)
                if into - start <= _MOST_IDS:
                    for word in range(4):
                        record_keys[words + np.uint64(word)] = keys[key + np.uint64(word)]
                    records[line + _HEAD] = np.int32(size | (into - start) << 8)
                    for place in range(into - start):
                        records[line + _IDS + np.uint64(place)] = out[start + place]
        counts[text] = into - first_id
    return into
