"""Fairness: counts checked by hand, parity by its definition, failures that would be seen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import sentencepiece

from tokenizer.encode import Encoder
from tokenizer.fairness import Fairness, head_of, measure_fairness
from tokenizer.report import plain_table, summary, table_rows
from tokenizer.sample import DOCUMENT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A model that knows a, b and the space, and spells all else in bytes: every count can be made by hand."""
    writer = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(["a b"] * 10),
        model_writer=writer,
        model_type="bpe",
        vocab_size=3 + 256 + 3,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        character_coverage=1.0,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    path: Path = tmp_path_factory.mktemp("letters") / "letters.model"
    path.write_bytes(writer.getvalue())
    return Encoder(path)


def test_counts_by_hand(letters: Encoder) -> None:
    # "a é\n" is a, space, two bytes of é, one byte of the line break; "字b" is three bytes and b.
    row = measure_fairness(letters, {"xx": pa.array(["a é\n", "字b", None])})[0]
    assert (row.documents, row.bytes, row.characters) == (3, 5 + 4, 4 + 2)
    assert row.words == 2 + 2
    assert row.tokens == 5 + 4
    assert row.fallback_tokens == 2 + 3
    assert row.round_trip_failures == 0
    assert row.tokens_per_word == 9 / 4
    assert row.tokens_per_character == 9 / 6
    assert row.bytes_per_token == 1.0
    assert row.fallback_share == 5 / 9
    assert row.parity is None


def test_parity(letters: Encoder) -> None:
    texts = {"en": pa.array(["a b", "b"]), "xx": pa.array(["éé é", "a"])}
    # en: 4 tokens, 3 words. xx: 8 tokens, 3 words.
    fertility = {row.lang: row.parity for row in measure_fairness(letters, texts)}
    assert fertility == {"en": 1.0, "xx": pytest.approx((8 / 3) / (4 / 3))}
    parallel = {row.lang: row.parity for row in measure_fairness(letters, texts, parallel=True)}
    assert parallel == {"en": 1.0, "xx": 2.0}
    other = {row.lang: row.parity for row in measure_fairness(letters, texts, reference="xx", parallel=True)}
    assert other == {"en": 0.5, "xx": 1.0}
    with pytest.raises(ValueError, match="same number of documents"):
        measure_fairness(letters, {"en": pa.array(["a"]), "xx": pa.array(["a", "b"])}, parallel=True)


def test_a_failed_round_trip_is_counted(letters: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = letters.decode
    monkeypatch.setattr(letters, "decode", lambda ids: whole(ids).replace("a", "b"))
    rows = measure_fairness(letters, {"xx": pa.array(["a", "b", "ab"])})
    assert rows[0].round_trip_failures == 2
    assert "1 of 3 documents in 1 languages came back" in summary(rows, reference="en")[0]


def test_nothing_to_measure(letters: Encoder) -> None:
    row = measure_fairness(letters, {"xx": pa.array([], pa.string())})[0]
    assert (row.tokens_per_word, row.tokens_per_character, row.bytes_per_token, row.fallback_share) == (0, 0, 0, 0)
    assert measure_fairness(letters, {}) == []
    assert summary([], reference="en") == ["round trip: 0 of 0 documents in 0 languages came back as they were"]


def test_text_to_measure_is_bounded() -> None:
    rows = [{"id": str(i), "text": "x" * 10} for i in range(100)]
    batches = pa.Table.from_pylist(rows, schema=DOCUMENT).to_batches(max_chunksize=7)
    assert len(head_of({"xx": lambda: batches}, 95)["xx"]) == 10
    assert len(head_of({"xx": lambda: batches}, 1)["xx"]) == 1
    assert len(head_of({"xx": lambda: batches}, 10**6)["xx"]) == 100


def test_the_costliest_language_is_first() -> None:
    rows = [
        Fairness("en", 1, 10, 10, 2, 4, 0, 0, 1.0),
        Fairness("my", 1, 30, 10, 2, 9, 3, 0, 2.25),
    ]
    assert [cells[0] for cells in table_rows(rows)] == ["my", "en"]
    assert "parity against en: at most 2.25 (my)" in summary(rows, reference="en")
    lines = plain_table(table_rows(rows)).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert rows[1].to_json() == {
        "lang": "my",
        "documents": 1,
        "bytes": 30,
        "characters": 10,
        "words": 2,
        "tokens": 9,
        "fallback_tokens": 3,
        "round_trip_failures": 0,
        "parity": 2.25,
        "tokens_per_word": 4.5,
        "tokens_per_character": 0.9,
        "bytes_per_token": 3.333333,
        "fallback_share": 0.333333,
    }
