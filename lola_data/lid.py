"""Language identification with fastText models, batch by batch.

In: an Arrow column of texts. Out: a column of CulturaX codes and a column of scores, one each per text. The label is
what fastText's own ``predict`` gives for the text as one line.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.buffers import Text, string_buffer, string_chunks
from lola_data.errors import LolaError
from lola_data.lid_format import check_model_file
from lola_data.lid_labels import UNDETERMINED, culturax_code
from lola_data.lid_models import REGISTRY, model_path

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.buffers import Bytes, Offsets

_PIECE_BYTES = 16 * 2**20
_END_OF_SENTENCE = np.frombuffer(b"</s>", dtype=np.uint8)


class Identifier:
    """Names the language of texts.

    The model is loaded at the first call and shared by all identifiers of the process with the same model; an instance
    that has not been asked yet can be sent to another process, and one that has been asked is sent without the model.

    Args:
        model: a registered name (see :mod:`lola_data.lid_models`) or the path of a fastText classifier.
        max_chars: show the model only so many leading characters of a text (None: all).
    """

    def __init__(self, model: str = "lid.176.ftz", *, max_chars: int | None = None) -> None:
        self.model = model
        self.max_chars = max_chars

    def load(self) -> None:
        """Load the model now, for example before a fork so that the processes share its memory.

        Raises:
            RecipeError: no such model.
            LolaError: it cannot be downloaded, or the file is not a whole fastText classifier.
        """
        _load(self.model)

    def identify(self, text: Text) -> tuple[pa.Array, pa.Array]:
        """Language and score of each text.

        Line breaks (LF, CR, VT, FF, U+0085, U+2028, U+2029) and NUL stand for a space: fastText ends its line at the
        first of them, or takes it for part of a word. So does the literal token ``</s>``, at which it would stop
        reading. A text that is null, empty or nothing but white space is ``und`` with score 0.

        Args:
            text: (n,) strings of valid UTF-8.

        Returns:
            lang (n,) string, CulturaX codes or the model's own label where there is none; score (n,) float32, the
            probability of that label, in [0, 1].
        """
        predict = _load(self.model)
        langs: list[pa.Array] = []
        scores: list[pa.Array] = []
        for part in string_chunks(text):
            for piece in _pieces(part):
                lang, score = self._identify_piece(predict, piece)
                langs.append(lang)
                scores.append(score)
        return (
            pa.concat_arrays(langs) if langs else pa.array([], pa.string()),
            pa.concat_arrays(scores) if scores else pa.array([], pa.float32()),
        )

    def _identify_piece(self, predict: Any, text: pa.Array) -> tuple[pa.Array, pa.Array]:
        if self.max_chars is not None:
            text = pc.utf8_slice_codeunits(text, 0, self.max_chars)
        lines = one_line_each(text)
        spoken = np.flatnonzero(pc.invert(pc.utf8_is_space(lines)).to_numpy(zero_copy_only=False))
        lang = np.full(len(lines), UNDETERMINED, dtype=object)
        score = np.zeros(len(lines), dtype=np.float32)
        if len(spoken):
            labels, probabilities = predict(lines.take(pa.array(spoken)).to_pylist(), 1, 0.0, "strict")
            # fastText gives no label at all for a line none of whose n-grams it knows.
            answered = spoken[np.fromiter(map(len, labels), dtype=np.int64, count=len(labels)) > 0]
            names = pa.array(chain.from_iterable(labels), pa.string()).dictionary_encode()
            codes = np.array([culturax_code(label) for label in names.dictionary.to_pylist()], dtype=object)
            if len(answered):
                lang[answered] = codes[names.indices.to_numpy()]
                score[answered] = np.concatenate(probabilities)
                # The steps of hierarchical softmax add 1e-5 each, so a sure label may come out above 1.
                np.clip(score, 0.0, 1.0, out=score)
                score[lang == UNDETERMINED] = 0.0
        return pa.array(lang, pa.string()), pa.array(score, pa.float32())


def one_line_each(text: pa.Array) -> pa.Array:
    """Each text as the one line that fastText is shown, its closing line feed included; (n,) large_string."""
    data, offsets = string_buffer(text)
    total = int(offsets[-1] - offsets[0])
    lines = np.empty(total + len(text), dtype=np.uint8)
    _one_line_each(data, offsets, _END_OF_SENTENCE, lines)
    borders = offsets - offsets[0] + np.arange(len(text) + 1)
    return pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(borders), pa.py_buffer(lines))


def _pieces(text: pa.Array) -> list[pa.Array]:
    """Slices of about 16 MB, so that the lines handed to fastText are never all in memory at once."""
    _, offsets = string_buffer(text)
    pieces: list[pa.Array] = []
    start = 0
    while start < len(text):
        stop = int(np.searchsorted(offsets, offsets[start] + _PIECE_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), len(text))
        pieces.append(text.slice(start, stop - start))
        start = stop
    return pieces


@lru_cache(maxsize=2)
def _load(model: str) -> Any:
    """fastText's own batched predict: (lines, k, threshold, on_unicode_error) -> (labels, probabilities).

    Bound below the Python wrapper, whose ``predict`` of a single string breaks with NumPy 2 in upstream builds.
    """
    path = model_path(model)
    if model not in REGISTRY:
        check_model_file(path)
    return _open(path).f.multilinePredict


def _open(path: Path) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise LolaError(f"{path}: fastText cannot load this model: {error}") from error


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
