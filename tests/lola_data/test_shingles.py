"""Shingles against Python's sets of tuples of words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.shingles import shingle_hashes, unique_sorted


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=40), max_size=5), st.integers(1, 7))
def test_shingles_are_the_distinct_runs_of_words(documents: list[list[str]], n: int) -> None:
    values, offsets = shingle_hashes(pa.array([" ".join(words) for words in documents], type=pa.string()), n)
    by_run: dict[tuple[str, ...], int] = {}
    for words, (start, end) in zip(documents, pairwise(offsets), strict=True):
        found = values[start:end]
        assert (np.diff(found.astype(object)) > 0).all()
        runs = {tuple(words[place : place + n]) for place in range(len(words) - n + 1)}
        assert len(runs) == found.size
        for run in runs:
            if len(runs) == 1:
                assert by_run.setdefault(run, int(found[0])) == int(found[0])
    assert len(set(by_run.values())) == len(by_run)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 2**64 - 1), max_size=200),
            st.tuples(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(1, 80)).map(
                lambda drawn: drawn[0] * drawn[1]
            ),
            # All in one bucket of the sort.
            st.lists(st.integers(0, 300), max_size=150),
        ),
        max_size=6,
    )
)
def test_unique_sorted(documents: list[list[int]]) -> None:
    flat = np.array([value for document in documents for value in document], dtype=np.uint64)
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
    values, found = unique_sorted(flat, offsets)
    assert [values[start:end].tolist() for start, end in pairwise(found)] == [
        sorted(set(document)) for document in documents
    ]


def test_a_text_of_one_repeated_word_has_one_shingle() -> None:
    values, offsets = shingle_hashes(pa.array(["word " * 300_000]), 5)
    assert values.size == offsets[1] == 1


def test_a_shingle_has_words() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        shingle_hashes(pa.array(["a"]), 0)
