"""MinHash against its theory: published values of the S-curve, and planted pairs of exact Jaccard similarity."""

from __future__ import annotations

import numpy as np
import pytest

from lola_data.minhash import MinHash, candidate_probability, s_curve


@pytest.mark.parametrize(
    ("bands", "rows", "expected"),
    [
        # 1 - (1 - s^r)^b worked out by hand to the places given, for well-known settings.
        (14, 8, {0.3: 0.0009, 0.5: 0.053, 0.6: 0.211, 0.7: 0.565, 0.75: 0.772, 0.8: 0.924, 0.85: 0.988, 0.9: 1.0}),
        (20, 13, {0.5: 0.002, 0.6: 0.026, 0.7: 0.177, 0.75: 0.382, 0.8: 0.677, 0.85: 0.924, 0.9: 0.997}),
        (17, 15, {0.5: 0.001, 0.6: 0.008, 0.7: 0.078, 0.75: 0.204, 0.8: 0.456, 0.85: 0.789, 0.9: 0.980}),
        (32, 8, {0.3: 0.002, 0.5: 0.118, 0.6: 0.418, 0.7: 0.850, 0.75: 0.966, 0.8: 0.997}),
        # Leskovec, Rajaraman and Ullman, figure 3.8: 20 bands of 5 rows.
        (20, 5, {0.2: 0.006, 0.3: 0.047, 0.4: 0.186, 0.5: 0.470, 0.6: 0.802, 0.7: 0.975, 0.8: 0.9996}),
    ],
)
def test_candidate_probability(bands: int, rows: int, expected: dict[float, float]) -> None:
    found = candidate_probability(list(expected), bands=bands, rows=rows)
    for chance, value in zip(found, expected.values(), strict=True):
        assert abs(chance - value) < (0.00006 if value < 0.001 or value == 0.9996 else 0.0006)


def test_candidate_probability_at_the_ends() -> None:
    assert candidate_probability([0.0, 1.0], bands=14, rows=8).tolist() == [0.0, 1.0]


def test_s_curve_rows() -> None:
    assert s_curve(bands=1, rows=2, similarities=(0.1, 0.5)) == [(0.1, pytest.approx(0.01)), (0.5, pytest.approx(0.25))]


