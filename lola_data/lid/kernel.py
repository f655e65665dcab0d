"""fastText's prediction of one label, as one compiled pass over Arrow's UTF-8 buffers.

In: the weights of a classifier, then strings. Out: per string the number of its most probable label and the label's
probability. The text is read where it lies. A text's vector is the mean of the rows of its words and their n-grams; the
rows of each word are added up first and the sum is kept in a memo, since words repeat, so an answer does not depend on
what was asked before. (fastText adds all rows in one go: sums differ in the last bits.)

Most of the time goes into waiting for memory. So tokens are taken by the block, and each step of a block asks early for
what the next step reads: memo, rows, sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from lola_data.lid.output import SIGMOID_TABLE, best_labels
from lola_data.lid.tables import EMPTY, FNV_START, build_tables, fnv
from lola_data.lid.tokens import LONGEST_KEY, is_blank, is_label, token_begin, token_end, write_key
from lola_data.lid.vectors import add, bit_count, prefetch, sum_rows

if TYPE_CHECKING:
    from lola_data.buffers import Bytes, Offsets
    from lola_data.lid.weights import Weights

_BLOCK = 32
_SPARE_ROWS = 4096
_TEXTS = 1024
_MEMO_BYTES = 8 * 2**20
_LINE = 16
"""Floats in a line of the cache."""
# A memo record: the key's 4 words; rows summed and LABEL, from bit 32 on the word's hash; the block that uses it; sums.
_SUMS = _LINE
_COUNT, _USED_BY = np.uint64(4), np.uint64(5)
_LABEL = np.uint64(1 << 31)
_COUNT_BITS = np.uint64((1 << 31) - 1)
_WORD_NGRAM_STEP = np.uint64(116049371)
_END_HASH = np.uint64(3617362777)  # of </s>
_BEGIN, _END = np.uint8(ord("<")), np.uint8(ord(">"))
_1, _2, _3, _5, _31, _32 = (np.uint64(number) for number in (1, 2, 3, 5, 31, 32))


class _Memo(NamedTuple):
    """Sums of words: ``mask + 1`` records of ``stride`` floats by the key's hash, and one for each token of a block.

    ``heads`` is the same memory in uint64; ``clock`` (1,) counts blocks.
    """

    floats: npt.NDArray[np.float32]
    heads: npt.NDArray[np.uint64]
    clock: npt.NDArray[np.uint64]
    stride: int
    mask: int


def _new_memo(dim: int) -> _Memo:
    stride = _SUMS + -(-dim // _LINE) * _LINE
    slots = 1 << max(8, (_MEMO_BYTES // (4 * stride)).bit_length() - 1)
    floats = np.zeros((slots + _BLOCK) * stride + _LINE, dtype=np.float32)
    first = -floats.ctypes.data // 4 % _LINE
    floats = floats[first : first + (slots + _BLOCK) * stride]
    return _Memo(floats, floats.view(np.uint64), np.zeros(1, dtype=np.uint64), stride, slots - 1)


class Classifier:
    """A fastText classifier that answers as fastText does with k = 1.

    May be asked from several threads at once.
    """

    def __init__(self, weights: Weights) -> None:
        """Raises UnsupportedModel."""
        self.labels = weights.labels
        self._tables = build_tables(weights)
        self._memos: list[_Memo] = []

    def predict(self, data: Bytes, offsets: Offsets) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Label and probability of each text ``data[offsets[i] : offsets[i + 1]]`` of valid UTF-8, taken as one line.

        Label -1 and probability 0: nothing but white space, or nothing that the model knows. Probability NaN: the
        model holds numbers that are not finite.
        """
        # Whether Arrow lets write into its buffer or not, compiled code shall see one type.
        data = data.view()
        data.flags.writeable = False
        rows = offsets.size - 1
        labels, scores = np.empty(rows, dtype=np.int32), np.empty(rows, dtype=np.float32)
        vectors = np.empty((min(rows, _TEXTS), self._tables.dim), dtype=np.float32)
        counts = np.empty(len(vectors), dtype=np.int64)
        try:
            memo = self._memos.pop()
        except IndexError:
            memo = _new_memo(self._tables.dim)
        for start in range(0, rows, _TEXTS):
            part = slice(start, min(start + _TEXTS, rows))
            _average_texts(data, offsets[start : part.stop + 1], self._tables, memo, vectors, counts)
            best_labels(self._tables, SIGMOID_TABLE, vectors, counts, labels[part], scores[part])
        self._memos.append(memo)
        return labels, scores


