"""Lookup tables of a fastText classifier for the compiled kernel, built once from its weights.

In: :class:`lola_data.lid.weights.Weights`. Out: :class:`Tables`, flat arrays only.

- Words: open addressing by fastText's own hash.
- Pruned n-grams: most n-grams of a text have no row. A sieve of 8 to 16 bits a row, small enough for the cache next to
  the processor, lets about one in ten of those through; then one word says for 32 buckets which of them have rows and
  where these begin. The rows are put in the order of their buckets.
- Hierarchical softmax: the Huffman tree of the labels, built as fastText builds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from lola_data.lid.weights import HIERARCHICAL, SOFTMAX, UnsupportedModel, Weights

if TYPE_CHECKING:
    from lola_data.buffers import Bytes

TREE, SOFT, SIGMOID = range(3)
EMPTY = -1
FNV_START = np.uint32(2166136261)
_FNV_STEP = np.uint32(16777619)
_END_OF_SENTENCE = b"</s>"
_NO_COUNT = 10**15
_SIEVE_BITS_A_ROW = 8


class Tables(NamedTuple):
    """What :mod:`lola_data.lid.kernel` reads; D, W, L, B and the fields not said here as in ``Weights``.

    Attributes:
        layer: TREE, SOFT or SIGMOID, how outputs become probabilities.
        pruned: whether ``sieve`` and ``groups`` say which n-grams have rows.
        end_row: row of the token ``</s>`` that ends each line; EMPTY: none.
        slots: (2**s,) int32, entries by hash, EMPTY where there is none.
        entry_hashes: (W + L,) uint32.
        sieve: (2**s,) uint32, bit ``bucket modulo 32 * 2**s`` is set if one of these buckets has a row.
        groups: (B // 32 + 1,) uint64, which of 32 buckets have rows, and from bit 32 on how many before them have.
        rows: bytes of the input matrix, (rows * D * 4,) uint8, the n-grams' rows in the order of their buckets.
        output: (L * D,) float32.
        left, right: (2 L - 1,) int32, children of the tree's nodes, EMPTY at the leaves 0 .. L - 1; the last node is
            the root, and inner node n has row n - L of ``output``. Without a tree: (0,).
    """

    dim: int
    minn: int
    maxn: int
    bucket: int
    word_ngrams: int
    layer: int
    words: int
    pruned: bool
    end_row: int
    content: Bytes
    entry_starts: npt.NDArray[np.int64]
    entry_sizes: npt.NDArray[np.int64]
    entry_hashes: npt.NDArray[np.uint32]
    slots: npt.NDArray[np.int32]
    sieve: npt.NDArray[np.uint32]
    groups: npt.NDArray[np.uint64]
    rows: Bytes
    output: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]


def build_tables(weights: Weights) -> Tables:
    """The tables of a model.

    Raises UnsupportedModel where the pruned n-grams contradict one another.
    """
    entries = weights.entry_starts.size
    hashes = np.empty(entries, dtype=np.uint32)
    slots = np.full(1 << (2 * entries).bit_length(), EMPTY, dtype=np.int32)
    _place_entries(weights.content, weights.entry_starts, weights.entry_sizes, hashes, slots)
    sieve, groups, rows = np.ones(1, dtype=np.uint32), np.zeros(1, dtype=np.uint64), weights.input
    sieve[:] = 0xFFFF_FFFF
    if weights.kept is not None:
        order = np.argsort(weights.kept[:, 0])
        sieve, groups = _kept_buckets(weights.kept[order, 0].astype(np.int64), weights.bucket)
        rows = np.concatenate([rows[: weights.words], rows[weights.words + weights.kept[order, 1]]])
    tree = huffman_tree(weights.label_counts) if weights.loss == HIERARCHICAL else np.empty((2, 0), dtype=np.int32)
    return Tables(
        dim=rows.shape[1],
        minn=weights.minn,
        maxn=max(0, weights.maxn),
        bucket=weights.bucket,
        word_ngrams=weights.word_ngrams,
        # At prediction fastText treats negative sampling as one-vs-all.
        layer={HIERARCHICAL: TREE, SOFTMAX: SOFT}.get(weights.loss, SIGMOID),
        words=weights.words,
        pruned=weights.kept is not None,
        end_row=_end_row(weights),
        content=weights.content,
        entry_starts=weights.entry_starts,
        entry_sizes=weights.entry_sizes,
        entry_hashes=hashes,
        slots=slots,
        sieve=sieve,
        groups=groups,
        rows=_read_only_bytes(rows),
        output=np.ascontiguousarray(weights.output).reshape(-1),
        left=tree[0],
        right=tree[1],
    )


def _kept_buckets(buckets: npt.NDArray[np.int64], total: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    """Sieve and groups of rising ``buckets``."""
    if (np.diff(buckets) == 0).any():
        raise UnsupportedModel("a bucket kept twice")
    groups = np.searchsorted(buckets, np.arange(total // 32 + 1) * 32).astype(np.uint64) << np.uint64(32)
    np.bitwise_or.at(groups, buckets // 32, np.uint64(1) << (buckets % 32).astype(np.uint64))
    sieve = np.zeros(1 << (_SIEVE_BITS_A_ROW * buckets.size // 32).bit_length(), dtype=np.uint32)
    np.bitwise_or.at(sieve, buckets // 32 % sieve.size, np.uint32(1) << (buckets % 32).astype(np.uint32))
    return sieve, groups


def _end_row(weights: Weights) -> int:
    size = len(_END_OF_SENTENCE)
    for entry in np.flatnonzero(weights.entry_sizes[: weights.words] == size).tolist():
        start = weights.entry_starts[entry]
        if weights.content[start : start + size].tobytes() == _END_OF_SENTENCE:
            return entry
    return EMPTY


def _read_only_bytes(rows: npt.NDArray[np.float32]) -> Bytes:
    """The matrix as bytes, without a copy: to compiled code it is one type, mapped or not, aligned or not."""
    flat = rows.reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return flat


def huffman_tree(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """(2, 2 L - 1) int32, left and right children, by the counts of L labels in falling order.

    fastText's ``HierarchicalSoftmaxLoss::buildTree``: the two lightest nodes are joined; of two as light, the inner
    node comes first.
    """
    leaves = len(counts)
    weights = [*counts.tolist(), *[_NO_COUNT] * leaves]
    children = np.full((2, 2 * leaves - 1), EMPTY, dtype=np.int32)
    leaf, node = leaves - 1, leaves
    for parent in range(leaves, 2 * leaves - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children[side, parent], leaf = leaf, leaf - 1
            else:
                children[side, parent], node = node, node + 1
        weights[parent] = sum(weights[child] for child in children[:, parent])
    return children


@numba.njit(cache=True, nogil=True, forceinline=True)
def fnv(value, byte):
    """A step of fastText's 32-bit FNV-1a hash, which takes a byte for a signed number."""
    return np.uint32((value ^ np.uint32(np.int32(np.int8(byte)))) * _FNV_STEP)


@numba.njit(cache=True, nogil=True)
def _place_entries(content, starts, sizes, hashes, slots):
    mask = np.int64(slots.size - 1)
    for entry in range(starts.size):
        value = FNV_START
        for at in range(starts[entry], starts[entry] + sizes[entry]):
            value = fnv(value, content[at])
        hashes[entry] = value
        slot = np.int64(value) & mask
        while slots[slot] != EMPTY:
            slot = (slot + 1) & mask
        slots[slot] = entry
