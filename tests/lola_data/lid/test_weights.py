"""The arrays read from a model's file against fastText's own view of it, and the tree and vector steps by formula."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, cast

import fasttext
import numba
import numpy as np
import pytest

from lola_data.lid.models import model_path
from lola_data.lid.tables import huffman_tree
from lola_data.lid.vectors import add, bit_count, dot, next_of, sum_rows
from lola_data.lid.weights import UnsupportedModel, read_weights
from tests.lola_data.lid.files import KINDS, Kind, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", [*KINDS, "lid.176.ftz"])
def test_words_labels_and_rows_are_those_fasttext_reads(tmp_path: Path, name: str) -> None:
    path = model_path(name) if name == "lid.176.ftz" else write_model(tmp_path / "own.bin", KINDS[name])
    weights, model = read_weights(path), cast("Any", fasttext.load_model(str(path)))
    labels, counts = model.get_labels(include_freq=True)
    assert (weights.labels, weights.label_counts.tolist()) == (labels, counts.tolist())
    entries = zip(weights.entry_starts.tolist(), weights.entry_sizes.tolist(), strict=True)
    names = [weights.content[start : start + size].tobytes().decode() for start, size in entries]
    assert names == [*model.get_words(), *labels]
    assert weights.words == len(model.get_words())
    rows, dim = weights.input.shape
    assert dim == model.get_dimension()
    for row in range(0, rows, max(1, rows // 200)):
        assert weights.input[row].tolist() == model.get_input_vector(row).tolist()
    if not model.is_quantized():
        assert (weights.output == model.get_output_matrix()).all()


def test_a_dense_matrix_stays_in_the_file(tmp_path: Path) -> None:
    weights = read_weights(write_model(tmp_path / "own.bin", Kind()))
    assert np.shares_memory(weights.input, weights.content)
    assert not weights.input.flags.writeable


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Kind(version=10), "version 10"),
        (Kind(loss=5), "known kind"),
        (Kind(kept=10), "not quantised"),
        (Kind(bucket=0), "without buckets"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: Kind, why: str) -> None:
    with pytest.raises(UnsupportedModel, match=why):
        read_weights(write_model(tmp_path / "own.bin", kind))


def test_the_tree_is_a_huffman_tree() -> None:
    """By hand: 2 and 3 are joined first, then their 5 with the 5 (leaf last, for it is not lighter), then 10 and 12."""
    assert huffman_tree(np.array([12, 5, 3, 2])).tolist() == [[-1] * 4 + [3, 4, 5], [-1] * 4 + [2, 1, 0]]
    draw = np.random.default_rng(0)
    for size in (1, 2, 3, 50, 176):
        counts = np.sort(draw.integers(1, 10_000, size))[::-1]
        left, right = huffman_tree(counts)
        depth = np.zeros(2 * size - 1, dtype=np.int64)
        for node in range(2 * size - 2, size - 1, -1):
            depth[[left[node], right[node]]] = depth[node] + 1
        heap, least = counts.tolist(), 0
        heapq.heapify(heap)
        while len(heap) > 1:
            joined = heapq.heappop(heap) + heapq.heappop(heap)
            least += joined
            heapq.heappush(heap, joined)
        assert (counts * depth[:size]).sum() == least


@numba.njit
def _steps(table, numbers, dim, rows, vector):
    total = np.ones(dim + 3, dtype=np.float32)
    sum_rows(table, dim, rows, 1, rows.size - 1, total, 2)
    plus = vector.copy()
    add(plus, dim, numbers, 5)
    return total, plus, dot(vector, 0, dim, numbers, 5)


@pytest.mark.parametrize("dim", [*range(1, 40), 64, 100, 256])
def test_steps_on_vectors_of_any_width(dim: int) -> None:
    draw = np.random.default_rng(dim)
    # Small whole numbers: their sums are exact in any order.
    table = draw.integers(-50, 50, (20, dim)).astype(np.float32)
    vector = draw.integers(-50, 50, dim).astype(np.float32)
    numbers = draw.integers(-50, 50, dim + 9).astype(np.float32)
    rows = np.array([3, 7, 0, 7, 19, 4], dtype=np.uint32)
    # One byte on: as unaligned as a mapped file may be.
    content = np.frombuffer(b"x" + table.tobytes(), np.uint8)[1:]
    total, plus, product = _steps(content, numbers, dim, rows, vector)
    assert total.tolist() == [1, 1, *(table[rows[1:-1]].sum(axis=0) + 1).tolist(), 1]
    assert plus.tolist() == (vector + numbers[5 : 5 + dim]).tolist()
    assert product == float(vector @ numbers[5 : 5 + dim])


_next_space_or_x = next_of(32, ord("x"))


@numba.njit
def _search(data, value):
    return _next_space_or_x(data, 1), bit_count(value)


def test_bytes_and_bits() -> None:
    text = b"?abcdefghijklmnopq"
    for place in range(16):
        for byte in (0, 9, 32, ord("x")):
            data = bytearray(text)
            data[1 + place] = byte
            assert _search(np.frombuffer(bytes(data), np.uint8), np.uint64(0))[0] == place
    assert _search(np.frombuffer(text, np.uint8), np.uint64(0xF00F_0000_0000_0001)) == (16, 9)