@numba.njit(cache=True, nogil=True)
def _find(word, size, content, starts, sizes, hashes, slots):
    """Hash and entry of the word between the brackets of ``word[:size]``; EMPTY if it is unknown."""
    value = FNV_START
    for at in range(1, size - 1):
        value = fnv(value, word[np.uint64(at)])
    slot = np.uint64(value) & np.uint64(slots.size - 1)
    entry = np.int64(slots[slot])
    same = False
    while entry != EMPTY and not same:
        same = (hashes[np.uint64(entry)] == value) & (sizes[np.uint64(entry)] == size - 2)
        if same:
            start = starts[np.uint64(entry)]
            for at in range(size - 2):
                same &= content[np.uint64(start + at)] == word[np.uint64(at + 1)]
        if not same:
            slot = (slot + _1) & np.uint64(slots.size - 1)
            entry = np.int64(slots[slot])
    return value, entry


@numba.njit(cache=True, nogil=True, forceinline=True)
def _push(bucket, sieve, rows, count):
    """Append a bucket to ``rows`` if it may have a row; returns the new count."""
    rows[np.uint64(count)] = np.uint32(bucket)
    word = sieve[bucket >> _5 & np.uint64(sieve.size - 1)]
    return count + np.int64(word >> np.uint32(bucket & _31) & np.uint32(1))


@numba.njit(cache=True, nogil=True, forceinline=True)
def _push_hash(value, bucket, inverse, sieve, rows, count):
    """Append ``value % bucket``; ``inverse`` = 2**32 // bucket, with which the quotient is at most 1 too small."""
    rest = np.uint64(value) - (np.uint64(value) * inverse >> _32) * bucket
    return _push(rest - bucket if rest >= bucket else rest, sieve, rows, count)


@numba.njit(cache=True, nogil=True)
def _push_grams(word, start, size, minn, maxn, bucket, inverse, sieve, rows, count, limit):
    """Append the n-grams of characters that begin at ``start`` or after, until ``rows`` has ``limit``.

    ``word[:size]`` is in brackets and ``word[size]`` is 0. A bracket alone is no n-gram. Returns where it stopped, and
    the new count.
    """
    while start < size and count < limit:
        value = fnv(FNV_START, word[np.uint64(start)])
        at = start + 1
        while word[np.uint64(at)] & 0xC0 == 0x80:
            value = fnv(value, word[np.uint64(at)])
            at += 1
        following = at
        if (minn <= 1) & (start > 0) & (at < size):
            count = _push_hash(value, bucket, inverse, sieve, rows, count)
        length = 2
        while length <= maxn and at < size:
            value = fnv(value, word[np.uint64(at)])
            at += 1
            while word[np.uint64(at)] & 0xC0 == 0x80:
                value = fnv(value, word[np.uint64(at)])
                at += 1
            if length >= minn:
                count = _push_hash(value, bucket, inverse, sieve, rows, count)
            length += 1
        start = following
    return start, count


@numba.njit(cache=True, nogil=True)
def _resolve(rows, first, last, words, pruned, groups, table, dim):
    """Turn the buckets rows[first:last] into row numbers, drop those that have none; returns the new end."""
    count = first
    for number in range(first, last):
        bucket = np.uint64(rows[np.uint64(number)])
        row, has_row = bucket, True
        if pruned:
            group, bit = groups[bucket >> _5], _1 << (bucket & _31)
            row, has_row = (group >> _32) + bit_count(group & (bit - _1)), group & bit != 0
        row += np.uint64(words)
        rows[np.uint64(count)] = np.uint32(row)
        prefetch(table, np.int64(row) * dim * 4)
        count += np.int64(has_row)
    return count


