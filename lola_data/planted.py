"""Planted duplicates: texts in; how many of their edited copies the LSH bands propose, against how many they should.

The copies are made of the user's own documents, whatever their script, so that the figure says what the bands do there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from lola_data.clusters import jaccard_at_least
from lola_data.minhash import candidate_probability
from lola_data.shingles import shingle, unique_sorted

if TYPE_CHECKING:
    from lola_data.buffers import Offsets
    from lola_data.minhash import MinHash
    from lola_data.words import Hashes

MIN_SHINGLES = 20
"""Shorter documents are left out: one word more or less moves their similarity too far."""
MAX_WORDS = 2**17
"""Longer documents are left out too: a copy of one costs twice as much as the rest of its way through the stage."""
LEVELS = 4
"""Similarities aimed at, evenly spread between the threshold and 1, one after the other over the documents."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Copies at or above the threshold (``planted``), those of them that share a band with their original (``found``),
    and the sum of the chances of that by the S-curve (``expected``)."""

    planted: int = 0
    found: int = 0
    expected: float = 0.0

    def __add__(self, other: Recall) -> Recall:
        return Recall(self.planted + other.planted, self.found + other.found, self.expected + other.expected)


@numba.njit(cache=True, nogil=True)
def _similarities(own, own_offsets, other, other_offsets, threshold):
    """Jaccard similarity of each pair of sets, -1 where it is below the threshold."""
    found = np.empty(own_offsets.size - 1, dtype=np.float64)
    for document in range(found.size):
        found[document] = jaccard_at_least(
            own[own_offsets[document] : own_offsets[document + 1]],
            other[other_offsets[document] : other_offsets[document + 1]],
            threshold,
        )
    return found


def planted_recall(
    words: Hashes, offsets: Offsets, keys: Hashes, *, minhash: MinHash, ngram: int, threshold: float, seed: int
) -> Recall:
    """Edit a copy of each document, single words replaced at random, and see whether it would be compared.

    ``words``, ``offsets``: of n documents, as :func:`lola_data.words.scan_words` gives them; ``keys``: their band keys,
    (n, bands) uint64.

    A share p of the words is replaced, so (1 - p)^ngram = q of the shingles stay and the Jaccard similarity is about
    q / (2 - q). What counts is the exact similarity of the two sets; copies that come out below the threshold are not
    duplicates and do not count. The same texts and seed give the same figure.
    """
    lengths = np.diff(offsets)
    aims = threshold + (1.0 - threshold) * (np.arange(lengths.size) % LEVELS + 0.5) / LEVELS
    replaced_share = 1.0 - (2.0 * aims / (1.0 + aims)) ** (1.0 / ngram)
    draws = np.random.Generator(np.random.PCG64([seed, lengths.size]))
    replaced = draws.random(words.size) < np.repeat(replaced_share, lengths)
    edited = np.where(replaced, draws.integers(0, 2**64, size=words.size, dtype=np.uint64), words)
    own, own_offsets = unique_sorted(*shingle(words, offsets, ngram))
    other, other_offsets = unique_sorted(*shingle(edited, offsets, ngram))
    proposed = (keys == minhash.band_keys(other, other_offsets)[0]).any(axis=1)
    similarities = _similarities(own, own_offsets, other, other_offsets, threshold)
    similarities[lengths < MIN_SHINGLES + ngram - 1] = -1.0
    counts = similarities >= threshold
    chances = candidate_probability(similarities[counts], bands=minhash.bands, rows=minhash.rows)
    return Recall(int(counts.sum()), int(proposed[counts].sum()), float(chances.sum()))
