"""fastText's own library as the classifier, for models that :mod:`lola_data.lid.kernel` does not read.

In: the path of a model, then strings. Out: what the kernel gives, by fastText's batched ``predict``, which wants each
text as a line of its own.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.errors import LolaError

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.buffers import Bytes, Offsets

_PIECE_BYTES = 16 * 2**20
_END_OF_SENTENCE = np.frombuffer(b"</s>", dtype=np.uint8)


class Binding:
    """A classifier that asks fastText; ``labels`` and ``predict`` as in ``lola_data.lid.kernel.Classifier``."""

    def __init__(self, path: Path) -> None:
        """Raises LolaError where fastText cannot load the file."""
        import fasttext

        try:
            model = fasttext.load_model(str(path))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise LolaError(f"{path}: fastText cannot load this model: {error}") from error
        self.labels: list[str] = cast("Any", model).get_labels()
        # Below the Python wrapper, whose ``predict`` of a single string breaks with NumPy 2 in upstream builds.
        self._predict: Any = model.f.multilinePredict

    def predict(self, data: Bytes, offsets: Offsets) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Label (-1: none) and probability of each text, taken as one line."""
        labels = np.full(offsets.size - 1, -1, dtype=np.int32)
        scores = np.zeros(offsets.size - 1, dtype=np.float32)
        for start, stop in _pieces(offsets):
            lines = one_line_each(data, offsets[start : stop + 1])
            spoken = np.flatnonzero(pc.invert(pc.utf8_is_space(lines)).to_numpy(zero_copy_only=False))
            answers, chances = self._predict(lines.take(pa.array(spoken)).to_pylist(), 1, 0.0, "strict")
            # fastText gives no label at all for a line none of whose n-grams it knows.
            answered = start + spoken[np.fromiter(map(len, answers), dtype=np.int64, count=len(answers)) > 0]
            if len(answered):
                names = pa.array(chain.from_iterable(answers), pa.string())
                numbers = cast("Any", pc).index_in(names, value_set=pa.array(self.labels, pa.string()))
                labels[answered] = numbers.to_numpy()
                scores[answered] = np.concatenate(chances)
        return labels, scores


def one_line_each(data: Bytes, offsets: Offsets) -> pa.Array:
    """Each text as the one line that fastText is shown, its closing line feed included; (n,) large_string."""
    total = int(offsets[-1] - offsets[0])
    lines = np.empty(total + offsets.size - 1, dtype=np.uint8)
    _one_line_each(data, offsets, _END_OF_SENTENCE, lines)
    borders = offsets - offsets[0] + np.arange(offsets.size)
    return pa.LargeStringArray.from_buffers(offsets.size - 1, pa.py_buffer(borders), pa.py_buffer(lines))


def _pieces(offsets: Offsets) -> list[tuple[int, int]]:
    """Ranges of about 16 MB, so that the lines handed to fastText are never all in memory at once."""
    pieces: list[tuple[int, int]] = []
    start, rows = 0, offsets.size - 1
    while start < rows:
        stop = int(np.searchsorted(offsets, offsets[start] + _PIECE_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), rows)
        pieces.append((start, stop))
        start = stop
    return pieces


@numba.njit(nogil=True, cache=True)
def _one_line_each(data: Bytes, offsets: Offsets, end_of_sentence: Bytes, lines: Bytes) -> None:
    out = 0
    for row in range(offsets.size - 1):
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            byte = data[at]
            width = 1
            replaced = byte == 0 or 10 <= byte <= 13
            if byte == 0xC2 and at + 1 < end and data[at + 1] == 0x85:
                width, replaced = 2, True
            elif byte == 0xE2 and at + 2 < end and data[at + 1] == 0x80 and 0xA8 <= data[at + 2] <= 0xA9:
                width, replaced = 3, True
            elif byte == end_of_sentence[0] and at + 4 <= end:
                replaced = (
                    data[at + 1] == end_of_sentence[1]
                    and data[at + 2] == end_of_sentence[2]
                    and data[at + 3] == end_of_sentence[3]
                )
                width = 4 if replaced else 1
            for _ in range(width):
                lines[out] = 32 if replaced else byte
                out += 1
            at += width
        lines[out] = 10
        out += 1