@numba.njit(cache=True, nogil=True)
def _take_block(data, at, end, floats, stride, mask, begins, sizes, slots, keys):
    """The next tokens: where they lie, their keys and the memo records that may hold them.

    Returns how many, and the place behind them.
    """
    number = 0
    at = token_begin(data, at, end)
    while at < end and number < _BLOCK:
        begin = at
        at = token_end(data, at, end)
        size = at - begin
        slot = mask + 1 + number
        if size <= LONGEST_KEY:
            slot = np.int64(write_key(data, begin, size, keys, 4 * number) >> _32) & mask
            prefetch(floats, slot * stride)
            prefetch(floats, slot * stride + _SUMS)
        begins[number], sizes[number], slots[number] = begin, size, slot
        number += 1
        at = token_begin(data, at, end)
    return number, at


@numba.njit(cache=True, nogil=True)
def _claim(heads, clock, stride, mask, keys, slots, token):
    """Whether the memo holds the token's sums, or will when the block is done; else it gets a record for them."""
    slot, key = slots[token], np.uint64(4 * token)
    head = np.uint64(slot * stride // 2)
    known = (
        (slot <= mask)
        & (heads[head] == keys[key])
        & (heads[head + _1] == keys[key + _1])
        & (heads[head + _2] == keys[key + _2])
        & (heads[head + _3] == keys[key + _3])
    )
    # If another token of this block needs what is there, this one takes the record that is its own.
    taken = (slot <= mask) & (heads[head + _USED_BY] == clock) & (not known)
    slot = mask + 1 + token if taken else slot
    slots[token] = slot
    head = np.uint64(slot * stride // 2)
    for part in range(4):
        heads[head + np.uint64(part)] = keys[key + np.uint64(part)]
    heads[head + _USED_BY] = clock
    return known


@numba.njit(cache=True, nogil=True)
def _put_in_brackets(data, begin, size, word):
    """Write ``<token>`` and a zero into word[: size + 1]; ``size`` counts the brackets."""
    word[0] = _BEGIN
    for at in range(size - 2):
        word[np.uint64(at + 1)] = data[np.uint64(begin + at)]
    word[size - 1] = _END
    word[size] = 0


@numba.njit(cache=True, nogil=True, forceinline=True)
def _signed_hash(value):
    """A word's hash as fastText keeps it, a signed 32-bit number, widened."""
    return np.uint64(np.int64(np.int32(np.uint32(value))))


@numba.njit(cache=True, nogil=True)
def _add_word_ngrams(hashes, longest, bucket, words, pruned, sieve, groups, table, dim, rows, total):
    """Add the rows of all runs of 2 to ``longest`` words to ``total``; returns how many there were."""
    summed, count = np.int64(0), np.int64(0)
    for first in range(hashes.size):
        value = hashes[first]
        for last in range(first + 1, min(first + longest, hashes.size)):
            value = value * _WORD_NGRAM_STEP + hashes[last]
            count = _push(value % bucket, sieve, rows, count)
            if count == rows.size:
                count = _resolve(rows, np.int64(0), count, words, pruned, groups, table, dim)
                sum_rows(table, dim, rows, 0, count, total, 0)
                summed += count
                count = 0
    count = _resolve(rows, np.int64(0), count, words, pruned, groups, table, dim)
    sum_rows(table, dim, rows, 0, count, total, 0)
    return summed + count


@numba.njit(cache=True, nogil=True)
def _average_texts(data, offsets, tables, memo, vectors, counts):
    """Write the mean of each text's rows into ``vectors``, and how many rows these were into ``counts``."""
    # Taken out once: each access to an array in a tuple counts a reference, which takes longer than a step below.
    dim, minn, maxn, words, pruned = tables.dim, tables.minn, tables.maxn, tables.words, tables.pruned
    content, starts, lengths, hashes = tables.content, tables.entry_starts, tables.entry_sizes, tables.entry_hashes
    entry_slots, sieve, groups, table = tables.slots, tables.sieve, tables.groups, tables.rows
    floats, heads, stride, mask = memo.floats, memo.heads, memo.stride, memo.mask
    bucket = np.uint64(tables.bucket)
    inverse = np.uint64(2**32) // max(bucket, _1)
    longest = np.int64(0)
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])

    word = np.zeros(longest + 3, dtype=np.uint8)
    limit = _BLOCK * (LONGEST_KEY + 2) * max(maxn, 1) + _SPARE_ROWS
    rows = np.zeros(limit + maxn + 1, dtype=np.uint32)
    places = np.zeros((6, _BLOCK), dtype=np.int64)
    begins, sizes, slots, missed, firsts, lasts = places[0], places[1], places[2], places[3], places[4], places[5]
    keys = np.zeros(4 * _BLOCK, dtype=np.uint64)
    word_hashes = np.zeros(longest // 2 + 2 if tables.word_ngrams > 1 else 1, dtype=np.uint64)
    total = np.zeros(dim, dtype=np.float32)
    clock = memo.clock[0]

    for text in range(offsets.size - 1):
        counts[text] = 0
        vectors[text, :] = 0.0
        at, end = offsets[text], offsets[text + 1]
        if is_blank(data, at, end):
            continue
        total[:] = 0.0
        summed, spoken = np.int64(0), np.int64(0)
        number = 1
        while number > 0:
            number, at = _take_block(data, at, end, floats, stride, mask, begins, sizes, slots, keys)
            clock += _1
            # Step 1: the buckets of the n-grams of each token that the memo does not know.
            misses, count = 0, np.int64(0)
            for token in range(number):
                if not _claim(heads, clock, stride, mask, keys, slots, token):
                    size = sizes[token] + 2
                    _put_in_brackets(data, begins[token], size, word)
                    value, entry = _find(word, size, content, starts, lengths, hashes, entry_slots)
                    sums = slots[token] * stride + _SUMS
                    for column in range(sums, sums + dim):
                        floats[column] = 0.0
                    known = np.uint64(0)
                    if entry >= words or (entry == EMPTY and is_label(data, begins[token], sizes[token])):
                        known = _LABEL
                        size = 0
                    elif entry != EMPTY:
                        rows[count] = np.uint32(entry)
                        sum_rows(table, dim, rows, count, count + 1, floats, sums)
                        known = _1
                    first, start = count, np.int64(0)
                    while maxn > 0 and start < size:
                        start, count = _push_grams(
                            word, start, size, minn, maxn, bucket, inverse, sieve, rows, count, limit
                        )
                        if size > LONGEST_KEY + 2:
                            # It may fill the room alone: it takes its sum now and leaves the room to the others.
                            count = _resolve(rows, first, count, words, pruned, groups, table, dim)
                            sum_rows(table, dim, rows, first, count, floats, sums)
                            known += np.uint64(count - first)
                            count = first
                    heads[np.uint64(slots[token] * stride // 2) + _COUNT] = known | np.uint64(value) << _32
                    missed[misses], firsts[misses], lasts[misses] = token, first, count
                    misses += 1
            # Steps 2 and 3: their rows, and the sums of these. Step 4: the sums of all tokens.
            for miss in range(misses):
                lasts[miss] = _resolve(rows, firsts[miss], lasts[miss], words, pruned, groups, table, dim)
            for miss in range(misses):
                slot = slots[missed[miss]]
                sum_rows(table, dim, rows, firsts[miss], lasts[miss], floats, slot * stride + _SUMS)
                heads[np.uint64(slot * stride // 2) + _COUNT] += np.uint64(lasts[miss] - firsts[miss])
            for token in range(number):
                about = heads[np.uint64(slots[token] * stride // 2) + _COUNT]
                if about & _COUNT_BITS > 0:
                    add(total, dim, floats, slots[token] * stride + _SUMS)
                    summed += np.int64(about & _COUNT_BITS)
                if tables.word_ngrams > 1 and about & _LABEL == 0:
                    word_hashes[spoken] = _signed_hash(about >> _32)
                    spoken += 1
        if tables.end_row != EMPTY:
            rows[0] = np.uint32(tables.end_row)
            sum_rows(table, dim, rows, 0, 1, total, 0)
            summed += 1
        if tables.word_ngrams > 1:
            word_hashes[spoken] = _signed_hash(_END_HASH)
            run = word_hashes[: spoken + 1]
            summed += _add_word_ngrams(
                run, tables.word_ngrams, bucket, words, pruned, sieve, groups, table, dim, rows, total
            )
        counts[text] = summed
        share = np.float32(1.0 / max(summed, 1))
        for column in range(dim):
            vectors[text, column] = total[column] * share
    memo.clock[0] = clock
