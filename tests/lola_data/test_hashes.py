"""Hashes of strings against the same formulas on Python's integers, and splitmix64 against its published output."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lola_data.hashes import hash128, mix64

MASK = (1 << 64) - 1


def test_mix64_is_splitmix64() -> None:
    # The first outputs of splitmix64 seeded with 1234567, as published with the algorithm's reference code.
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        found.append(int(mix64(np.uint64(state))))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=20))
def test_equal_strings_and_no_others_have_equal_hashes(texts: list[str | None]) -> None:
    rows = [tuple(row) for row in hash128(pa.array(texts, pa.string())).tolist()]
    seen: dict[str, tuple[int, ...]] = {}
    for text, row in zip(texts, rows, strict=True):
        assert seen.setdefault(text or "", row) == row
    assert len(set(seen.values())) == len(seen)


def test_both_halves_tell_strings_apart() -> None:
    hashes = hash128(pa.array([str(number) for number in range(50_000)]))
    assert [np.unique(hashes[:, half]).size for half in (0, 1)] == [50_000, 50_000]
    # Each bit of either half is set in half of the hashes: 50,000 draws have a standard deviation of 112.
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).sum(axis=0, dtype=np.int64)
    assert np.abs(bits - 25_000).max() < 5.5 * 112


def test_no_strings() -> None:
    assert hash128(pa.chunked_array([], pa.string())).shape == (0, 2)
