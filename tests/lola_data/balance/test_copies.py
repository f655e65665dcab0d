"""What looks copied: planted copies are seen, texts of their own are not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from lola_data.balance import copies as balance_copies
from lola_data.balance.copies import repeated, sketches
from lola_data.balance.measure import measure
from lola_data.balance.warnings import warnings_of
from lola_data.minhash import candidate_probability
from lola_data.schemas import DEDUPED, RAW, REMOVED
from tests.lola_data.balance.trees import write_rows

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [f"word{number}" for number in range(5000)]


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=120)) for _ in range(count)]


def edited(text: str, changes: int) -> str:
    words = text.split()
    for number in range(changes):
        words[7 + 11 * number] = f"new{number}"
    return " ".join(words)


def test_copies_count_on_both_sides_and_strangers_do_not() -> None:
    own = texts(200)
    assert repeated([sketches(pa.array(own))]) == (200, 0)
    copied = [*own, *own[:30]]
    assert repeated([sketches(pa.array(copied[:100])), sketches(pa.array(copied[100:]))]) == (230, 60)


def test_documents_of_fewer_than_five_words_say_nothing() -> None:
    assert repeated([sketches(pa.array(["a b c d", "a b c d", "", None, "漢字"]))]) == (0, 0)
    assert repeated([]) == (0, 0)


@pytest.mark.parametrize(("changes", "seen"), [(1, 0.9), (9, 0.1)])
def test_near_copies_are_seen_as_often_as_the_s_curve_says(changes: int, seen: float) -> None:
    """120 words have 116 runs of five; a changed word changes five of them."""
    own = texts(400, 5)
    similarity = (116 - 5 * changes) / (116 + 5 * changes)
    curve = float(candidate_probability(similarity, bands=balance_copies.BANDS, rows=balance_copies.ROWS))
    assert (curve > 0.5) == (seen > 0.5)
    _, found = repeated([sketches(pa.array([*own, *(edited(text, changes) for text in own)]))])
    # 400 pairs; three standard deviations, and lanes that agree a little less by chance than the curve says.
    assert found / 800 == pytest.approx(curve, abs=3 * np.sqrt(curve * (1 - curve) / 400) + 0.02)


def test_a_raw_tree_of_copies_is_warned_of(tmp_path: Path) -> None:
    own = texts(90)
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": text} for text in own])
    write_rows(tmp_path / "raw/nl/a.parquet", RAW, [{"text": text} for text in [*own[:70], *own[:10], *own[:10]]])
    balance = measure(tmp_path / "raw")
    assert balance.repeated.rows() == [("de", 90, 0), ("nl", 90, 30)]
    found = [warning for warning in warnings_of(balance) if warning.kind == "near_duplicate"]
    assert [(warning.lang, warning.detail) for warning in found] == [
        ("nl", "33% or more: of 90 documents looked at, 30 are nearly the same as another of them")
    ]


def test_only_some_documents_of_a_large_language_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_copies, "DOCUMENTS", 100)
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": text} for text in texts(1000)], group=100)
    looked = measure(tmp_path / "raw").repeated["looked"].item()
    assert 60 < looked < 140
    assert measure(tmp_path / "raw", exact=False).repeated["looked"].item() == looked
    assert measure(tmp_path / "raw", exact=False, seed=1).repeated["looked"].item() != looked


def test_after_dedup_what_it_removed_is_told_instead(tmp_path: Path) -> None:
    kept = [{"text": text, "claimed_lang": "de", "lang": "de"} for text in texts(20)]
    write_rows(tmp_path / "deduped/de/a.parquet", DEDUPED, kept)
    gone = [{"claimed_lang": "de", "lang": "de", "bytes": 9, "reason": reason} for reason in ["near"] * 10 + ["url"]]
    write_rows(tmp_path / "removed/dedup/de/a.parquet", REMOVED, gone)
    balance = measure(tmp_path)
    assert not balance.repeated.height
    found = {warning.kind: warning.detail for warning in warnings_of(balance, min_documents=0)}
    assert found["near_duplicate"] == "32%, 10 of 31 documents, removed by dedup"
    write_rows(tmp_path / "removed/dedup/de/a.parquet", REMOVED, gone[:4])
    assert "near_duplicate" not in {warning.kind for warning in warnings_of(measure(tmp_path))}
