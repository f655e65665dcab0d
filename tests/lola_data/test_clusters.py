"""The survivor rule: cases of known outcome, and a plain all-pairs computation of the same rule on random corpora."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.clusters import REASONS, Decisions, deduplicate, jaccard_at_least, priority_order
from lola_data.components import first_equal
from lola_data.hashes import hash128
from lola_data.minhash import MinHash
from lola_data.shingles import shingle_hashes
from lola_data.words import normalised_hash128

if TYPE_CHECKING:
    from lola_data.clusters import Survivor
    from lola_data.components import Indices, Keys

SEES_EVERYTHING = MinHash(bands=256, rows=1)
"""Proposes a pair of Jaccard 0.1 or more but for one time in 10^11."""


@dataclass
class Corpus:
    """Texts with what :func:`deduplicate` asks for, and a count of the sets it fetched."""

    texts: list[str]
    urls: list[str | None] | None = None
    scores: list[float] | None = None
    minhash: MinHash = SEES_EVERYTHING
    ngram: int = 5
    largest_fetch: int = 0

    def __post_init__(self) -> None:
        self.text = pa.array(self.texts, type=pa.string())
        self.values, self.offsets = shingle_hashes(self.text, self.ngram)
        self.keys, self.shingled = self.minhash.band_keys(self.values, self.offsets)
        urls = pa.array(self.urls or [None] * len(self.texts), type=pa.string())
        self.url_hashes = hash128(urls)
        self.has_url = urls.is_valid().to_numpy(zero_copy_only=False)

    def set_of(self, document: int) -> Keys:
        return self.values[self.offsets[document] : self.offsets[document + 1]]

    def fetch(self, documents: Indices) -> tuple[Keys, Indices]:
        assert (np.diff(documents) > 0).all()
        sets = [self.set_of(document) for document in documents]
        offsets = np.concatenate([[0], np.cumsum([one.size for one in sets])]).astype(np.int64)
        self.largest_fetch = max(self.largest_fetch, int(offsets[-1]) * 8)
        return np.concatenate(sets), offsets

    def order(self, survivor: Survivor = "first") -> Indices:
        sizes = np.array([len(text.encode()) for text in self.texts], dtype=np.int64)
        scores = np.array(self.scores or [0.0] * len(self.texts))
        return priority_order(survivor, sizes=sizes, scores=scores)

    def decide(self, threshold: float = 0.8, *, survivor: Survivor = "first", memory_bytes: int = 1 << 30) -> Decisions:
        return deduplicate(
            order=self.order(survivor),
            shingles=np.diff(self.offsets),
            digests=normalised_hash128(self.text),
            urls=self.url_hashes,
            has_url=self.has_url,
            band_keys=lambda band: self.keys[:, band],
            bands=self.minhash.bands,
            fetch=self.fetch,
            threshold=threshold,
            memory_bytes=memory_bytes,
        )


def numbered(prefix: str, first: int, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(first, first + count))


def outcomes(decisions: Decisions) -> list[tuple[str | None, int, float | None, int]]:
    return [
        (REASONS[reason], int(keeper), None if math.isnan(similarity) else float(similarity), int(size))
        for reason, keeper, similarity, size in zip(
            decisions.reason, decisions.keeper, decisions.similarity, decisions.cluster_size, strict=True
        )
    ]


def by_all_pairs(
    corpus: Corpus, threshold: float, survivor: Survivor, *, through_bands: bool
) -> list[tuple[str | None, int, float | None, int]]:
    """The rule as it is worded, on Python strings and sets."""
    normalised = [" ".join(text.casefold().split()) for text in corpus.texts]
    words = [text.split(" ") if text else [] for text in normalised]
    sets = [{tuple(one[start : start + corpus.ngram]) for start in range(len(one) - corpus.ngram + 1)} for one in words]
    lengths = [len(text.encode()) for text in corpus.texts]
    scores = corpus.scores or [0.0] * len(corpus.texts)
    priority = {
        "first": range(len(corpus.texts)),
        "longest": sorted(range(len(corpus.texts)), key=lambda one: (-lengths[one], one)),
        "highest_score": sorted(range(len(corpus.texts)), key=lambda one: (-scores[one], one)),
    }[survivor]
    kept: list[int] = []
    result: list[tuple[str | None, int, float | None, int]] = [(None, -1, None, 1)] * len(corpus.texts)
    for document in priority:
        same_text = [one for one in kept if normalised[one] == normalised[document]]
        same_url = [
            one for one in kept if corpus.urls and corpus.urls[one] and corpus.urls[one] == corpus.urls[document]
        ]
        alike: list[tuple[float, int, int]] = []
        for rank, one in enumerate(kept):
            if not sets[document] or not sets[one]:
                continue
            if through_bands and not (corpus.keys[one] == corpus.keys[document]).any():
                continue
            similarity = len(sets[one] & sets[document]) / len(sets[one] | sets[document])
            if similarity >= threshold:
                alike.append((-similarity, rank, one))
        if same_text:
            result[document] = ("exact", same_text[0], 1.0, 0)
        elif same_url:
            result[document] = ("url", same_url[0], None, 0)
        elif alike:
            best = min(alike)
            result[document] = ("near", best[2], -best[0], 0)
        else:
            kept.append(document)
    sizes = [1 + sum(row[1] == document for row in result) for document in range(len(result))]
    return [(*row[:3], size if row[1] < 0 else 0) for row, size in zip(result, sizes, strict=True)]


def test_a_common_opening_is_no_duplicate_for_any_bands() -> None:
    # 300 words in common and 200 of its own: Jaccard 296 / (2 * 496 - 296) = 0.425 for each pair.
    opening = numbered("t", 0, 300)
    texts = [f"{opening} {numbered(f'own{document}x', 0, 200)}" for document in range(100)]
    for minhash in (MinHash(14, 8), MinHash(32, 8, seed=1), MinHash(64, 2)):
        decisions = Corpus(texts, minhash=minhash).decide(0.8)
        assert decisions.kept.all()
        assert decisions.verified_pairs == decisions.rejected_pairs > 0
    everything = Corpus(texts).decide(0.8)
    assert everything.rejected_pairs == 100 * 99 // 2


def test_a_chain_goes_only_to_kept_neighbours() -> None:
    corpus = Corpus([numbered("w", 10 * link, 104) for link in range(10)])
    # 100 shingles each, 90 in common with the neighbour: 90 / 110.
    expected = [(None, -1, None, 2) if link % 2 == 0 else ("near", link - 1, 90 / 110, 0) for link in range(10)]
    assert outcomes(corpus.decide(0.75)) == expected


def test_two_true_pairs_of_one_candidate_cluster_stay_two_clusters() -> None:
    opening = numbered("t", 0, 120)
    one, two = (f"{opening} {numbered(name, 0, 200)}" for name in "ab")
    decisions = Corpus([one, two, one + " end", two + " end"]).decide(0.8)
    assert decisions.keeper.tolist() == [-1, -1, 0, 1]
    assert decisions.cluster_size.tolist() == [2, 2, 0, 0]


def test_texts_shorter_than_a_shingle_are_compared_exactly() -> None:
    decisions = Corpus(["hello", "goodbye", "hello"]).decide()
    assert outcomes(decisions) == [(None, -1, None, 2), (None, -1, None, 1), ("exact", 0, 1.0, 0)]


def test_a_document_is_not_its_own_duplicate() -> None:
    text = "\n\n".join(numbered(f"p{paragraph}w", 0, 20) for paragraph in range(3))
    assert Corpus([text]).decide().kept.tolist() == [True]
    assert outcomes(Corpus([text, text]).decide()) == [(None, -1, None, 2), ("exact", 0, 1.0, 0)]


def test_a_document_removed_for_its_url_removes_nothing() -> None:
    text = numbered("w", 0, 50)
    urls = ["http://a", "http://a", None]
    # The second goes for its URL, so its copy, the third, has no kept copy and stays.
    assert outcomes(Corpus([numbered("v", 0, 50), text, text], urls=urls).decide()) == [
        (None, -1, None, 2),
        ("url", 0, None, 0),
        (None, -1, None, 1),
    ]


def test_copies_of_a_removed_text_go_to_the_document_that_removed_it() -> None:
    text = numbered("w", 0, 100)
    decisions = Corpus([text, f"{text} more", f"{text} more", f"{text} more"]).decide(0.8)
    assert outcomes(decisions) == [(None, -1, None, 4), *[("near", 0, 96 / 97, 0)] * 3]


def test_the_most_similar_keeper_is_named_and_ties_go_to_the_first() -> None:
    base = [f"w{number}" for number in range(60)]
    left, right = ["x"] * 1 + base, base + ["y"] * 1
    far = [*base, *(f"z{number}" for number in range(20))]
    decisions = Corpus([" ".join(words) for words in (far, left, right, base)]).decide(0.95)
    # 57 and 56 shingles, one apart: each 56 / 57 from the base; the two are 56 / 58 apart.
    assert decisions.keeper.tolist() == [-1, -1, 1, 1]
    assert decisions.similarity[3] == 56 / 57


@pytest.mark.parametrize(("survivor", "kept"), [("first", [0, 2]), ("longest", [1, 2]), ("highest_score", [0, 3])])
def test_survivor_rules(survivor: Survivor, kept: list[int]) -> None:
    text = numbered("w", 0, 100)
    corpus = Corpus([text, f"{text} more", "x", "X"], scores=[0.5, 0.4, math.nan, 0.1])
    assert np.flatnonzero(corpus.decide(survivor=survivor).kept).tolist() == kept


def test_priority_breaks_ties_by_index() -> None:
    sizes, scores = np.array([3, 5, 5, 1]), np.array([0.1, 0.9, math.nan, 0.9], dtype=np.float32)
    assert priority_order("longest", sizes=sizes, scores=scores).tolist() == [1, 2, 0, 3]
    assert priority_order("highest_score", sizes=sizes, scores=scores).tolist() == [1, 3, 0, 2]
    assert priority_order("first", sizes=sizes, scores=scores).tolist() == [0, 1, 2, 3]


def test_rules_can_be_left_out() -> None:
    texts = [numbered("w", 0, 50)] * 3
    corpus = Corpus(texts)
    shared = {"order": corpus.order(), "shingles": np.diff(corpus.offsets)}
    assert deduplicate(**shared).kept.all()
    assert deduplicate(**shared, digests=normalised_hash128(corpus.text)).kept.tolist() == [True, False, False]
    near = deduplicate(
        **shared, band_keys=lambda band: corpus.keys[:, band], bands=4, fetch=corpus.fetch, threshold=1.0
    )
    assert outcomes(near) == [(None, -1, None, 3), ("near", 0, 1.0, 0), ("near", 0, 1.0, 0)]
    with pytest.raises(ValueError, match="fetch"):
        deduplicate(**shared, bands=1)


def test_no_documents() -> None:
    decisions = Corpus([]).decide()
    assert decisions.keeper.size == decisions.cluster_size.size == 0


def test_identical_texts_are_a_star() -> None:
    decisions = Corpus([numbered("w", 0, 12)] * 20_000 + ["x"], minhash=MinHash(2, 2)).decide()
    assert decisions.keeper.tolist() == [-1, *[0] * 19_999, -1]
    assert decisions.cluster_size[0] == 20_000
    assert decisions.verified_pairs == 0


WORDS = st.sampled_from(["aa", "bb", "cc", "dd"])
TEXTS = st.lists(
    st.one_of(
        st.lists(WORDS, max_size=7).map(" ".join),
        st.tuples(st.integers(0, 30), st.integers(3, 25)).map(lambda span: numbered("w", *span)),
    ),
    max_size=24,
)


@settings(max_examples=150, deadline=None)
@given(
    texts=TEXTS,
    data=st.data(),
    threshold=st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]),
    survivor=st.sampled_from(["first", "longest", "highest_score"]),
    memory_bytes=st.sampled_from([2, 300, 1000, 1 << 30]),
    minhash=st.sampled_from([SEES_EVERYTHING, MinHash(14, 8), MinHash(3, 1, seed=5), MinHash(1, 2)]),
)
def test_equals_all_pairs(
    texts: list[str], data: st.DataObject, threshold: float, survivor: Survivor, memory_bytes: int, minhash: MinHash
) -> None:
    urls = data.draw(st.lists(st.sampled_from([None, "", "u", "v"]), min_size=len(texts), max_size=len(texts)))
    urls = [url or None for url in urls]
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(texts), max_size=len(texts)))
    corpus = Corpus(texts, urls=urls, scores=scores, minhash=minhash, ngram=3)
    decisions = corpus.decide(threshold, survivor=survivor, memory_bytes=memory_bytes)
    through_bands = minhash is not SEES_EVERYTHING
    assert outcomes(decisions) == by_all_pairs(corpus, threshold, survivor, through_bands=through_bands)
    removed = ~decisions.kept
    assert decisions.kept[decisions.keeper[removed]].all()
    assert (decisions.similarity[decisions.reason == REASONS.index("near")] >= threshold).all()
    assert decisions.cluster_size.sum() == len(texts)


def test_memory_bound_holds_and_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    base = [f"w{number}" for number in range(200)]
    texts = []
    for _ in range(60):
        words = list(base)
        for place in rng.integers(0, 200, size=int(rng.integers(0, 25))):
            words[place] = f"x{rng.integers(0, 1000)}"
        texts.append(" ".join(words))
    corpus = Corpus(texts)
    free = corpus.decide(0.5)
    assert 1 < free.kept.sum() < 60
    # One component of 60 sets of about 1,570 bytes; half of the memory is for the sets of a block.
    bound = 8_000
    corpus.largest_fetch = 0
    tight = corpus.decide(0.5, memory_bytes=bound)
    assert 0 < corpus.largest_fetch <= bound / 2
    assert outcomes(tight) == outcomes(free)
    assert tight.verified_pairs == free.verified_pairs
    assert tight.rejected_pairs == free.rejected_pairs


@given(one=st.sets(st.integers(0, 30)), other=st.sets(st.integers(0, 30)), threshold=st.floats(0.01, 1.0))
def test_jaccard(one: set[int], other: set[int], threshold: float) -> None:
    left, right = (np.array(sorted(members), dtype=np.uint64) for members in (one, other))
    exact = len(one & other) / max(1, len(one | other))
    assert jaccard_at_least(left, right, threshold) == (exact if exact >= threshold else -1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.integers(0, 5))
def test_first_equal(rows: list[tuple[int, int]], skip: int) -> None:
    keys = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    among = np.arange(min(skip, len(rows)), len(rows))
    first = first_equal(keys, among)
    assert first.tolist() == [rows.index(row, skip) if place >= skip else -1 for place, row in enumerate(rows)]
