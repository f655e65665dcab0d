"""Pieces lie in their documents and miss no word; shares follow the formula; lines are what fastText reads."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.lid.pieces import Pieces, budgets, cut, piece_texts, training_text
from lola_data.unit_hash import unit_hash

SENTENCE = "Kila mtu huzaliwa akiwa huru na sawa kwa heshima na haki.\n"
NOISE = [
    "Ohne Leerzeichen:" + "x" * 2000,
    "人人生而自由，在尊严和权利上一律平等。" * 40,
    " \t führende und schließende Leerzeichen \n\n",
    "kurz",
    "a " * 700,
    "\U0001f600" * 90,
]


def pieces_of(texts: list[str], shortest: int = 20, longest: int = 100, turn: int = 0) -> tuple[pa.Array, Pieces]:
    chunk = pa.array(texts, pa.large_string())
    keys = unit_hash(7, chunk, "test")
    return chunk, cut(chunk, np.arange(len(texts)), keys, shortest=shortest, longest=longest, turn=turn)


@given(st.lists(st.text(st.sampled_from("ab \nté字😀"), max_size=300), min_size=1, max_size=6), st.integers(1, 30))
def test_pieces_of_a_document_are_the_document(texts: list[str], shortest: int) -> None:
    chunk, pieces = pieces_of(texts, shortest, 3 * shortest)
    shown = piece_texts(chunk, pieces).to_pylist()
    for row, text in enumerate(texts):
        mine = [piece for piece, owner in zip(shown, pieces.document.tolist(), strict=True) if owner == row]
        # Whole characters, in order; between them nothing but white space is missing.
        assert "".join("".join(mine).split()) == "".join(text.split())
        assert all(piece.strip() for piece in mine)
    assert pieces.characters.tolist() == [len(piece) for piece in shown]


@pytest.mark.parametrize("text", [SENTENCE * 60, *NOISE])
def test_pieces_are_as_long_as_asked_and_end_at_words(text: str) -> None:
    chunk, pieces = pieces_of([text])
    shown = piece_texts(chunk, pieces).to_pylist()
    assert shown
    for piece in shown[:-1]:
        # Up to half as long again and 16 characters, to come to the end of a word.
        assert 10 <= len(piece) <= 100 * 1.5 + 16
    # The rest of a document stays with its last piece.
    assert len(shown[-1]) <= 100 * 1.5 + 16 + 20
    if " " in text and len(text) > 100 and "x" * 100 not in text:
        words = set(text.split())
        assert all(set(piece.split()) <= words for piece in shown)


def test_lengths_are_spread_evenly_over_doublings() -> None:
    _, pieces = pieces_of(["a " * 500_000], 16, 256)
    lengths = pieces.characters[:-1]
    shares = [np.mean((lengths >= low) & (lengths < 2 * low)) for low in (16, 32, 64, 128)]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)


def test_each_turn_cuts_anew_and_order_is_even() -> None:
    first, second = pieces_of([SENTENCE * 500])[1], pieces_of([SENTENCE * 500], turn=1)[1]
    assert len(set(first.end.tolist()) & set(second.end.tolist())) < len(first.end) / 2
    assert np.mean(first.order / 2.0**64) == pytest.approx(0.5, abs=0.05)
    assert len(set(first.order.tolist())) == len(first.order)


def test_budgets_follow_the_formula() -> None:
    sizes = np.array([1_000_000, 10_000, 100])
    given_ = budgets(sizes, alpha=0.5, total=100_000, repeats=100)
    # 1000 : 100 : 10 of 1110.
    assert given_.tolist() == [round(100_000 * part / 1110) for part in (1000, 100, 10)]
    assert budgets(sizes, alpha=1.0, total=1_010_100, repeats=1).tolist() == sizes.tolist()
    assert budgets(sizes, alpha=0.0, total=300, repeats=1).tolist() == [100, 100, 100]


def test_what_a_small_language_cannot_give_goes_to_the_others() -> None:
    sizes = np.array([1_000_000, 10_000, 100])
    given_ = budgets(sizes, alpha=0.0, total=90_000, repeats=2)
    assert given_[2] == 200
    assert given_[1] == 20_000
    assert given_[0] == 69_800
    assert budgets(sizes, alpha=0.5, total=10**12, repeats=3).tolist() == (3 * sizes).tolist()


def documents(count: int) -> tuple[list[str], list[str]]:
    draw = random.Random(0)
    vocabulary = {
        "de": ["der", "die", "und", "nicht", "Haus", "wird"],
        "sw": ["mtu", "kila", "huru", "haki", "sawa"],
        "zh": ["人人生", "而自由"],
    }
    texts, codes = [], []
    for code, words in vocabulary.items():
        for _ in range(count if code != "zh" else max(1, count // 10)):
            codes.append(code)
            texts.append(" ".join(draw.choices(words, k=60)))
    return texts, codes


def lines_of(texts: list[str], codes: list[str], **options: object) -> tuple[list[str], dict[str, tuple[int, int]]]:
    given_ = {"shortest": 20, "longest": 100, "alpha": 0.5, "total": 10**9, "repeats": 5, "seed": 0} | options
    content, counts = training_text(pa.array(texts, pa.large_string()), pa.array(codes), **given_)  # type: ignore[arg-type]
    text = content.to_pybytes().decode()
    assert text.endswith("\n")
    return text[:-1].split("\n"), counts


def test_training_lines_have_the_asked_balance() -> None:
    texts, codes = documents(100)
    lines, counts = lines_of(texts, codes, alpha=0.0, total=30_000)
    assert {line.split(" ")[0] for line in lines} == {"__label__de", "__label__sw", "__label__zh"}
    for code, (count, characters) in counts.items():
        mine = [line for line in lines if line.startswith(f"__label__{code} ")]
        assert count == len(mine)
        assert characters == sum(len(line) for line in mine) - len(mine) * len(f"__label__{code} ")
        # To within a piece.
        assert characters == pytest.approx(10_000, abs=170)
    assert lines != sorted(lines)


def test_lines_do_not_depend_on_the_order_of_documents() -> None:
    texts, codes = documents(30)
    order = random.Random(1).sample(range(len(texts)), len(texts))
    again = lines_of([texts[at] for at in order], [codes[at] for at in order])
    assert lines_of(texts, codes) == again
    assert lines_of(texts, codes, seed=1) != again


def test_languages_are_mixed_evenly_from_the_first_line_to_the_last() -> None:
    """Of a large language only some pieces are taken, of a small one all: neither may crowd one end of the file."""
    texts, codes = documents(400)
    lines, counts = lines_of(texts, codes, alpha=0.2, total=60_000, repeats=8)
    for code, (count, _) in counts.items():
        places = np.array([at for at, line in enumerate(lines) if line.startswith(f"__label__{code} ")]) / len(lines)
        for quarter in range(4):
            inside = np.count_nonzero((places >= quarter / 4) & (places < (quarter + 1) / 4))
            # Four standard deviations of a fair draw.
            assert inside == pytest.approx(count / 4, abs=4 * (count * 3 / 16) ** 0.5), code


def test_a_language_shown_several_times_is_cut_otherwise_each_time() -> None:
    texts, codes = documents(20)
    lines, counts = lines_of(texts, codes, alpha=0.0, total=20_000, repeats=8)
    mine = [line for line in lines if line.startswith("__label__zh")]
    once = sum(len(text) for text, code in zip(texts, codes, strict=True) if code == "zh")
    assert counts["zh"][1] > 5 * once
    assert len(set(mine)) > 0.5 * len(mine)


def test_no_word_of_a_text_is_taken_for_a_label_or_for_the_end_of_a_line() -> None:
    texts = ["uno\u2028dos\x85tres\0cuatro </s> cinco\r\nseis __label__fr siete " * 3, "eins zwei drei vier fünf sechs"]
    lines, _ = lines_of(texts, ["es", "de"], alpha=1.0)
    for line in lines:
        assert line.split()[0] in ("__label__es", "__label__de")
        assert line.count("__label__") == 1
        assert not set(line) & set("\u2028\x85\0\r")
        assert "</s>" not in line
