"""The compiled encoder against the sentencepiece package: any scores, any text, any way through the memo."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.buffers import string_buffer
from lola_data.errors import RecipeError
from lola_data.sample_corpus import sample_root
from tokenizer import bpe_engine
from tokenizer.bpe_engine import BpeEngine
from tokenizer.bpe_tables import NO_PIECE, UnsupportedModel, build_tables
from tokenizer.encode import Encoder
from tokenizer.formats import Algorithm, parse_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Numbers of fields in sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_of(
    pieces: Sequence[tuple[str, float] | tuple[str, float, int]],
    *,
    byte_pieces: int = 256,
    algorithm: Algorithm = Algorithm.BPE,
) -> bytes:
    """A lossless BPE model of ``pieces`` (text, score, kind), with the special and the byte pieces before them."""
    special = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    special += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(byte_pieces)]
    out = b""
    for text, score, *kind in [*special, *pieces]:
        entry = field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, *(kind or [NORMAL]))
        out += field(1, entry)
    out += field(2, field(3, algorithm) + field(35, 1))
    return out + field(3, field(1, b"identity") + field(3, 0) + field(4, 0) + field(5, 1))


def engines(model: bytes) -> tuple[BpeEngine, Callable[[str], list[int]]]:
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
    return BpeEngine(parse_model(model)), processor.encode


def ids_of(engine: BpeEngine, texts: Sequence[str]) -> list[list[int]]:
    ids, counts = engine(*string_buffer(pa.array(texts, pa.string())))
    return [part.tolist() for part in np.split(ids, np.cumsum(counts)[:-1])]


def assert_equal(model: bytes, texts: Sequence[str]) -> None:
    engine, encode = engines(model)
    # Twice: the second time from the memo.
    for _ in range(2):
        for text, ids in zip(texts, ids_of(engine, texts), strict=True):
            assert ids == encode(text), text


LETTERS = "ab▁é的"


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """Any pieces over five characters, with any order among them: also one that no training would give."""
    single = [(letter, -1000.0 - at) for at, letter in enumerate(draw(st.permutations(LETTERS)))]
    long = draw(st.lists(st.text(LETTERS, min_size=2, max_size=6), unique=True, min_size=1, max_size=40))
    return model_of([*((text, -float(rank)) for rank, text in enumerate(long)), *single])


@settings(max_examples=300, deadline=None)
@given(model=models(), texts=st.lists(st.text("ab é的x\n", max_size=200), min_size=1, max_size=5))
def test_any_model_and_any_text(model: bytes, texts: list[str]) -> None:
    assert_equal(model, texts)


@pytest.mark.parametrize("size", [1, 2, 7, 31, 32, 33, 34, 63, 64, 65, 66, 100, 1_000, 20_001])
@pytest.mark.parametrize("text", ["a", "ab", "abb", "é", "的a", "a ", "aab的"])
def test_parts_of_every_length(text: str, size: int) -> None:
    """All pairs occur in pieces, so that the whole text is one part; what is better may come of what is worse."""
    draw = np.random.Generator(np.random.PCG64(3))
    pairs = [one + other for one in LETTERS for other in LETTERS]
    more = ["aaa", "aaaa", "abab", "ababab", "的a的", "bab", "aabb", "ééé", "▁a▁"]
    pieces = [
        (pair, float(score)) for pair, score in zip([*pairs, *more], draw.permutation(100).tolist(), strict=False)
    ]
    repeated = (text * size)[:size]
    mixed = "".join(np.array(list(text + "ab "))[draw.integers(0, len(text) + 3, size)].tolist())
    assert_equal(model_of([*pieces, *((letter, -9.0) for letter in LETTERS)]), [repeated, mixed])


def test_a_piece_of_better_score_may_come_of_worse_ones() -> None:
    """In abc, bc (score -2) merges first; then a + bc gives abc, although ab (-3) would have been the way to it."""
    model = model_of([("abc", -1.0), ("bc", -2.0), ("ab", -3.0), ("abcabc", -4.0), *((one, -9.0) for one in "abc")])
    engine, encode = engines(model)
    numbers = {piece.text: at for at, piece in enumerate(parse_model(model).pieces)}
    assert ids_of(engine, ["abc", "abcab", "abcabc"]) == [
        [numbers["abc"]],
        [numbers["abc"], numbers["ab"]],
        [numbers["abcabc"]],
    ]
    assert [encode(text) for text in ("abc", "abcab", "abcabc")] == ids_of(engine, ["abc", "abcab", "abcabc"])


def test_bytes_stand_for_what_has_no_piece() -> None:
    model = model_of([("ab", -1.0), ("a", -2.0), ("b", -3.0), ("▁", -4.0)])
    engine, encode = engines(model)
    for text in ("é", "aéb", "a b", "\0", "a\0", "a\0\0", "😀ab😀", "éé", "\ue000"):
        assert ids_of(engine, [text]) == [encode(text)]
    # Key and padding are told apart: a NUL at the end makes another part of a word.
    assert ids_of(engine, ["a", "a\0", "a\0\0", "a"]) == [encode(text) for text in ("a", "a\0", "a\0\0", "a")]


@pytest.mark.parametrize("bits", [4, 6])
def test_a_memo_that_is_too_small_changes_nothing(
    model_dir: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    monkeypatch.setattr(bpe_engine, "MEMO_BITS", bits)
    engine = BpeEngine(encoder.model)
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=encoder.path)
    for lang in ("de", "ta", "zh", "ru"):
        texts = pq.read_table(sorted((sample_root() / lang).glob("*.parquet"))[0])["text"].slice(0, 10).to_pylist()
        assert ids_of(engine, texts) == processor.encode(texts)


def test_all_cores_give_the_same_ids(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "one", "two words", "", "drei Wörter hier", "的的的", "x" * 5_000, "", "end", "", ""] * 7
    alone = ids_of(BpeEngine(encoder.model), texts)
    monkeypatch.setattr(bpe_engine, "PARALLEL_BYTES", 1)
    for cores in (2, 3, 16, 200):
        monkeypatch.setattr(bpe_engine, "_cores", lambda cores=cores: cores)
        engine = BpeEngine(encoder.model)
        assert ids_of(engine, texts) == alone
        assert ids_of(engine, ["only one"]) == ids_of(BpeEngine(encoder.model), ["only one"])
        ids, counts = engine(np.zeros(1, np.uint8), np.zeros(4, np.int64))
        assert (ids.size, counts.tolist()) == (0, [0, 0, 0])


def test_offsets_may_begin_anywhere(encoder: Encoder) -> None:
    engine = BpeEngine(encoder.model)
    data = np.frombuffer(b"skipped, taken, left", np.uint8)
    ids, counts = engine(data, np.array([8, 15]))
    assert [ids.tolist()] == ids_of(engine, [" taken,"[:7]])
    assert counts.tolist() == [ids.size]


@pytest.mark.parametrize(
    ("pieces", "byte_pieces", "words"),
    [
        ([("ab", -1.0), ("ba", -1.0), ("a", -2.0), ("b", -3.0)], 256, "one score"),
        ([("ab", float("nan")), ("a", -2.0), ("b", -3.0)], 256, "one score"),
        ([("ab", -1.0), ("a", -2.0)], 256, "no piece of its own"),
        ([("ab", -1.0, USER_DEFINED), ("a", -2.0), ("b", -3.0)], 256, "defined by the user"),
        ([("ab", -1.0, UNUSED), ("a", -2.0), ("b", -3.0)], 256, "not in use"),
        ([("ab", -1.0), ("a", -2.0), ("b", -3.0)], 255, "bytes without a piece"),
    ],
)
def test_models_that_sentencepiece_must_encode_with(
    pieces: list[tuple[str, float]], byte_pieces: int, words: str
) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        build_tables(parse_model(model_of(pieces, byte_pieces=byte_pieces)))


def test_a_model_without_a_piece_for_the_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lossy.model"
    path.write_bytes(model_of([("ab", -1.0), ("a", -2.0), ("b", -3.0)]))
    with pytest.raises(RecipeError, match="no piece ▁ for a space"):
        Encoder(path)


def test_a_unigram_model_is_left_to_sentencepiece() -> None:
    model = model_of([("ab", -1.0), ("a", -2.0), ("b", -3.0)], algorithm=Algorithm.UNIGRAM)
    with pytest.raises(UnsupportedModel, match="not BPE"):
        build_tables(parse_model(model))


def test_pieces_of_one_score_are_encoded_all_the_same(tmp_path: Path) -> None:
    """The leftmost pair merges first then, whichever piece it gives."""
    path = tmp_path / "ties.model"
    path.write_bytes(model_of([("ab", -1.0), ("ba", -1.0), *((one, -9.0) for one in "ab▁")]))
    encoder = Encoder(path)
    assert encoder.engine == "sentencepiece"
    ids, _ = encoder.encode(pa.array(["aba bab"]))
    assert [encoder.piece(int(one)) for one in ids] == ["ab", "a", "▁", "ba", "b"]


def test_pieces_and_scores_are_those_of_sentencepiece(encoder: Encoder) -> None:
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=encoder.path)
    for at, piece in enumerate(encoder.model.pieces):
        assert piece.text == processor.id_to_piece(at)
        assert piece.score == pytest.approx(processor.get_score(at))


def test_a_space_is_the_piece_of_the_space_symbol_and_that_symbol_is_none(encoder: Encoder) -> None:
    tables = build_tables(encoder.model)
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=encoder.path)
    assert tables.ids[tables.characters[0x20]] == processor.piece_to_id("▁")
    assert tables.characters[0x2581] == NO_PIECE
