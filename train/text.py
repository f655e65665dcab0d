"""Between text and token ids, by the SentencePiece model a run was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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


def token_bytes(tokenizer: Any, vocab_size: int) -> NDArray[np.int64]:
    """UTF-8 bytes each piece stands for, int64[vocab_size]: 1 for a byte piece, 0 for a control piece."""
    sizes = np.zeros(vocab_size, np.int64)
    for piece in range(min(vocab_size, tokenizer.get_piece_size())):
        if tokenizer.is_byte(piece):
            sizes[piece] = 1
        elif not (tokenizer.is_control(piece) or tokenizer.is_unknown(piece)):
            sizes[piece] = len(tokenizer.id_to_piece(piece).replace("\u2581", " ").encode("utf-8"))
    return sizes
