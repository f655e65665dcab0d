"""The corpus that is measured on: same rows every time, planted pairs as stated, nothing alike but those."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.build import LEVELS, ensure, sentences
from benchmarks.distinct import jaccard, keep_distinct
from benchmarks.edits import edit_words, replaced_words, word_spans
from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.schemas import RAW

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.corpus import Corpus

SPACED = ("de", "en", "es", "fr", "ru")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ensure(tmp_path_factory.mktemp("bench"), megabytes=2, languages=6, data=None)


def texts_of(corpus: Corpus, lang: str) -> dict[tuple[str, int], str]:
    """Texts of a language by shard and row."""
    return {
        (path.name, row): text
        for path in sorted((corpus.raw / lang).glob("*.parquet"))
        for row, text in enumerate(pq.read_table(path)["text"].to_pylist())
    }


def five_grams(text: str) -> set[tuple[str, ...]]:
    """Sets of 5 words, a word being a run of letters, marks and numbers, or one Japanese or Chinese character: some of
    the help texts quote them."""
    spelled = ""
    for character in unicodedata.normalize("NFC", text.casefold()):
        kind = unicodedata.category(character)
        if unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA")) and kind[0] == "L":
            spelled += f" {character} "
        elif kind != "Cf":
            spelled += character if kind[0] in "LMN" else " "
    words = spelled.split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def similarity(one: str, other: str) -> float:
    left, right = five_grams(one), five_grams(other)
    return len(left & right) / len(left | right)


def test_same_text_size_and_seed_give_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    again = ensure(tmp_path / "a", megabytes=2, languages=6, data=None)
    files = sorted(path.relative_to(corpus.root) for path in corpus.root.rglob("*") if path.is_file())
    assert [(again.root / path).read_bytes() for path in files] == [(corpus.root / path).read_bytes() for path in files]


def test_size_languages_and_columns(corpus: Corpus) -> None:
    biggest = sorted(LANGUAGES, key=lambda lang: -LANGUAGES[lang].documents)[:6]
    assert sorted(corpus.facts["languages"]) == sorted(biggest) == sorted(path.name for path in corpus.raw.iterdir())
    size = 0
    for path in corpus.raw.rglob("*.parquet"):
        table = pq.read_table(path)
        assert table.schema.names == RAW.names
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
        size += sum(len(text.encode()) for text in table["text"].to_pylist())
    assert size == corpus.bytes
    assert abs(size - 2e6) < 0.1 * 2e6
    # In proportion to the square root of the documents in CulturaX: English has four times the Russian ones.
    shares = {lang: facts["bytes"] for lang, facts in corpus.facts["languages"].items()}
    wanted = (LANGUAGES["en"].documents / LANGUAGES["ru"].documents) ** 0.5
    assert abs(shares["en"] / shares["ru"] / wanted - 1) < 0.25


def test_all_other_languages_are_there_to_compare_on(corpus: Corpus) -> None:
    others = {path.name for path in corpus.others.iterdir()}
    assert len(others) > 90
    assert not others & {path.name for path in corpus.raw.iterdir()}


def test_planted_pairs_are_as_similar_as_stated(corpus: Corpus) -> None:
    plants = [plant for plant in corpus.planted() if plant.lang in SPACED]
    kinds = Counter(plant.kind for plant in plants)
    assert kinds["exact"] > 3
    assert kinds["near"] > 15
    assert kinds["url"] > 1
    for plant in plants:
        texts = texts_of(corpus, plant.lang)
        copy, original = texts[plant.file, plant.row], texts[plant.of_file, plant.of_row]
        assert (plant.of_file, plant.of_row) < (plant.file, plant.row)
        if plant.kind == "exact":
            assert copy == original
            assert plant.jaccard == 1.0
        else:
            assert plant.jaccard == pytest.approx(similarity(copy, original), abs=1e-6), plant
        if plant.kind == "near":
            assert min(LEVELS) - 0.1 < plant.jaccard < 1.0


def test_urls_are_shared_by_planted_pairs_alone(corpus: Corpus) -> None:
    shared = {
        (plant.lang, frozenset({(plant.file, plant.row), (plant.of_file, plant.of_row)}))
        for plant in corpus.planted()
        if plant.kind == "url"
    }
    seen: dict[str, tuple[str, tuple[str, int]]] = {}
    found = set()
    for path in sorted(corpus.raw.rglob("*.parquet")):
        for row, url in enumerate(pq.read_table(path)["url"].to_pylist()):
            if url is None:
                continue
            place = (path.parent.name, (path.name, row))
            if url in seen:
                found.add((place[0], frozenset({seen[url][1], place[1]})))
            seen[url] = place
    assert found == shared


def test_no_other_pair_is_alike(corpus: Corpus) -> None:
    """All pairs, by sets of words made here."""
    copies = {(plant.lang, plant.file, plant.row) for plant in corpus.planted() if plant.kind != "url"}
    for lang in ("de", "es"):
        grams = [five_grams(text) for place, text in texts_of(corpus, lang).items() if (lang, *place) not in copies]
        assert len(grams) > 30
        worst = max(len(one & other) / max(1, len(one | other)) for one, other in combinations(grams, 2))
        assert worst < 0.5


def test_no_text_there(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="--data"):
        ensure(tmp_path, megabytes=1, languages=3, data=tmp_path)


def test_keep_distinct_is_the_greedy_rule() -> None:
    draws = np.random.default_rng(7)
    texts = [" ".join(draws.choice(["a", "b"], size=9)) for _ in range(60)]
    kept: list[int] = []
    for number, text in enumerate(texts):
        if all(similarity(text, texts[other]) < 0.3 for other in kept):
            kept.append(number)
    assert np.flatnonzero(keep_distinct(texts, limit=0.3)).tolist() == kept
    assert 5 < len(kept) < 60


def test_keep_distinct_leaves_out_texts_without_a_five_gram() -> None:
    assert keep_distinct(["one two three four", "a b c d e"], limit=0.5).tolist() == [False, True]
    assert keep_distinct([], limit=0.5).tolist() == []


def test_jaccard_of_counted_sets() -> None:
    # Six words make two sets of five; one more word adds a third, one other first word takes the first.
    pairs = [("a b c d e f", "a b c d e f g"), ("a b c d e f", "x b c d e f"), ("a", "b")]
    assert jaccard(pairs) == [2 / 3, 1 / 3, 1.0]


@pytest.mark.parametrize("aim", [0.3, 0.5, 0.8, 0.95])
def test_edits_come_near_the_similarity_aimed_at(aim: float) -> None:
    words = [f"word{number}x" for number in range(600)]
    text = " ".join(words)
    edited = edit_words(text, aim, ["other", "another"], np.random.default_rng(0))
    # One word more or less replaced moves it by 0.017 at most.
    assert similarity(text, edited) == pytest.approx(aim, abs=0.03)
    assert sum(one != two for one, two in zip(words, edited.split(), strict=True)) == replaced_words(600, aim, 5)


def test_words_of_scripts_with_and_without_spaces() -> None:
    text = "Ein Satz, -- 漢字と กั."
    assert [text[start:end] for start, end in word_spans(text)] == ["Ein", "Satz,", "漢", "字", "と", "กั"]


def test_sentences_are_the_line_and_not_too_long() -> None:
    line = "One. Two? " + "long " * 200 + "end. これは。あれは。"
    pieces = sentences(line)
    assert "".join(pieces) == line
    assert pieces[:2] == ["One. ", "Two? "]
    assert pieces[-2:] == ["これは。", "あれは。"]
    assert max(map(len, pieces)) <= 300
