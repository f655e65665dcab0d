"""gigatoken as an engine of :class:`tokenizer.encode.Encoder`: one document after the other, words remembered.

gigatoken remembers the ids of every word it has met. Its call for a batch begins with an empty memory and takes
milliseconds to set it up, so that text which comes in pieces of a megabyte is encoded at half the speed; its call for
a single document keeps what it has learned. The memory is never emptied, at about 100 bytes a word, so that here the
tokenizer is made anew from time to time.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lola_data.buffers import Bytes, Offsets

REMEMBERED_BYTES = 128 * 2**20
"""Text after which the memory of words is emptied. Natural text of so many bytes has a million words, or 100 MB."""
PARALLEL_BYTES = 2**22
PARALLEL_CORES = 4
"""A batch this large goes to all cores if there are so many: fewer gain less by that than the memory of words gives."""
SHORT_BYTES = 64
"""Documents shorter than this on average go as a batch: a call for each would take longer than its words."""


class FastEngine:
    """Encodes by gigatoken.

    Args:
        model: contents of a SentencePiece model file.

    Raises:
        Exception: of any kind, if gigatoken is missing or cannot read the model.
    """

    def __init__(self, model: bytes) -> None:
        import gigatoken

        # It would take control tokens written out in a text for the tokens themselves, so it must not know of any.
        config: dict[str, Any] = gigatoken.Tokenizer.from_sentencepiece(model)._hf_config()
        config["added_tokens"] = []
        self._new: Callable[[], Any] = partial(gigatoken.Tokenizer.from_json, json.dumps(config, ensure_ascii=False))
        self._tokenizer = self._new()
        self._left = REMEMBERED_BYTES

    def __call__(self, data: Bytes, offsets: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and token counts of ``data[offsets[i]:offsets[i + 1]]``."""
        documents = offsets.size - 1
        parallel = data.size >= PARALLEL_BYTES and _cores() >= PARALLEL_CORES
        if parallel or data.size < SHORT_BYTES * documents:
            return self._batch(data, offsets, parallel=parallel)
        return self._one_by_one(data.tobytes(), offsets.tolist())

    def _one_by_one(self, data: bytes, borders: list[int]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        if len(data) > self._left:
            self._tokenizer = self._new()
            self._left = REMEMBERED_BYTES
        self._left -= len(data)
        encode = self._tokenizer.encode
        rows = [encode(data[start:stop]) for start, stop in itertools.pairwise(borders)]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        # The ids are far below 2^31, so that they can be looked at as they are.
        return np.concatenate([np.zeros(0, np.uint32), *rows]).view(np.int32), counts

    def _batch(self, data: Bytes, offsets: Offsets, *, parallel: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        import awkward

        contents = awkward.contents
        characters = contents.NumpyArray(cast("Any", data), parameters={"__array__": "char"})
        strings = contents.ListOffsetArray(
            awkward.index.Index64(offsets), characters, parameters={"__array__": "string"}
        )
        rows = cast("Any", self._tokenizer.encode_batch(awkward.Array(strings), parallel=parallel)).layout
        ends = np.asarray(rows.offsets.data, np.int64)
        ids = np.asarray(rows.content.data)[ends[0] : ends[-1]]
        return ids.view(np.int32), np.diff(ends)


def _cores() -> int:
    """Cores this process may use for itself: one, if it is a worker among others."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
