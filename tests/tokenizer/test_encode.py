"""Encoding: decode(encode(x)) == x for every text, ids those of sentencepiece, by both engines, through every cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer.encode as encode_module
from lola_data.errors import RecipeError, ShardError
from lola_data.sample_corpus import sample_root
from tokenizer.encode import Encoder, _pairs

if TYPE_CHECKING:
    from pathlib import Path

HARD = {
    "persian, ZWNJ": "می‌خواهم",
    "telugu, ZWNJ": "క్‌ష తెలుగు‌లో",
    "sinhala, ZWJ": "ශ්‍රී ලංකා",
    "double space": "a  b",
    "leading space": " lead",
    "trailing spaces": "trail   ",
    "line break": "a\nb",
    "line breaks": "\n\n\r\n\r",
    "tab": "a\tb",
    "byte order mark": "\ufeffab",
    "NUL": "x\0y",
    "circled digit": "①",
    "ligature": "ﬁ",
    "no-break space": "a\u00a0b\u202fc\u3000d",
    "emoji with ZWJ": "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇹🇿",
    "lone combining marks": "\u0301\u0301 e\u0301\u0323 \u093f",
    "not normalised": "e\u0301 \u00e9 \u212b \u2126 \uac00 \u1100\u1161",
    "blank only": "   ",
    "empty": "",
    "U+2581": "▁",
    "U+2581 everywhere": "▁a ▁ b▁▁c ▁\n▁",
    "U+2585": "a\u2585b",
    "control tokens": "</s> hi <s> <unk> <pad> <0x41> <0xE2><0x96><0x81>",
    "other ends": "<|endoftext|> [SEP] </S>",
    "planes": "𝔘𝔫𝔦 𐍈 𒀀 \U0010fffd \uffff\ufdd0",
    "right to left": "\u202eabc\u202c שלום",
    "long run": "a" * 5_000 + " " * 5_000 + "的" * 5_000,
}


@pytest.fixture(scope="module")
def by_sentencepiece(model_dir: Path) -> Encoder:
    """The same model with sentencepiece's own engine."""
    encoder = Encoder(model_dir / "tokenizer.model", threads=2)
    encoder.engine, encoder._encode = "sentencepiece", encoder._encode_by_sentencepiece
    return encoder


@pytest.fixture(params=["fast", "sentencepiece"])
def either(request: pytest.FixtureRequest, encoder: Encoder, by_sentencepiece: Encoder) -> Encoder:
    return encoder if request.param == "fast" else by_sentencepiece


def split(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if lengths.size else []


def reference(encoder: Encoder, text: str) -> list[int]:
    """Ids by the sentencepiece package alone; U+2581 by its bytes."""
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=encoder.path)
    mark = [processor.piece_to_id(f"<0x{byte}>") for byte in ("E2", "96", "81")]
    ids: list[int] = []
    for number, part in enumerate(text.split("\u2581")):
        ids += (mark if number else []) + processor.encode(part)
    return ids


@pytest.mark.parametrize("name", HARD)
def test_hard_texts_come_back_and_are_encoded_as_sentencepiece_does(either: Encoder, name: str) -> None:
    text = HARD[name]
    ids, lengths = either.encode(pa.array([text]))
    assert ids.dtype == np.int32
    assert lengths.tolist() == [ids.size]
    assert ids.tolist() == reference(either, text)
    assert either.decode(ids) == text


def test_the_fast_engine_is_in_use(encoder: Encoder) -> None:
    assert encoder.engine == "compiled"


def test_user_text_never_makes_a_control_token(either: Encoder) -> None:
    ids, _ = either.encode(pa.array(["</s> hi", "a</s>", "<s></s><unk><pad>"]))
    assert not set(ids.tolist()) & {0, 1, 2, 3}
    assert either.eod_id == 2
    assert either.decode([*ids.tolist(), either.eod_id]) == "</s> hia</s><s></s><unk><pad>"


def test_all_languages_of_the_corpus(encoder: Encoder, by_sentencepiece: Encoder) -> None:
    languages = sorted(path for path in sample_root().iterdir() if path.is_dir() and list(path.glob("*.parquet")))
    assert len(languages) >= 60
    for folder in languages:
        text = pq.read_table(sorted(folder.glob("*.parquet"))[0], columns=["text"])["text"].slice(0, 25)
        fast, slow = encoder.encode(text), by_sentencepiece.encode(text)
        assert np.array_equal(fast[0], slow[0]), folder.name
        assert np.array_equal(fast[1], slow[1]), folder.name
        for ids, value in zip(split(*fast), text.to_pylist(), strict=True):
            assert encoder.decode(ids) == value


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.lists(st.sampled_from([*HARD.values()][:-1])).map("".join),
            st.none(),
        ),
        max_size=6,
    )
)
def test_any_text_comes_back(encoder: Encoder, by_sentencepiece: Encoder, texts: list[str | None]) -> None:
    array = pa.array(texts, pa.string())
    fast, slow = encoder.encode(array), by_sentencepiece.encode(array)
    assert split(*fast) == split(*slow)
    assert [encoder.decode(ids) for ids in split(*fast)] == [text or "" for text in texts]


