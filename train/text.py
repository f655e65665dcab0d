"""Between text and token ids, by the SentencePiece model a run was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


_SPACE_SYMBOL = "\u2581"


def load_tokenizer(path: Path) -> Any:
    """The ``SentencePieceProcessor`` of a model file.

    Raises:
        TrainingError: the file or the package sentencepiece is missing, or the file is no model.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise TrainingError("text needs the package sentencepiece: pip install sentencepiece") from error
    if not path.is_file():
        raise TrainingError(f"{path}: no such tokenizer model; name one with --tokenizer")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise TrainingError(f"{path}: not a SentencePiece model ({error})") from error


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text``, as they stand in token shards (:class:`tokenizer.encode.Encoder`).

    SentencePiece writes U+2581 for a space; a U+2581 of the text is therefore spelled with its byte pieces, if the
    model has any.

    Raises:
        TrainingError: a text with surrogates, which no UTF-8 stands for.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TrainingError(f"the text is not valid UTF-8 (at character {error.start}); write it in UTF-8") from error
    mark = [tokenizer.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_SYMBOL.encode("utf-8")]
    if not all(map(tokenizer.is_byte, mark)):
        return list(tokenizer.encode(text))
    ids: list[int] = []
    for number, part in enumerate(text.split(_SPACE_SYMBOL)):
        ids += (mark if number else []) + list(tokenizer.encode(part))
    return ids


def token_bytes(tokenizer: Any, vocab_size: int) -> NDArray[np.int64]:
    """UTF-8 bytes each piece stands for, int64[vocab_size]: 1 for a byte piece, 0 for a control piece."""
    sizes = np.zeros(vocab_size, np.int64)
    for piece in range(min(vocab_size, tokenizer.get_piece_size())):
        if tokenizer.is_byte(piece):
            sizes[piece] = 1
        elif not (tokenizer.is_control(piece) or tokenizer.is_unknown(piece)):
            sizes[piece] = len(tokenizer.id_to_piece(piece).replace(_SPACE_SYMBOL, " ").encode("utf-8"))
    return sizes
