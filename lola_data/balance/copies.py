"""How much of a language looks copied, before any deduplication: some of its documents in, the share of them that is
nearly the same as another of them out.

Of each document the set of its runs of five words is sketched by MinHash (:mod:`lola_data.minhash`), 4 bands of 6
lanes: two documents whose sets have the Jaccard similarity s share a band with probability 1 - (1 - s^6)^4, which is
0.95 at 0.9, 0.70 at 0.8 and 0.06 at 0.5. A document counts as repeated if another one shares a band with it.

At most some thousand documents of a language are looked at, chosen by hash. Of a larger language that finds only part
of what is there, for the copy of a document is mostly not among them: the share is a lower bound, and a high one says
that masses are copied. ``dedup`` compares all with all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

DOCUMENTS, BYTES = 4096, 2_000_000
"""Documents of a language that are looked at, about, and their text: whichever is less."""
BANDS, ROWS = 4, 6
WORDS = 5
_SEED = 0


def sketches(texts: pa.Array) -> NDArray[np.uint64]:
    """uint64[D, BANDS], a key a band, of the D documents that have ``WORDS`` words or more."""
    from lola_data.minhash import MinHash
    from lola_data.shingles import shingle_hashes

    keys, known = MinHash(BANDS, ROWS, _SEED).band_keys(*shingle_hashes(texts, WORDS))
    return keys[known]


def repeated(parts: Sequence[NDArray[np.uint64]]) -> tuple[int, int]:
    """Documents with sketches, and how many of them share a band with another."""
    keys = np.concatenate(parts) if parts else np.zeros((0, BANDS), np.uint64)
    if not len(keys):
        return 0, 0
    shared = np.zeros(len(keys), bool)
    for band in keys.T:
        _, place, counts = np.unique(band, return_inverse=True, return_counts=True)
        shared |= counts[place] > 1
    return len(keys), int(np.count_nonzero(shared))