def test_columns_of_every_make(either: Encoder) -> None:
    texts = ["skipped", "one ▁", None, "", "four\n"]
    expected = [reference(either, text or "") for text in texts[1:]]
    chunked = pa.chunked_array([texts[:2], texts[2:]], pa.string()).slice(1)
    for array in (pa.array(texts).slice(1), pa.array(texts, pa.large_string()).slice(1), chunked):
        assert split(*either.encode(array)) == expected
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        ids, lengths = either.encode(empty)
        assert (ids.size, lengths.size) == (0, 0)


def long_texts() -> dict[str, str]:
    rng = np.random.default_rng(0)
    words = ["the", "of", "and", "mwaka", "habari", "的", "是", "在", "▁", "\n", "می\u200cخواهم", "</s>"]
    mixed = " ".join(words[i] for i in rng.integers(0, len(words), 4_000).tolist())
    han = "".join(chr(0x4E00 + int(i)) for i in rng.integers(0, 3_000, 6_000))
    return {"words": mixed, "han": han, "lines": "a\n" * 9_000}


@pytest.mark.parametrize("name", ["words", "han", "lines"])
def test_cuts_of_long_documents_do_not_change_the_ids(
    either: Encoder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = long_texts()[name]
    expected = reference(either, text)
    for chunk in (7, 100, 4_099):
        monkeypatch.setattr(encode_module, "CHUNK_BYTES", chunk)
        ids, _ = either.encode(pa.array(["before", text, "after"]))
        lead = len(reference(either, "before"))
        assert ids[lead : lead + len(expected)].tolist() == expected, chunk
        assert either.decode(ids) == f"before{text}after"


def test_a_document_without_a_safe_place_is_cut_all_the_same(either: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    engine = either._encode

    def spy(data: Any, offsets: Any) -> Any:
        handed.extend(np.diff(offsets).tolist())
        return engine(data, offsets)

    monkeypatch.setattr(encode_module, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(encode_module, "MAX_CHUNK_BYTES", 5_000)
    monkeypatch.setattr(either, "_encode", spy)
    pair = "aa"
    assert np.isin(_pairs(pair), either._neighbours).all(), "the trained vocabulary has a piece with aa in it"
    text = "a" * 23_000
    ids, _ = either.encode(pa.array([text]))
    assert either.decode(ids) == text
    assert max(handed) <= 5_000 + 3


def test_batches_are_bounded(either: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    engine = either._encode

    def spy(data: Any, offsets: Any) -> Any:
        handed.append(int(offsets[-1] - offsets[0]))
        return engine(data, offsets)

    texts = ["word " * n for n in (1, 50, 3, 400, 2, 2)]
    expected = either.encode(pa.array(texts))
    monkeypatch.setattr(either, "_encode", spy)
    monkeypatch.setattr(encode_module, "BATCH_BYTES", 300)
    given = either.encode(pa.array(texts))
    assert np.array_equal(given[0], expected[0])
    assert np.array_equal(given[1], expected[1])
    assert sum(handed) == sum(map(len, texts))
    assert [size for size in handed if size > 300] == [2_000]


@pytest.mark.slow
def test_a_document_of_100_megabytes(encoder: Encoder) -> None:
    block = "Habari ya dunia, 汉字 and some words.\n"
    repeats = 100 * 2**20 // len(block.encode())
    ids, lengths = encoder.encode(pa.array([block * repeats], pa.large_string()))
    once = reference(encoder, block)
    assert lengths.tolist() == [repeats * len(once)]
    assert np.array_equal(ids.reshape(repeats, len(once)), np.tile(np.array(once, np.int32), (repeats, 1)))


def test_invalid_utf8_names_the_row(either: Encoder) -> None:
    text = pa.array([b"fine", b"bro\xffken"], pa.binary()).view(pa.string())
    with pytest.raises(ShardError, match=r"row 1 .* not valid UTF-8 .* byte 3"):
        either.encode(text)


def test_an_engine_that_disagrees_is_not_used(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(data: Any, offsets: Any) -> Any:
        return np.zeros(offsets.size - 1, np.int32), np.ones(offsets.size - 1, np.int64)

    monkeypatch.setattr(encode_module, "BpeEngine", lambda model: engine)
    assert Encoder(model_dir / "tokenizer.model").engine == "sentencepiece"


@pytest.mark.parametrize(
    ("piece", "other", "words"),
    [
        (b"<0xE2>", b"<0xE1>", "<0xE1> is already defined"),
        (b"<0x41>", b"<0xZZ>", "byte piece <0xZZ> is invalid"),
        (b"<0x41>", b"abcdef", "byte piece abcdef is invalid"),
    ],
)
def test_a_damaged_byte_piece_is_told(model_dir: Path, tmp_path: Path, piece: bytes, other: bytes, words: str) -> None:
    content = (model_dir / "tokenizer.model").read_bytes()
    path = tmp_path / "damaged.model"
    path.write_bytes(content.replace(piece, other, 1))
    with pytest.raises(RecipeError) as caught:
        Encoder(path)
    assert str(caught.value).startswith(f"{path}: SentencePiece cannot load this model (")
    assert words in str(caught.value)


def test_byte_values(encoder: Encoder) -> None:
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=encoder.path)
    for token in (0, 3, 4, 65 + 4, 259, 260, 5_999):
        assert (encoder.byte_values[token] >= 0) == processor.is_byte(token)
    assert encoder.byte_values[processor.piece_to_id("<0x41>")] == 0x41
    assert encoder.piece(processor.piece_to_id("▁a")) == "▁a"
