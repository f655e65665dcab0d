"""Model files read back against sentencepiece itself, and refused when they are none or lose text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece

from lola_data.errors import RecipeError
from tokenizer.encode import Encoder
from tokenizer.formats import Algorithm, PieceType, parse_model, read_model, without_thread_count

if TYPE_CHECKING:
    from pathlib import Path

SENTENCES = [f"the quick brown fox number {i} jumps over the lazy dog" for i in range(300)]
LOSSLESS: dict[str, Any] = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
}


def train(**settings: Any) -> bytes:
    writer = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    options = {"model_type": "bpe", "vocab_size": 400, "hard_vocab_limit": False, "minloglevel": 2, **settings}
    trainer.train(sentence_iterator=iter(SENTENCES), model_writer=writer, **options)
    return writer.getvalue()


def test_pieces_are_those_sentencepiece_sees() -> None:
    data = train(**LOSSLESS, user_defined_symbols=["<tool>"], control_symbols=["<turn>"])
    model = parse_model(data)
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [piece.text for piece in model.pieces] == [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    for token, piece in enumerate(model.pieces):
        assert (piece.type == PieceType.BYTE) == processor.is_byte(token)
        assert (piece.type == PieceType.CONTROL) == processor.is_control(token)
        assert (piece.type == PieceType.UNKNOWN) == processor.is_unknown(token)
    assert [piece.text for piece in model.pieces if piece.type == PieceType.USER_DEFINED] == ["<tool>"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"byte_fallback": False}, "byte_fallback off"),
        ({"normalization_rule_name": "nmt_nfkc"}, "a normalisation rule other than identity"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces on"),
        ({"add_dummy_prefix": True}, "add_dummy_prefix on"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix on"),
        ({"model_type": "char"}, "algorithm char"),
    ],
)
def test_every_lossy_setting_is_named_and_refused(tmp_path: Path, settings: dict[str, Any], fault: str) -> None:
    path = tmp_path / "lossy.model"
    path.write_bytes(train(**{**LOSSLESS, **settings}))
    assert fault in read_model(path).losses()
    with pytest.raises(RecipeError, match=fault):
        Encoder(path)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_lossless_model_of_either_algorithm_is_taken(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "fine.model"
    path.write_bytes(train(**LOSSLESS, model_type=algorithm))
    model = read_model(path)
    assert model.losses() == []
    assert model.algorithm == Algorithm[algorithm.upper()]


def test_the_thread_count_goes_and_nothing_else() -> None:
    one, three = train(**LOSSLESS, num_threads=1), train(**LOSSLESS, num_threads=3)
    assert one != three
    assert without_thread_count(one) == without_thread_count(three)
    assert parse_model(without_thread_count(one)).pieces == parse_model(one).pieces
    first: Any = sentencepiece.SentencePieceProcessor(model_proto=one)
    second: Any = sentencepiece.SentencePieceProcessor(model_proto=without_thread_count(one))
    assert first.encode("the lazy fox 12") == second.encode("the lazy fox 12")


@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1 not a model", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"x\.model: not a SentencePiece model"):
        read_model(path)


def test_a_truncated_model(tmp_path: Path) -> None:
    data = train(**LOSSLESS)
    path = tmp_path / "x.model"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecipeError, match="not a SentencePiece model, or cut off"):
        read_model(path)


def test_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.model: No such file"):
        read_model(tmp_path / "absent.model")


def test_a_model_without_an_end_of_document_token(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(train(**LOSSLESS, eos_id=-1))
    with pytest.raises(RecipeError, match="no end-of-document token"):
        Encoder(path)
