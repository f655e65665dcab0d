from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from lola_data.minhash import MinHash
from lola_data.planted import MIN_SHINGLES, Recall, planted_recall
from lola_data.shingles import shingle
from lola_data.words import word_hashes


def recall_of(text: pa.Array, *, minhash: MinHash, ngram: int, threshold: float, seed: int) -> Recall:
    words, offsets = word_hashes(text)
    keys, _ = minhash.band_keys(*shingle(words.copy(), offsets, ngram))
    return planted_recall(words, offsets, keys, minhash=minhash, ngram=ngram, threshold=threshold, seed=seed)


def documents(count: int, words: int, *, script: str = "latin") -> pa.Array:
    draw = np.random.Generator(np.random.PCG64(5))
    first, joint = (0x4E00, "") if script == "han" else (0x0430, " ")
    texts: list[str] = []
    for _ in range(count):
        numbers = draw.integers(0, 20_000, size=words)
        if script == "han":
            texts.append(joint.join(chr(first + int(number)) for number in numbers))
        else:
            texts.append(joint.join(f"{chr(first + int(number) % 30)}{number}" for number in numbers))
    return pa.array(texts)


@pytest.mark.parametrize(("bands", "rows", "threshold"), [(14, 8, 0.8), (5, 20, 0.8), (20, 5, 0.5)])
@pytest.mark.parametrize("script", ["latin", "han"])
def test_as_many_copies_are_found_as_the_formula_says(bands: int, rows: int, threshold: float, script: str) -> None:
    """Each copy is found with the chance 1 - (1 - s^rows)^bands: the sum lies within four standard deviations."""
    recall = recall_of(
        documents(1_200, 300, script=script), minhash=MinHash(bands, rows, 7), ngram=5, threshold=threshold, seed=3
    )
    assert 600 < recall.planted <= 1_200
    share = recall.expected / recall.planted
    assert abs(recall.found - recall.expected) <= 4 * math.sqrt(recall.planted * share * (1 - share)) + 1


def test_bands_that_cannot_match_find_nothing() -> None:
    recall = recall_of(documents(200, 300), minhash=MinHash(1, 64, 7), ngram=5, threshold=0.5, seed=3)
    assert recall.found < 0.1 * recall.planted


def test_short_and_empty_documents_are_left_out() -> None:
    for text in (pa.array([], pa.string()), pa.array([None, "", "a b c"]), documents(8, MIN_SHINGLES + 3)):
        assert recall_of(text, minhash=MinHash(), ngram=5, threshold=0.8, seed=1) == Recall()
    long = recall_of(documents(400, MIN_SHINGLES + 4), minhash=MinHash(), ngram=5, threshold=0.5, seed=1)
    assert long.planted > 50


def test_sums_and_repeats() -> None:
    settings = {"minhash": MinHash(), "ngram": 5, "threshold": 0.8, "seed": 1}
    text = documents(100, 100)
    assert recall_of(text, **settings) == recall_of(text, **settings)
    assert Recall(3, 2, 2.5) + Recall(1, 1, 0.5) == Recall(4, 3, 3.0)