def planted(shared: int, own: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two columns of ``pairs`` sets, each with ``shared`` elements in common and ``own`` of its own: Jaccard is
    shared / (shared + 2 own). Values of both, and the offsets that hold for either."""
    draws = np.random.default_rng(seed).integers(0, 1 << 64, size=(pairs, shared + 2 * own), dtype=np.uint64)
    left = np.ascontiguousarray(draws[:, : shared + own])
    right = np.concatenate([draws[:, shared + own :], draws[:, :shared]], axis=1)
    return left.ravel(), right.ravel(), np.arange(pairs + 1, dtype=np.int64) * (shared + own)


PLANTED = [(30, 35), (50, 25), (60, 20), (70, 15), (75, 12), (80, 10), (90, 5), (5, 1), (800, 100)]


@pytest.mark.parametrize(("shared", "own"), PLANTED)
def test_pairs_are_proposed_as_often_as_theory_says(shared: int, own: int) -> None:
    pairs = 6000
    left, right, offsets = planted(shared, own, pairs, seed=shared)
    minhash = MinHash(14, 8, seed=7)
    keys, other_keys = (minhash.band_keys(values, offsets)[0] for values in (left, right))
    rate = (keys == other_keys).any(axis=1).mean()
    chance = float(candidate_probability(shared / (shared + 2 * own), bands=14, rows=8))
    # Four standard deviations of a binomial share: passed by chance alone but once in 16,000 trials. Lanes of small
    # sets are drawn without replacement, which makes the curve steeper: above the formula where that is high, below it
    # where it is low.
    spread = 4 * np.sqrt(chance * (1 - chance) / pairs) + 1 / pairs
    steeper = 0.0 if shared == 800 else 0.016
    low, high = (0.0, steeper) if chance > 0.5 else (steeper, 0.0)
    assert chance - low - spread <= rate <= chance + high + spread
    assert abs(rate - chance) <= 0.02


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize(("shared", "own"), [(50, 25), (20, 40)])
def test_lanes_are_independent(rows: int, shared: int, own: int) -> None:
    # Over many lanes the share of equal minima is s, and of equal groups of r of them s^r: lanes that went together
    # would raise the latter.
    pairs, lanes = 1500, 512
    left, right, offsets = planted(shared, own, pairs, seed=rows)
    minhash = MinHash(lanes // rows, rows, seed=3)
    equal = minhash.signatures(left, offsets) == minhash.signatures(right, offsets)
    groups = equal.reshape(pairs, lanes // rows, rows).all(axis=2)
    expected = (shared / (shared + 2 * own)) ** rows
    # Lanes of one pair see the same sets, so pairs, not lanes, are the independent trials.
    per_pair = groups.mean(axis=1)
    assert abs(per_pair.mean() - expected) <= 4.5 * per_pair.std() / np.sqrt(pairs)


def test_signature_estimates_similarity_of_small_and_large_sets() -> None:
    for shared, own in ((2, 1), (4000, 1000)):
        left, right, offsets = planted(shared, own, 40, seed=1)
        minhash = MinHash(128, 8)
        share = (minhash.signatures(left, offsets) == minhash.signatures(right, offsets)).mean()
        similarity = shared / (shared + 2 * own)
        assert abs(share - similarity) < 4 * np.sqrt(similarity * (1 - similarity) / (1024 * 40))


def mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


@pytest.mark.parametrize("size", [1, 2, 9, 300])
def test_minima_by_the_definition(size: int) -> None:
    """Round by round with Python's integers: a lane has the least value of the first round in which any element fell
    into it; round t + l deals all into lane l."""
    lanes, seed = 6, 9
    values = np.random.default_rng(size).integers(0, 1 << 64, size=size, dtype=np.uint64)
    least: list[list[tuple[int, int]]] = [[] for _ in range(lanes)]
    for turn in range(2 * lanes):
        key = mix(mix(seed) + turn)
        for value in values.tolist():
            drawn = mix(value ^ key)
            lane = (drawn >> 32) * lanes >> 32 if turn < lanes else turn - lanes
            least[lane].append((turn, drawn % 2**31))
    expected = [min(drawn)[1] for drawn in least]
    assert MinHash(2, 3, seed=seed).signatures(values, np.array([0, size])).tolist() == [expected]


def test_order_and_repeats_do_not_matter() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 64, size=50, dtype=np.uint64)
    minhash = MinHash()
    once = minhash.signatures(values, np.array([0, 50]))
    again = minhash.signatures(np.concatenate([values[::-1], values[:20]]), np.array([0, 70]))
    assert once.tolist() == again.tolist()


def test_documents_do_not_touch_each_other() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 64, size=30, dtype=np.uint64)
    keys, shingled = MinHash(3, 2).band_keys(values, np.array([0, 10, 10, 30]))
    assert shingled.tolist() == [True, False, True]
    assert keys.shape == (3, 3)
    alone, _ = MinHash(3, 2).band_keys(values[10:], np.array([0, 20]))
    assert keys[2].tolist() == alone[0].tolist()


def test_a_key_stands_for_its_rows() -> None:
    left, right, offsets = planted(60, 20, 200, seed=2)
    minhash = MinHash(5, 3)
    signatures, others = (minhash.signatures(values, offsets).reshape(200, 5, 3) for values in (left, right))
    keys, other_keys = (minhash.band_keys(values, offsets)[0] for values in (left, right))
    assert ((signatures == others).all(axis=2) == (keys == other_keys)).all()


def test_seeds_draw_other_functions() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 64, size=50, dtype=np.uint64)
    offsets = np.array([0, 50])
    one, other = (MinHash(seed=seed).signatures(values, offsets) for seed in (1, 2))
    assert (one != other).mean() > 0.9


@pytest.mark.parametrize(("bands", "rows"), [(0, 8), (14, 0)])
def test_bands_and_rows_are_positive(bands: int, rows: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MinHash(bands, rows)
