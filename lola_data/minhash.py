"""MinHash signatures and LSH band keys of shingle sets.

In: per document a set of 64-bit shingle hashes (repeats do no harm), flat with offsets, as
:func:`lola_data.shingles.shingle_hashes` gives them. Out: signatures, one uint32 minimum per lane, and one uint64 key
per band of lanes. Two documents share a given lane with probability equal to the Jaccard similarity s of their sets
(Broder, "On the resemblance and containment of documents", 1997), so they share at least one of b bands of r rows with
probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, section 3.4.2).

Minima are taken as in "Fast Similarity Sketching" (Dahlgaard, Knudsen and Thorup, FOCS 2017, arXiv 1704.04370): a round
deals every element into one of the t lanes with a random value, and a lane keeps the least value of the first round
that reaches it. About t ln t + n hashes make a signature of n elements, where a function for each lane would take t n.
Lanes of one round are drawn without replacement, so the number of shared lanes varies less than by chance, and the
S-curve of small sets comes out steeper than the formula: by 0.016 at the most for 14 bands of 8 rows.

A band key is a proposal, never a verdict: :mod:`lola_data.clusters` decides by exact Jaccard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from lola_data.hashes import SEED_B, mix64, step_a

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.buffers import Offsets
    from lola_data.words import Hashes

Signatures: TypeAlias = npt.NDArray[np.uint32]

_NOTHING = np.uint32(0xFFFF_FFFF)
_OPEN = np.uint32(0x8000_0000)
_VALUE = np.uint32(0x7FFF_FFFF)
_HALF = np.uint64(32)


def candidate_probability(similarity: npt.ArrayLike, *, bands: int, rows: int) -> npt.NDArray[np.float64]:
    """Chance that a pair of this Jaccard similarity shares at least one band: 1 - (1 - s^rows)^bands.

    >>> candidate_probability([0.5, 0.8], bands=14, rows=8).round(3).tolist()
    [0.053, 0.924]
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    return -np.expm1(bands * np.log1p(-np.minimum(similarity**rows, 1.0 - 2.0**-53)))


def s_curve(
    *, bands: int, rows: int, similarities: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
) -> list[tuple[float, float]]:
    """Rows (similarity, chance to be proposed) of the table a run prints."""
    chances = candidate_probability(similarities, bands=bands, rows=rows)
    return [(similarity, float(chance)) for similarity, chance in zip(similarities, chances, strict=True)]


@numba.njit(cache=True, nogil=True)
def _sign(values, offsets, seed, signatures):
    seed = mix64(seed)
    lanes = signatures.shape[1]
    spread = np.uint64(lanes)
    unreached = np.empty(lanes, dtype=np.int64)
    for document in range(offsets.size - 1):
        start, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        if start == end:
            continue
        minima = signatures[document]
        left = lanes
        for lane in range(lanes):
            unreached[lane] = lane
        turn = 0
        while left > 0 and turn < lanes:
            key = mix64(seed + np.uint64(turn))
            for place in range(start, end):
                value = mix64(values[place] ^ key)
                lane = ((value >> _HALF) * spread) >> _HALF
                # Values of this round carry the top bit, so they lose against those of the rounds before.
                minima[lane] = min(minima[lane], np.uint32(value) | _OPEN)
            kept = 0
            for index in range(left):
                lane = np.uint64(unreached[index])
                if minima[lane] == _NOTHING:
                    unreached[kept] = lane
                    kept += 1
                else:
                    minima[lane] &= _VALUE
            left = kept
            turn += 1
        # Lanes that t rounds have not reached take the least value of all elements.
        for index in range(left):
            lane = np.uint64(unreached[index])
            key = mix64(seed + spread + lane)
            for place in range(start, end):
                minima[lane] = min(minima[lane], np.uint32(mix64(values[place] ^ key)) & _VALUE)


@numba.njit(cache=True, nogil=True)
def _band(signatures, bands, rows, keys):
    for document in range(signatures.shape[0]):
        for band in range(bands):
            key = SEED_B
            for lane in range(band * rows, (band + 1) * rows):
                key = step_a(key, np.uint64(signatures[document, lane]))
            keys[document, band] = mix64(key)


@dataclass(frozen=True)
class MinHash:
    """The hash functions of one run: ``bands`` x ``rows`` lanes drawn by ``seed``."""

    bands: int = 14
    rows: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bands < 1 or self.rows < 1:
            raise ValueError(f"bands and rows are at least 1, not {self.bands} and {self.rows}")

    @property
    def lanes(self) -> int:
        """Minima in a signature."""
        return self.bands * self.rows

    def signatures(self, values: Hashes, offsets: Offsets) -> Signatures:
        """(N, lanes) uint32; an empty set has 2^32 - 1 in every lane."""
        signatures = np.full((offsets.size - 1, self.lanes), _NOTHING, dtype=np.uint32)
        _sign(values, offsets, np.uint64(self.seed), signatures)
        return signatures

    def band_keys(self, values: Hashes, offsets: Offsets) -> tuple[Hashes, npt.NDArray[np.bool_]]:
        """Keys (N, bands) uint64, and (N,) bool: whether the document has any shingle. The keys of one that has none
        say nothing and must not be compared."""
        signatures = self.signatures(values, offsets)
        keys = np.empty((offsets.size - 1, self.bands), dtype=np.uint64)
        _band(signatures, self.bands, self.rows, keys)
        return keys, np.diff(offsets) > 0
