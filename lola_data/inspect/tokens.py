"""Tokens of single documents: a token shard and the number of a document in, ids and vocabulary pieces out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.remote_tokens import open_token_shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.tokens import TokenShard


@dataclass(frozen=True)
class TokenisedDocument:
    """A document in a token shard.

    Attributes:
        split: ``train`` or ``valid``; empty in a tree without splits.
        shard: path without ``.bin`` or ``.idx``.
        number: of the document in the shard, from 0.
        documents: that the shard has.
        first: place of its first token among all of the shard, from 0.
        ids: its token ids, the end of document included.
        shard_tokens: tokens of the whole shard.
    """

    split: str
    shard: str
    number: int
    documents: int
    first: int
    ids: tuple[int, ...]
    shard_tokens: int


def tokenised(prefix: str, split: str, number: int) -> TokenisedDocument:
    """Document ``number`` of a token shard, local or at a URL.

    Raises:
        ShardError: the shard cannot be read, or has no such document.
    """
    shard = _open(prefix)
    if number >= shard.num_documents:
        raise ShardError(f"{prefix}: has {shard.num_documents:,} documents, none with the number {number:,}")
    first = int(shard.pointers[number]) // shard.dtype.itemsize
    ids = tuple(int(token) for token in shard.document(number))
    return TokenisedDocument(split, prefix, number, shard.num_documents, first, ids, shard.num_tokens)


def documents_of(prefix: str) -> int:
    """Documents of a token shard."""
    return _open(prefix).num_documents


@lru_cache(maxsize=8)
def _open(prefix: str) -> TokenShard:
    return open_token_shard(prefix)


class Vocabulary:
    """The pieces of a SentencePiece model.

    Raises:
        ShardError: the file is missing or not a model.
    """

    def __init__(self, path: str) -> None:
        import sentencepiece

        data = storage.read_bytes(path)
        try:
            self._model: Any = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise ShardError(f"{path}: not a SentencePiece model; run the stage `tokenizer` again") from error

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id, with a space for U+2581; ids beyond the vocabulary as ``<id ...>``."""
        size = self._model.get_piece_size()
        return [
            str(self._model.id_to_piece(one)).replace("\u2581", " ") if 0 <= one < size else f"<id {one}>"
            for one in ids
        ]

    def text(self, ids: Sequence[int]) -> str:
        """The text that the ids spell; ids beyond the vocabulary are left out."""
        size = self._model.get_piece_size()
        return str(self._model.decode([one for one in ids if 0 <= one < size]))


def vocabulary(path: str) -> Vocabulary | None:
    """The vocabulary of a tokenizer model, or None where there is no such file."""
    return Vocabulary(path) if storage.exists(path) else None
