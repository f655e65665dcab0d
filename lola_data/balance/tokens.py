"""Tokens of a SentencePiece model: texts in, tokens and bytes of a part of them out, and the total they speak for.

Encoding is a hundred times slower than counting characters, so of a large language only some documents are encoded.
A document is taken if the hash of (seed, id) is below a bound, whatever its neighbours are, and tokens go with bytes:
their ratio in the sample times the language's bytes, which are known, is the estimate (see
:mod:`lola_data.balance.estimate`). As in token shards, an end-of-document token ``</s>`` counts after each document if
the model has one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

SAMPLE_BYTES = 2_000_000
"""Text of a language that is encoded; a language with no more is encoded whole."""
SAMPLE_DOCUMENTS = 300
"""Documents to be expected in the sample at least, however long they are."""
NEARLY_ALL = 0.8
"""A language of whose documents this share would be encoded is encoded whole."""
_BATCH_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class TokenTotal:
    """Tokens of a language, end-of-document tokens included.

    Attributes:
        tokens: the estimate, or the count where all documents were encoded.
        half_width: of the interval of 95 % confidence; 0 of a count.
        documents, bytes: that were encoded.
    """

    tokens: float
    half_width: float
    documents: int
    bytes: int


class TokenCounter:
    """A SentencePiece model that counts.

    Args:
        model_path: a local ``.model`` file.

    Raises:
        RecipeError: no such file, or no SentencePiece model.
    """

    def __init__(self, model_path: str | os.PathLike[str]) -> None:
        import sentencepiece

        self.path = str(model_path)
        try:
            content = Path(model_path).read_bytes()
        except OSError as error:
            raise RecipeError(
                f"tokenizer {model_path}: {error.strerror or error}; give the .model file of a SentencePiece tokenizer"
            ) from error
        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise RecipeError(
                f"tokenizer {model_path}: not a SentencePiece model; give the .model file that training wrote"
            ) from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        """Digest of the model file."""
        self.vocab_size = int(self._processor.vocab_size())
        self.ends_documents = int(self._processor.eos_id()) >= 0
        """The model has a token that stands after each document."""

    def count(self, texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens, without any control token, and bytes of each text, int64[rows]; a null is an empty text."""
        rows = [text or b"" for text in texts.cast("large_binary").to_pylist()]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        tokens = np.zeros(len(rows), np.int64)
        # The lists of ids are larger than the text.
        starts = np.flatnonzero(np.diff(np.cumsum(sizes) // _BATCH_BYTES, prepend=-1)).tolist()
        for start, stop in pairwise([*starts, len(rows)]):
            tokens[start:stop] = [len(ids) for ids in self._processor.encode(rows[start:stop], out_type=int)]
        return tokens, sizes


def chance(documents: int, size: int) -> float:
    """Share of documents to encode, of so many with so many bytes in all."""
    if not documents or not size:
        return 1.0
    share = max(SAMPLE_BYTES / size, SAMPLE_DOCUMENTS / documents)
    return share if share < NEARLY_ALL else 1.0


class Moments:
    """Sums over units with tokens t and bytes b: all that a ratio and its interval need, in constant memory."""

    def __init__(self) -> None:
        self.documents = 0
        self._sums = np.zeros(6)

    def add(self, tokens: Sequence[int] | NDArray[np.int64], sizes: Sequence[int] | NDArray[np.int64]) -> None:
        """Documents, each a unit."""
        t, b = np.asarray(tokens, np.float64), np.asarray(sizes, np.float64)
        self._sums += np.array([t.size, t.sum(), b.sum(), t @ t, t @ b, b @ b])
        self.documents += t.size

    def as_unit(self) -> Moments:
        """All of them together as one unit: the documents of a page."""
        _, t, b, *_ = self._sums.tolist()
        whole = Moments()
        whole.documents = self.documents
        whole._sums[:] = (1.0, t, b, t * t, t * b, b * b)
        return whole

    def absorb(self, other: Moments) -> None:
        """Take over all that ``other`` has."""
        self._sums += other._sums
        self.documents += other.documents

    def total(self, documents: int, size: float, *, fraction: float, ends: bool) -> TokenTotal:
        """Tokens of a language of so many documents and bytes.

        Args:
            documents, size: of the language, those not encoded included.
            fraction: of the units that were taken; from 1 on the figures are counts.
            ends: a token counts after each document.
        """
        from lola_data.balance.estimate import ratio_of_moments

        n, t, b, tt, tb, bb = self._sums.tolist()
        more = documents if ends else 0
        if fraction >= 1.0:
            return TokenTotal(t + more, 0.0, self.documents, int(b))
        per_byte, half = ratio_of_moments(int(n), t, b, tt, tb, bb, fraction)
        return TokenTotal(per_byte * size + more, half * size, self.documents, int(b))
