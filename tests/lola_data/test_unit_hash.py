"""Keyed hashes against the reference library, over every code path of the kernel."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from lola_data.unit_hash import unit_hash, xxh64


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_xxh64_equals_the_reference_library_at_every_length(seed: int) -> None:
    texts = [("abcdefghij" * 20)[:length] for length in range(150)] + ["ünïcode ✓ 漢字 " * 9, "\0"]
    assert xxh64(pa.array(texts), seed).tolist() == [xxhash.xxh64_intdigest(text.encode(), seed) for text in texts]


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=20), st.integers(0, 2**64 - 1))
def test_xxh64_equals_the_reference_library_on_any_text(texts: list[str], seed: int) -> None:
    expected = [xxhash.xxh64_intdigest(text.encode(), seed) for text in texts]
    assert xxh64(pa.array(texts, pa.string()), seed).tolist() == expected


def test_slices_chunks_and_large_strings_give_the_same_hashes() -> None:
    texts = [f"en/en_part_00000/{row}" for row in range(100)]
    whole = xxh64(pa.array(texts), 7)
    assert xxh64(pa.array(["x", *texts, "y"]).slice(1, 100), 7).tolist() == whole.tolist()
    assert xxh64(pa.array(texts, pa.large_string()), 7).tolist() == whole.tolist()
    assert xxh64(pa.chunked_array([texts[:33], texts[33:]]), 7).tolist() == whole.tolist()


def test_null_and_no_rows() -> None:
    assert xxh64(pa.array([None, "a"])).tolist() == [xxhash.xxh64_intdigest(b""), xxhash.xxh64_intdigest(b"a")]
    assert len(xxh64(pa.array([], pa.string()))) == 0


def test_purposes_draw_independently() -> None:
    """Documents held out by one draw must not be those that another draw prefers."""
    ids = pa.array([f"de/de_part_00000/{row}" for row in range(40_000)])
    half = np.uint64(2**63)
    sampled = unit_hash(3, ids, "sample") < half
    valid = unit_hash(3, ids, "valid") < half
    together = float(np.mean(sampled & valid))
    assert abs(together - 0.25) < 0.02
    assert unit_hash(3, ids, "sample").tolist() != unit_hash(4, ids, "sample").tolist()


def test_hashes_are_uniform() -> None:
    """Each of 16 equal parts of the range gets its share (chi-square, 15 degrees: 37.7 at p = 0.001)."""
    ids = pa.array([f"sw/sw_part_00000/{row}" for row in range(64_000)])
    counts = np.bincount((unit_hash(0, ids, "sample") >> np.uint64(60)).astype(np.int64), minlength=16)
    assert float(np.sum((counts - 4000) ** 2) / 4000) < 37.7
