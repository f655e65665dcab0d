"""Tokens of a SentencePiece model, against SentencePiece itself and against token shards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece

from lola_data.balance import tokens as balance_tokens
from lola_data.balance.measure import measure
from lola_data.balance.tokens import Moments, TokenCounter, chance
from lola_data.errors import RecipeError
from lola_data.schemas import RAW
from tests.lola_data.balance.trees import write_pages, write_rows, write_run, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["Guten Tag", "", "Straße\n\nọjọ́ 漢字", "the quick brown fox " * 300, "</s>"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "a.model")


@pytest.mark.parametrize("batch", [1, 7, 1 << 20])
def test_counts_are_sentencepieces(model: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(balance_tokens, "_BATCH_BYTES", batch)
    processor = sentencepiece.SentencePieceProcessor(str(model))
    tokens, sizes = TokenCounter(model).count(pa.array([*TEXTS, None]))
    assert tokens.tolist() == [*(len(processor.encode(text)) for text in TEXTS), 0]
    assert sizes.tolist() == [*(len(text.encode()) for text in TEXTS), 0]
    nothing, _ = TokenCounter(model).count(pa.array([], pa.string()))
    assert nothing.size == 0


@pytest.mark.parametrize("ends", [True, False])
def test_a_small_language_is_encoded_whole(tmp_path: Path, ends: bool) -> None:
    model = write_tokenizer(tmp_path / "a.model", ends=ends)
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": text} for text in TEXTS])
    processor = sentencepiece.SentencePieceProcessor(str(model))
    wanted = sum(len(processor.encode(text)) + ends for text in TEXTS)
    found = measure(tmp_path / "raw", tokens=model)
    row = found.table().row(0, named=True)
    assert row["tokens"] == found.totals()["tokens"] == wanted
    assert row["bytes_per_token"] == pytest.approx(sum(len(text.encode()) for text in TEXTS) / wanted)
    assert found.exact
    assert "tokens_low" not in row
    assert found.table("source")["tokens"].to_list() == [None]


def test_an_estimate_of_documents_drawn_one_by_one(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance_tokens, "SAMPLE_BYTES", 5_000)
    monkeypatch.setattr(balance_tokens, "SAMPLE_DOCUMENTS", 100)
    rng = random.Random(1)
    words = ["Guten", "Tag", "quick", "漢字", "zzz"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(1, 60))) for _ in range(2000)]
    write_pages(tmp_path / "raw", "de", texts)
    truth = measure(tmp_path / "raw", tokens=model, exact=True).totals()["tokens"]
    processor = sentencepiece.SentencePieceProcessor(str(model))
    assert truth == sum(len(processor.encode(text)) + 1 for text in texts)
    held = 0
    for seed in range(20):
        found = measure(tmp_path / "raw", tokens=model, seed=seed)
        total = found.totals()
        held += total["tokens_low"] <= truth <= total["tokens_high"]
        assert 50 < found.encoded["documents"].item() < 160
        assert found.estimated_columns() == {"tokens", "bytes_per_token"}
    assert held >= 16


def test_the_tokenizer_that_is_given_goes_before_the_token_shards(tmp_path: Path, model: Path) -> None:
    write_run(tmp_path / "work")
    found = measure(tmp_path / "work", tokens=model)
    processor = sentencepiece.SentencePieceProcessor(str(model))
    rows = {row["lang"]: row for row in found.table().iter_rows(named=True)}
    assert rows["de"]["tokens"] == sum(len(processor.encode(text)) + 1 for text in ("Guten Tag", "Straße"))
    assert rows["de"]["tokens_tokens"] == 7


def test_moments_are_the_ratio_of_their_units() -> None:
    tokens, sizes = np.array([3, 2, 7]), np.array([1, 2, 3])
    moments = Moments()
    moments.add(tokens[:1], sizes[:1])
    other = Moments()
    other.add(tokens[1:], sizes[1:])
    moments.absorb(other)
    found = moments.total(100, 600.0, fraction=0.25, ends=False)
    assert (found.tokens, found.documents, found.bytes) == (1200.0, 3, 6)
    # As by hand in test_balance_estimate, 600 times; t with 2 degrees of freedom is 4.30.
    assert found.half_width == pytest.approx(600 * 4.30 * (0.75 * 3 * 3 / 36) ** 0.5, rel=0.03)
    assert moments.total(100, 600.0, fraction=0.25, ends=True).tokens == 1300.0
    whole = moments.as_unit().total(100, 600.0, fraction=1.0, ends=False)
    assert (whole.tokens, whole.half_width) == (12.0, 0.0)


def test_chances() -> None:
    assert chance(10, balance_tokens.SAMPLE_BYTES) == 1.0
    assert chance(10**6, 10 * balance_tokens.SAMPLE_BYTES) == pytest.approx(0.1)
    assert chance(1000, 1000 * balance_tokens.SAMPLE_BYTES) == pytest.approx(0.3)  # few long documents
    assert chance(0, 0) == 1.0


def test_what_is_no_model_is_refused(tmp_path: Path, model: Path) -> None:
    write_run(tmp_path / "work")
    (tmp_path / "notes.model").write_text("not a model")
    with pytest.raises(RecipeError, match=r"notes\.model: not a SentencePiece model"):
        measure(tmp_path / "work", tokens=tmp_path / "notes.model")
    with pytest.raises(RecipeError, match=r"absent\.model: No such file"):
        measure(tmp_path / "work", tokens=tmp_path / "absent.model")
    with pytest.raises(RecipeError, match="no text to encode"):
        measure(tmp_path / "work" / "tokens", tokens=model)
