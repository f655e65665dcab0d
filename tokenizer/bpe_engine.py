"""The compiled engine of :class:`tokenizer.encode.Encoder`: BPE models, several texts at a time.

In: a model, then texts in a buffer. Out: the ids that sentencepiece gives. What has been learned of parts of words
stays from call to call; no answer depends on it.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.bpe_kernel import MASKS, SPARE_IDS, encode_texts, new_memo
from tokenizer.bpe_tables import build_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lola_data.buffers import Bytes, Offsets
    from tokenizer.bpe_kernel import Memo
    from tokenizer.formats import ModelFile

MEMO_BITS = 17
"""2^17 parts are remembered, in 8 MB for each core, and 2^15 long ones in another 4."""
PARALLEL_BYTES = 2**20
"""Text of this much is shared out among the cores, if the process may use several."""


class BpeEngine:
    """Encodes by :mod:`tokenizer.bpe_kernel`. May be called from several threads at once.

    Raises:
        UnsupportedModel: see :func:`tokenizer.bpe_tables.build_tables`.
    """

    def __init__(self, model: ModelFile) -> None:
        self._tables = build_tables(model)
        self._memos: list[Memo] = []

    def __call__(self, data: Bytes, offsets: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and token counts of the texts ``data[offsets[i]:offsets[i + 1]]``, valid UTF-8."""
        # Whether Arrow lets write into its buffer or not, compiled code shall see one type.
        data = data.view()
        data.flags.writeable = False
        cores = _cores() if data.size >= PARALLEL_BYTES else 1
        if cores == 1:
            return self._encode(data, offsets)
        aims = np.linspace(offsets[0], offsets[-1], cores + 1)[1:-1]
        borders = np.unique([0, *np.searchsorted(offsets, aims), offsets.size - 1]).tolist()
        with ThreadPoolExecutor(cores) as pool:
            parts = [offsets[first : last + 1] for first, last in pairwise(borders)]
            found = list(pool.map(lambda part: self._encode(data, part), parts))
        return np.concatenate([ids for ids, _ in found]), np.concatenate([counts for _, counts in found])

    def _encode(self, data: Bytes, offsets: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ids = np.empty(int(offsets[-1] - offsets[0]) + SPARE_IDS, np.int32)
        counts = np.empty(offsets.size - 1, np.int64)
        try:
            memo = self._memos.pop()
        except IndexError:
            memo = new_memo(MEMO_BITS)
        size = encode_texts(data, offsets, self._tables, memo, MASKS, ids, counts)
        self._memos.append(memo)
        return ids[:size], counts


def _cores() -> int:
    """Cores this process may use for itself: one, if it is a worker among others."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
