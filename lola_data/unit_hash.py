"""Keyed 64-bit hashes of document ids: what every random choice in the pipeline is made of.

In: a column of ids, a seed and the name of the choice. Out: one uint64 per id. A choice made by comparing such a hash
with a bound does not depend on the order of documents, shards, tasks or workers. The hash is XXH64 (Collet, xxHash
specification 0.1.1), compiled here so that it runs over an Arrow buffer without a Python object per id.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import xxhash

from lola_data.buffers import Text, string_buffer, string_chunks

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


def xxh64(text: Text, seed: int = 0) -> npt.NDArray[np.uint64]:
    """XXH64 of the UTF-8 bytes of each row, shape (n_rows,); equals ``xxhash.xxh64_intdigest(row, seed)``.

    A null row hashes as the empty string. ``seed`` in [0, 2^64).
    """
    parts = [np.empty(0, dtype=np.uint64)]
    for chunk in string_chunks(text):
        hashes = np.empty(len(chunk), dtype=np.uint64)
        _xxh64_rows(*string_buffer(chunk), np.uint64(seed), hashes)
        parts.append(hashes)
    return np.concatenate(parts)


def unit_hash(seed: int, ids: Text, purpose: str) -> npt.NDArray[np.uint64]:
    """Hash of (seed, purpose, id) for each id, shape (n_rows,), uniform over [0, 2^64).

    Each purpose (``"sample"``, ``"valid"``, ...) draws anew. Were they to share one draw, the documents chosen by
    ``hash < a`` would all lie among those chosen by ``hash < b`` for b > a, and one choice would skew the next.
    """
    return xxh64(ids, xxhash.xxh64_intdigest(f"{seed}/{purpose}".encode()))


@numba.njit(nogil=True, cache=True, inline="always")
def _rotate_left(value: np.uint64, bits: int) -> np.uint64:
    return np.uint64((value << np.uint64(bits)) | (value >> np.uint64(64 - bits)))


@numba.njit(nogil=True, cache=True, inline="always")
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return np.uint64(_rotate_left(np.uint64(lane + word * _P2), 31) * _P1)


@numba.njit(nogil=True, cache=True, inline="always")
def _word(data: npt.NDArray[np.uint8], at: int, count: int) -> np.uint64:
    word = np.uint64(0)
    for byte in range(count):
        word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return word


@numba.njit(nogil=True, cache=True)
def _xxh64_rows(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    seed: np.uint64,
    hashes: npt.NDArray[np.uint64],
) -> None:
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        length = end - at
        if length >= 32:
            lane1 = np.uint64(seed + _P1 + _P2)
            lane2 = np.uint64(seed + _P2)
            lane3 = seed
            lane4 = np.uint64(seed - _P1)
            while at + 32 <= end:
                lane1 = _round(lane1, _word(data, at, 8))
                lane2 = _round(lane2, _word(data, at + 8, 8))
                lane3 = _round(lane3, _word(data, at + 16, 8))
                lane4 = _round(lane4, _word(data, at + 24, 8))
                at += 32
            value = _rotate_left(lane1, 1) + _rotate_left(lane2, 7) + _rotate_left(lane3, 12) + _rotate_left(lane4, 18)
            for lane in (lane1, lane2, lane3, lane4):
                value = (value ^ _round(np.uint64(0), lane)) * _P1 + _P4
        else:
            value = np.uint64(seed + _P5)
        value = np.uint64(value + np.uint64(length))
        while at + 8 <= end:
            value = _rotate_left(value ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
            at += 8
        if at + 4 <= end:
            value = _rotate_left(value ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
            at += 4
        while at < end:
            value = _rotate_left(value ^ (np.uint64(data[at]) * _P5), 11) * _P1
            at += 1
        value = (value ^ (value >> np.uint64(33))) * _P2
        value = (value ^ (value >> np.uint64(29))) * _P3
        hashes[row] = value ^ (value >> np.uint64(32))
