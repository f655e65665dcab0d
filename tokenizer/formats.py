"""What a SentencePiece ``.model`` file says of itself: its pieces and the settings that decide whether it loses text.

In: the file, a serialized ``ModelProto``. Out: :class:`ModelFile`. Only the few fields used here are read, straight
from the protocol-buffer wire format (https://protobuf.dev/programming-guides/encoding), because the sentencepiece
package gives no access to a model's normaliser settings without a protobuf runtime.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE_SYMBOL = "\u2581"
"""LOWER ONE EIGHTH BLOCK, with which SentencePiece writes a space inside a piece."""


class PieceType(IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """``TrainerSpec.ModelType``."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary."""

    text: str
    type: PieceType
    score: float


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The content of a ``.model`` file, as far as an encoder must know it."""

    data: bytes
    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    byte_fallback: bool
    space_as_suffix: bool
    """Pieces end, rather than begin, with the space between words."""
    maps_characters: bool
    """The normaliser rewrites characters (nmt_nfkc and the like)."""
    dummy_prefix: bool
    removes_extra_spaces: bool
    escapes_spaces: bool

    @property
    def sha256(self) -> str:
        """Digest of the file, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def losses(self) -> list[str]:
        """Why some text would not come back from encoding and decoding as it was; empty for a lossless model."""
        faults = {
            f"algorithm {self.algorithm.name.lower()}": self.algorithm not in (Algorithm.BPE, Algorithm.UNIGRAM),
            "byte_fallback off": not self.byte_fallback,
            "a normalisation rule other than identity": self.maps_characters,
            "remove_extra_whitespaces on": self.removes_extra_spaces,
            "add_dummy_prefix on": self.dummy_prefix,
            "escape_whitespaces off": not self.escapes_spaces,
            "treat_whitespace_as_suffix on": self.space_as_suffix,
            f"no piece {SPACE_SYMBOL} for a space": all(piece.text != SPACE_SYMBOL for piece in self.pieces),
        }
        return [fault for fault, present in faults.items() if present]


_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_TRAINER_ALGORITHM, _TRAINER_THREADS, _TRAINER_SUFFIX, _TRAINER_BYTE_FALLBACK = 3, 16, 24, 35
_NORMALIZER_MAP, _NORMALIZER_PREFIX, _NORMALIZER_EXTRA, _NORMALIZER_ESCAPE = 2, 3, 4, 5


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check a ``.model`` file, local or at a URL.

    Raises:
        RecipeError: no such file, or not a SentencePiece model.
    """
    try:
        data = storage.read_bytes(os.fspath(path))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}; give the path of a SentencePiece .model file") from error
    try:
        return parse_model(data)
    except (ValueError, IndexError) as error:
        raise RecipeError(f"{path}: not a SentencePiece model, or cut off ({error}); train or copy it again") from error


def parse_model(data: bytes) -> ModelFile:
    """A :class:`ModelFile` of the bytes of a ``.model`` file.

    Raises:
        ValueError, IndexError: not a serialized SentencePiece model.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for field, value, _ in _fields(data):
        if field == _PIECES:
            entry = _message(value)
            text = entry.get(_PIECE_TEXT, b"")
            if not isinstance(text, bytes):
                raise ValueError("a piece without text")
            score = entry.get(_PIECE_SCORE, bytes(4))
            if not isinstance(score, bytes) or len(score) != 4:
                raise ValueError("a piece with a score that is no float")
            kind = PieceType(_number(entry, _PIECE_TYPE, PieceType.NORMAL))
            pieces.append(Piece(text.decode(), kind, *struct.unpack("<f", score)))
        elif field == _TRAINER:
            trainer = _message(value)
        elif field == _NORMALIZER:
            normalizer = _message(value)
    if not pieces or not trainer:
        raise ValueError("no pieces or no trainer settings in it")
    return ModelFile(
        data=data,
        pieces=tuple(pieces),
        algorithm=Algorithm(_number(trainer, _TRAINER_ALGORITHM, Algorithm.UNIGRAM)),
        byte_fallback=bool(_number(trainer, _TRAINER_BYTE_FALLBACK, 0)),
        space_as_suffix=bool(_number(trainer, _TRAINER_SUFFIX, 0)),
        maps_characters=bool(normalizer.get(_NORMALIZER_MAP)),
        dummy_prefix=bool(_number(normalizer, _NORMALIZER_PREFIX, 1)),
        removes_extra_spaces=bool(_number(normalizer, _NORMALIZER_EXTRA, 1)),
        escapes_spaces=bool(_number(normalizer, _NORMALIZER_ESCAPE, 1)),
    )


def without_thread_count(data: bytes) -> bytes:
    """The model with ``TrainerSpec.num_threads`` left at its default.

    It is the one thing in a trained model that depends on the number of threads it was trained with.
    """
    model: list[bytes] = []
    for field, value, raw in _fields(data):
        if field == _TRAINER and isinstance(value, bytes):
            body = b"".join(part for inner, _, part in _fields(value) if inner != _TRAINER_THREADS)
            raw = _varint(_TRAINER << 3 | 2) + _varint(len(body)) + body
        model.append(raw)
    return b"".join(model)


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """Last value of each field of an embedded message."""
    if not isinstance(value, bytes):
        raise ValueError("a message was expected where a number stands")
    return {field: inner for field, inner, _ in _fields(value)}


def _number(message: dict[int, int | bytes], field: int, default: int) -> int:
    value = message.get(field, default)
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


def _fields(buffer: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """(field number, value, the bytes that encode both) of each field; fixed-width values come as bytes."""
    at = 0
    while at < len(buffer):
        start = at
        key, at = _read_varint(buffer, at)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, at = _read_varint(buffer, at)
        elif wire in (1, 2, 5):
            if wire == 2:
                length, at = _read_varint(buffer, at)
            else:
                length = 8 if wire == 1 else 4
            if at + length > len(buffer):
                raise ValueError(f"it ends {at + length - len(buffer)} bytes too early")
            value = buffer[at : at + length]
            at += length
        else:
            raise ValueError(f"unknown wire type {wire} at byte {start}")
        yield key >> 3, value, buffer[start:at]


def _read_varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
