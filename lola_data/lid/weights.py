"""The numbers in a fastText classifier's file, as NumPy arrays.

In: the path of a ``.bin`` or ``.ftz`` model that :func:`lola_data.lid.format.check_model_file` lets pass. Out: a
:class:`Weights`. The file is mapped, not read: the words and a dense input matrix stay where they are, shared by all
processes that use the model. A quantised matrix is multiplied out once, into the values that fastText looks up one by
one. Layout: versions 11 and 12 of fastText's binary format, little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
import numpy.typing as npt

from lola_data.lid.format import MAGIC, SUPERVISED

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.buffers import Bytes

HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
_CENTROIDS = 256
_LABEL = 1
_MOST_DEQUANTISED = 256 * 2**20


class UnsupportedModel(Exception):
    """A model that only fastText itself can use; the message says why."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A classifier of D dimensions, W words, L labels, B buckets of n-grams.

    Attributes:
        minn, maxn: shortest and longest n-grams of characters; maxn 0: none.
        bucket: B; a hash modulo B names an n-gram.
        word_ngrams: longest n-grams of words; 1: none.
        loss: HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX or ONE_VS_ALL.
        labels: (L,) as the model writes them.
        label_counts: (L,) int64, how often each stood in the training text.
        content: the file's bytes, uint8.
        entry_starts, entry_sizes: (W + L,) int64, where in ``content`` the words and then the labels lie.
        words: W.
        kept: (P, 2) int32, the buckets that pruning left and their row behind the words'; None: not pruned.
        input: (rows, D) float32, the words' rows, then the n-grams'.
        output: (L, D) float32.
    """

    minn: int
    maxn: int
    bucket: int
    word_ngrams: int
    loss: int
    labels: list[str]
    label_counts: npt.NDArray[np.int64]
    content: Bytes
    entry_starts: npt.NDArray[np.int64]
    entry_sizes: npt.NDArray[np.int64]
    words: int
    kept: npt.NDArray[np.int32] | None
    input: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]


def read_weights(path: Path) -> Weights:
    """Read a whole, undamaged classifier.

    Raises:
        UnsupportedModel: another version, a matrix too large to multiply out, sizes that contradict one another, or
            numbers that are not finite.
    """
    reader = _Reader(path)
    magic, version = reader.take("<ii")
    if magic != MAGIC or version not in (11, 12):
        raise UnsupportedModel(f"version {version} of the format")
    dim, _, _, _, _, word_ngrams, loss, kind, bucket, minn, maxn, _, _ = reader.take("<12id")
    if version == 11:
        # As fastText has it: these had no n-grams of characters, whatever they say.
        maxn = 0
    size, words, labels, _, kept_size = reader.take("<iiiqq")
    if kind != SUPERVISED or size != words + labels or not HIERARCHICAL <= loss <= ONE_VS_ALL:
        raise UnsupportedModel("not a classifier of a known kind")
    starts, sizes, counts, types = reader.dictionary(size)
    if (types[:words] == _LABEL).any() or (types[words:] != _LABEL).any():
        raise UnsupportedModel("labels among the words")
    kept = reader.array(np.int32, 2 * kept_size).reshape(-1, 2) if kept_size >= 0 else None
    (quantised,) = reader.take("<?")
    if kept is not None and not quantised:
        raise UnsupportedModel("pruned, yet not quantised")
    inputs = reader.matrix(quantised)
    (quantised_output,) = reader.take("<?")
    output = np.array(reader.matrix(quantised and quantised_output))
    try:
        names = [reader.text(*place) for place in zip(starts[words:].tolist(), sizes[words:].tolist(), strict=True)]
    except UnicodeDecodeError as error:
        raise UnsupportedModel("a label that is not UTF-8") from error
    weights = Weights(
        minn=minn,
        maxn=maxn,
        bucket=bucket,
        word_ngrams=word_ngrams,
        loss=loss,
        labels=names,
        label_counts=counts[words:],
        content=reader.content,
        entry_starts=starts,
        entry_sizes=sizes,
        words=words,
        kept=kept,
        input=inputs,
        output=output,
    )
    _check(weights, dim)
    return weights


def _check(weights: Weights, dim: int) -> None:
    """Refuse what would let a lookup leave its array, or has an answer that fastText alone can tell."""
    hashed = weights.maxn > 0 or weights.word_ngrams > 1
    if weights.kept is not None:
        grams = int(weights.kept[:, 1].max(initial=-1)) + 1
        if weights.kept.size and (weights.kept.min() < 0 or weights.kept[:, 0].max() >= weights.bucket):
            raise UnsupportedModel("a bucket out of range")
    else:
        grams = weights.bucket if hashed else 0
    rows, columns = weights.input.shape
    if columns != dim or rows < weights.words + grams or weights.output.shape != (len(weights.labels), dim):
        raise UnsupportedModel("matrices of other sizes than announced")
    if hashed and weights.bucket <= 0:
        raise UnsupportedModel("n-grams without buckets")
    if not np.isfinite(weights.output).all():
        raise UnsupportedModel("numbers that are not finite")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.content: Bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        self.at = 0

    def take(self, layout: str) -> tuple:
        return struct.unpack(layout, self.array(np.uint8, struct.calcsize(layout)).tobytes())

    def array(self, kind: type, count: int) -> npt.NDArray:
        """The next ``count`` values, where they lie: not aligned."""
        size = np.dtype(kind).itemsize * count
        part = self.content[self.at : self.at + size].view(kind)
        self.at += size
        return part

    def text(self, start: int, size: int) -> str:
        return self.content[start : start + size].tobytes().decode()

    def dictionary(self, size: int) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray, npt.NDArray]:
        """Starts, sizes, counts and types of the entries."""
        starts, sizes, counts = (np.empty(size, dtype=np.int64) for _ in range(3))
        types = np.empty(size, dtype=np.int8)
        self.at = int(_find_entries(self.content, self.at, starts, sizes, counts, types))
        return starts, sizes, counts, types

    def matrix(self, quantised: bool) -> npt.NDArray[np.float32]:
        if not quantised:
            rows, columns = self.take("<qq")
            return self.array(np.float32, rows * columns).reshape(rows, columns)
        normed, rows, columns, code_bytes = self.take("<?qqi")
        if 4 * rows * columns > _MOST_DEQUANTISED:
            raise UnsupportedModel("a quantised matrix too large to multiply out")
        codes = self.array(np.uint8, code_bytes).reshape(rows, -1)
        matrix = self._multiply_out(codes, columns)
        if normed:
            matrix *= self._multiply_out(self.array(np.uint8, rows).reshape(rows, 1), 1)
        return matrix

    def _multiply_out(self, codes: Bytes, columns: int) -> npt.NDArray[np.float32]:
        """The rows that ``codes`` stand for, by the quantiser that lies next in the file.

        It cuts a row into parts of ``width`` numbers and a last one of ``last_width``; a part has 256 centroids.
        """
        announced, parts, width, last_width = self.take("<4i")
        centroids = self.array(np.float32, announced * _CENTROIDS)
        if announced != columns or codes.shape[1] != parts or (parts - 1) * width + last_width != columns:
            raise UnsupportedModel("a quantiser of another size than its matrix")
        matrix = np.empty((codes.shape[0], columns), dtype=np.float32)
        for part in range(parts):
            first, size = part * width, last_width if part == parts - 1 else width
            table = centroids[first * _CENTROIDS : (first + size) * _CENTROIDS].reshape(_CENTROIDS, size)
            matrix[:, first : first + size] = table[codes[:, part]]
        return matrix


@numba.njit(cache=True, nogil=True)
def _find_entries(content, at, starts, sizes, counts, types):
    """Each entry is its bytes, a zero, an int64 count and an int8 type; returns the place behind the last."""
    for entry in range(starts.size):
        starts[entry] = at
        while content[at] != 0:
            at += 1
        sizes[entry] = at - starts[entry]
        count = np.uint64(0)
        for byte in range(8):
            count |= np.uint64(content[at + 1 + byte]) << np.uint64(8 * byte)
        counts[entry] = np.int64(count)
        types[entry] = np.int8(content[at + 9])
        at += 10
    return at
