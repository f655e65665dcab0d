"""Text to token ids and back, without losing a byte.

In: an Arrow string column. Out: the ids of all documents in one flat array and the number of tokens in each. The ids
are those of ``sentencepiece.SentencePieceProcessor.encode``, but for one character: SentencePiece writes U+2581 for a
space, so that a U+2581 in the text would come back as a space. Here it is spelled with its three byte pieces, and
``decode(encode(text)) == text`` holds for every text. Control tokens never come out of text: ``</s>`` in a document is
encoded as the four characters it is.

Two engines give the same ids. The compiled one of :mod:`tokenizer.bpe_engine` is some ten times faster and works on
the Arrow buffers as they are; sentencepiece's own is used for the models that it does not know, and if the two disagree
on a set of hard texts that every new :class:`Encoder` tries both on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import sentencepiece
from numpy.typing import ArrayLike, NDArray

from lola_data.buffers import Bytes, Offsets, Text, string_buffer, string_chunks
from lola_data.errors import RecipeError, ShardError
from tokenizer.bpe_engine import BpeEngine
from tokenizer.bpe_tables import UnsupportedModel
from tokenizer.formats import SPACE_SYMBOL, PieceType, read_model

if TYPE_CHECKING:
    import os

BATCH_BYTES = 16 * 2**20
"""Text handed to an engine at a time."""
CHUNK_BYTES = 2**20
"""A longer document is cut, where no piece can reach across the cut."""
CUT_WINDOW = 2**12
"""Text that is searched at a time for a place to cut."""
MAX_CHUNK_BYTES = 8 * 2**20
"""Where no such place turns up, a document is cut all the same after this many bytes; see :meth:`Encoder.encode`."""

_Number = TypeVar("_Number", np.int32, np.int64)

Engine = Callable[[Bytes, Offsets], tuple[NDArray[np.int32], NDArray[np.int64]]]
"""(data uint8[B], offsets int64[S + 1]) -> (ids int32[N], tokens int64[S]) of ``data[offsets[i]:offsets[i + 1]]``."""

_SPACE_BYTES = SPACE_SYMBOL.encode()
_PROBES = (
    "",
    "Plain text, 12345 and  double  spaces, ",
    " leading\n\n\ttabs and\r\nline breaks\n",
    "</s> <s> <unk> <pad> <0x41> <0xE2>",
    "x\0y\ufeff\u00a0\u2585\ufffd\U0010ffff",
    "می‌خواهم తెలుగు‌ కీ ශ්‍රී ภาษาไทย ខ្មែរ 汉字。かな 한국어 ①ﬁ",
    "👨‍👩‍👧‍👦🏳️‍🌈🇩🇪 e\u0301\u0323 \u0301",
    "a" * 300 + " " * 300 + "的" * 300,
)


class Encoder:
    """A SentencePiece model, ready to encode.

    Args:
        model_path: a lossless model (:meth:`tokenizer.formats.ModelFile.losses`), such as ``tokenizer train`` makes.
        threads: of sentencepiece's own engine. The compiled one uses all cores, or one inside a worker process.

    Raises:
        RecipeError: no model there, or one that loses text; the message names the settings at fault.
    """

    def __init__(self, model_path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.path = str(model_path)
        self.model = read_model(model_path)
        if losses := self.model.losses():
            raise RecipeError(
                f"{model_path}: this SentencePiece model does not give every text back: {', '.join(losses)}. Train one "
                "with `lola-data tokenizer train`, or with byte_fallback, the identity rule and no white-space clean-up"
            )
        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=self.model.data)
        except RuntimeError as error:
            raise RecipeError(
                f"{model_path}: SentencePiece cannot load this model ({_last_words(error)}); train or copy it again"
            ) from error
        self.vocab_size = int(self._processor.vocab_size())
        self.eod_id = int(self._processor.eos_id())
        """Id of ``</s>``, which stands after each document in token shards."""
        self.sha256 = self.model.sha256
        """Digest of the model file."""
        if self.eod_id < 0:
            raise RecipeError(f"{model_path}: the model has no end-of-document token </s>; train it with eos_id >= 0")
        self._threads = threads
        self._space_ids = np.array([self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_BYTES], np.int32)
        self.engine = "sentencepiece"
        """The engine in use: ``compiled`` or ``sentencepiece``."""
        self._encode: Engine = self._encode_by_sentencepiece
        with suppress(UnsupportedModel):
            compiled = BpeEngine(self.model)
            if self._agrees(compiled):
                self.engine, self._encode = "compiled", compiled

    def encode(self, text: Text, *, checked: bool = False) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of a column of documents. No control token is added; a null document is an empty one.

        A document beyond ``CHUNK_BYTES`` is encoded in chunks. They end between two characters that stand side by side
        in no piece of the vocabulary, so no merge could have joined them and the ids are those of the whole. Only where
        there is no such pair within ``MAX_CHUNK_BYTES`` (megabytes of one letter) is it cut between any two
        characters: then the pieces at the cut may differ, and the text still comes back as it was.

        Args:
            text: the documents.
            checked: they are known to be valid UTF-8.

        Returns:
            ids int32[sum(lengths)], all documents one after the other, and lengths int64[D].

        Raises:
            ShardError: a document that is not valid UTF-8.
        """
        if not checked:
            _check_utf8(text)
        ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for chunk in string_chunks(text):
            chunk_ids, chunk_lengths = self._encode_documents(*string_buffer(chunk))
            ids.append(chunk_ids)
            lengths.append(chunk_lengths)
        return _joined(ids), _joined(lengths)

    def decode(self, ids: ArrayLike) -> str:
        """The text of token ids; control tokens give nothing, bytes that are not UTF-8 give U+FFFD."""
        return str(self._processor.decode(np.asarray(ids, np.int64).tolist()))

    def piece(self, token: int) -> str:
        """The vocabulary entry of an id, as SentencePiece writes it (U+2581 is a space)."""
        return self.model.pieces[token].text

    @cached_property
    def byte_values(self) -> NDArray[np.int16]:
        """int16[vocab_size]: the byte a byte piece stands for, -1 for every other piece."""
        return np.array(
            [int(piece.text[1:-1], 16) if piece.type == PieceType.BYTE else -1 for piece in self.model.pieces], np.int16
        )

    @cached_property
    def _neighbours(self) -> NDArray[np.uint64]:
        """Pairs of characters that stand side by side in some piece, as :func:`_pairs` writes them, ascending."""
        found = [np.zeros(0, np.uint64)]
        for piece in self.model.pieces:
            if piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED, PieceType.UNUSED):
                found.append(_pairs(piece.text.replace(SPACE_SYMBOL, " ")))
        return np.unique(np.concatenate(found))

    def _encode_documents(self, data: Bytes, offsets: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and token counts of the documents ``data[offsets[i]:offsets[i + 1]]``."""
        marks = _find_space_symbols(data, int(offsets[0]), int(offsets[-1]))
        if not marks.size and (np.diff(offsets) <= CHUNK_BYTES).all():
            return self._encode_segments(data, offsets)
        borders = np.unique(np.concatenate([offsets, marks, marks + 3]))
        borders = np.concatenate([borders, self._cuts(data, borders)])
        borders.sort()
        ids, counts = self._encode_segments(data, borders)
        if marks.size:
            ids, counts = self._spell_out(ids, counts, np.isin(borders[:-1], marks))
        ends = np.zeros(borders.size, np.int64)
        np.cumsum(counts, out=ends[1:])
        return ids, np.diff(ends[np.searchsorted(borders, offsets)])

    def _cuts(self, data: Bytes, borders: Offsets) -> NDArray[np.int64]:
        """Further borders inside the segments that are longer than ``CHUNK_BYTES``."""
        cuts: list[int] = []
        for segment in np.flatnonzero(np.diff(borders) > CHUNK_BYTES).tolist():
            at, end = int(borders[segment]), int(borders[segment + 1])
            while end - at > CHUNK_BYTES:
                at = self._next_cut(data, at, end)
                if at < end:
                    cuts.append(at)
        return np.array(cuts, np.int64)

    def _next_cut(self, data: Bytes, start: int, end: int) -> int:
        """First border at or after ``start + CHUNK_BYTES`` that no piece reaches across."""
        at = _character_start(data, start + CHUNK_BYTES, end)
        limit = min(end, start + MAX_CHUNK_BYTES)
        while at < limit:
            stop = _character_start(data, min(at + CUT_WINDOW, limit), end)
            window = data[at:stop].tobytes().decode()
            apart = np.flatnonzero(~_among(_pairs(window), self._neighbours))
            if apart.size:
                return at + len(window[: apart[0] + 1].encode())
            if stop >= limit:
                return stop
            at = stop - len(window[-1].encode())
        return end

    def _encode_segments(self, data: Bytes, borders: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ids: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        counts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        first = 0
        while first < borders.size - 1:
            last = int(np.searchsorted(borders, borders[first] + BATCH_BYTES, "right")) - 1
            last = max(last, first + 1)
            batch = borders[first : last + 1]
            batch_ids, batch_counts = self._encode(data[batch[0] : batch[-1]], batch - batch[0])
            ids.append(batch_ids)
            counts.append(batch_counts)
            first = last
        return _joined(ids), _joined(counts)

    def _spell_out(
        self, ids: NDArray[np.int32], counts: NDArray[np.int64], is_mark: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Put the byte pieces of U+2581 in the place of what the engine made of it."""
        ids = ids[np.repeat(~is_mark, counts)]
        before = np.cumsum(np.where(is_mark, 0, counts))[is_mark]
        ids = np.insert(ids, np.repeat(before, 3), np.tile(self._space_ids, before.size))
        return ids, np.where(is_mark, 3, counts)

    def _encode_by_sentencepiece(self, data: Bytes, offsets: Offsets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        buffer = data.tobytes()
        borders = offsets.tolist()
        texts = [buffer[start:stop] for start, stop in pairwise(borders)]
        rows = self._processor.encode(texts, out_type=int, num_threads=self._threads)
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.concatenate([np.zeros(0, np.int32), *(np.array(row, np.int32) for row in rows)]), counts

    def _agrees(self, engine: Engine) -> bool:
        probes = [probe.encode() for probe in _PROBES]
        data = np.frombuffer(b"".join(probes), np.uint8)
        offsets = np.cumsum([0, *map(len, probes)]).astype(np.int64)
        given = engine(data, offsets)
        wanted = self._encode_by_sentencepiece(data, offsets)
        return all(np.array_equal(one, other) for one, other in zip(given, wanted, strict=True))


def _pairs(text: str) -> NDArray[np.uint64]:
    """Characters side by side, uint64[len(text) - 1]: the first in the upper half."""
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    return characters[:-1] << np.uint64(32) | characters[1:]


def _among(values: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values are there (``np.isin`` sorts and hashes first, which takes ten times as long)."""
    if not ascending.size:
        return np.zeros(values.size, np.bool_)
    return ascending[np.minimum(np.searchsorted(ascending, values), ascending.size - 1)] == values


def _joined(parts: list[NDArray[_Number]]) -> NDArray[_Number]:
    """The parts one after the other; where only the last holds anything, that one as it is."""
    return parts[-1] if len(parts) == 2 and not parts[0].size else np.concatenate(parts)


def _last_words(error: RuntimeError) -> str:
    """The message, without the place in SentencePiece's source that it begins with."""
    return str(error).strip().splitlines()[0].rpartition("] ")[2].rstrip(".") or "no reason given"


def _find_space_symbols(data: Bytes, start: int, stop: int) -> NDArray[np.int64]:
    """Byte positions of U+2581 in ``data[start:stop]``."""
    first, second, third = _SPACE_BYTES
    lead = np.flatnonzero(data[start : max(start, stop - 2)] == first) + start
    return lead[(data[lead + 1] == second) & (data[lead + 2] == third)].astype(np.int64)


def _character_start(data: Bytes, at: int, end: int) -> int:
    """The first position from ``at`` on, up to ``end``, that is not inside a UTF-8 character."""
    while at < end and data[at] & 0xC0 == 0x80:
        at += 1
    return min(at, end)


def _check_utf8(text: Text) -> None:
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        for row, value in enumerate(text):
            try:
                value.as_py()
            except UnicodeDecodeError as fault:
                raise ShardError(
                    f"row {row} of the text to encode is not valid UTF-8 ({fault.reason} at byte {fault.start}); "
                    "remove the document, or run identify with its checks set to drop such rows"
                ) from error
        raise ShardError(f"the text to encode is damaged: {error}") from error
