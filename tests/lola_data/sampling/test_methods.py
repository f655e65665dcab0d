"""Plans against published numbers and hand-made cases; the hash sample against a brute-force one."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.errors import RecipeError
from lola_data.languages import LANGUAGES
from lola_data.sampling.methods import (
    EVERYTHING,
    Method,
    SamplingPlan,
    chosen,
    first_of_each,
    hash_bound,
    lola_v1_documents,
    plan,
    round_to_sum,
)

SIZES = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 10**13), min_size=1)


def shares(made: SamplingPlan) -> list[float]:
    return [round(budget.share, 4) for budget in made.languages.values()]


def budgets(made: SamplingPlan) -> list[int]:
    return [budget.budget for budget in made.languages.values()]


@pytest.mark.parametrize(
    ("alpha", "expected"), [(1.0, [0.9, 0.1]), (0.3, [0.6591, 0.3409]), (0.0, [0.5, 0.5]), (0.5, [0.75, 0.25])]
)
def test_temperature_shares_follow_the_formula(alpha: float, expected: list[float]) -> None:
    """900 and 100 documents: the case that GPT-NeoX turns upside down."""
    made = plan("temperature", {"a": 900, "b": 100}, alpha=alpha, max_epochs=100)
    assert shares(made) == expected
    assert sum(budgets(made)) == 1000


def test_temperature_on_the_published_sizes_is_monotone() -> None:
    sizes = {code: language.documents for code, language in LANGUAGES.items()}
    for alpha in (0.0, 0.1, 0.3, 0.7, 1.0):
        made = plan("temperature", sizes, alpha=alpha, total=10**9)
        assert sum(budgets(made)) + made.unspent == 10**9
        ranked = sorted(sizes, key=lambda code: sizes[code])
        got = [made.languages[code].budget for code in ranked]
        assert got == sorted(got)
        assert max(budget.epochs for budget in made.languages.values()) <= 4.0


def test_temperature_passes_surplus_on_by_weight() -> None:
    """Roots are 40, 20 and 1. Of 91 the third would get 1.49 but has 1; the 90 left go 40 to 20."""
    made = plan("temperature", {"a": 1600, "b": 400, "c": 1}, alpha=0.5, max_epochs=1.0, total=91)
    assert budgets(made) == [60, 30, 1]
    assert made.unspent == 0
    assert made.languages["c"].epochs == 1.0


@pytest.mark.parametrize(
    ("total", "expected", "unspent"),
    [(400, [178, 178, 40, 4], 0), (4800, [4000, 400, 40, 4], 356), (4, [1, 1, 1, 1], 0), (0, [0, 0, 0, 0], 0)],
)
def test_unimax_by_hand(total: int, expected: list[int], unspent: int) -> None:
    made = plan("unimax", {"a": 1000, "b": 100, "c": 10, "d": 1}, total=total, max_epochs=4)
    assert budgets(made) == expected
    assert made.unspent == unspent


def unimax_as_published(sizes: dict[str, int], total: int, cap: float) -> dict[str, float]:
    """Algorithm 1 of arXiv 2304.09151: languages from the smallest up, each the even share of what is left."""
    left, shared = float(total), {}
    ordered = sorted(sizes, key=lambda code: sizes[code])
    for number, code in enumerate(ordered):
        even = left / (len(ordered) - number)
        shared[code] = min(even, cap * sizes[code])
        left -= shared[code]
    return shared


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**6), min_size=1), st.integers(0, 10**7))
def test_unimax_is_the_published_algorithm(sizes: dict[str, int], total: int) -> None:
    made = plan("unimax", sizes, total=total, max_epochs=3)
    expected = unimax_as_published(sizes, total, 3)
    for code, budget in made.languages.items():
        assert abs(budget.budget - expected[code]) <= 1.001
    assert made.unspent == max(0, total - 3 * sum(sizes.values()))


def test_lola_v1_gives_the_published_subset_in_every_language() -> None:
    """Counts derived from the release's split file: 167 languages, 275,653,379 documents."""
    made = plan("lola-v1", {code: language.documents for code, language in LANGUAGES.items()})
    assert {code: budget.budget for code, budget in made.languages.items()} == {
        code: language.lola_v1_docs for code, language in LANGUAGES.items()
    }
    # The release lost one document of each language to an index that was off by one.
    assert sum(budgets(made)) - len(LANGUAGES) == 275_653_379
    assert all(budget.epochs <= 1 for budget in made.languages.values())


def test_lola_v1_rule_by_hand() -> None:
    assert lola_v1_documents("uz", 87_219) == 87_219
    assert lola_v1_documents("sd", 109_162) == 4_366
    assert lola_v1_documents("xx", 99_999) == 99_999
    assert lola_v1_documents("xx", 100_000) == 4_000
    assert lola_v1_documents("en", 100_000) == 2_000
    assert lola_v1_documents("de", 100_000) == 16_000
    assert lola_v1_documents("en", 99_999) == 99_999


def test_all_and_proportional() -> None:
    sizes = {"a": 70, "b": 20, "c": 10, "d": 0}
    assert budgets(plan("all", sizes)) == [70, 20, 10, 0]
    assert shares(plan("all", sizes)) == [0.7, 0.2, 0.1, 0.0]
    assert budgets(plan("proportional", sizes)) == [70, 20, 10, 0]
    assert budgets(plan("proportional", sizes, total=10)) == [7, 2, 1, 0]
    too_much = plan("proportional", sizes, total=150)
    assert (budgets(too_much), too_much.unspent) == ([70, 20, 10, 0], 50)


def test_budgets_are_kept_repeated_and_capped() -> None:
    made = plan("budgets", {"a": 100, "b": 100, "c": 100, "d": 5}, budgets={"a": 50, "b": 250, "c": 1000}, max_epochs=4)
    assert budgets(made) == [50, 250, 400, 0]
    assert [budget.epochs for budget in made.languages.values()] == [0.5, 2.5, 4.0, 0.0]
    assert made.unspent == 600
    assert made.total == 1300


def test_a_budget_for_a_language_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"sample\.budgets: no documents in xx; .* de, en"):
        plan("budgets", {"de": 1, "en": 1}, budgets={"xx": 5, "de": 1})
    with pytest.raises(RecipeError, match="needs a number of units"):
        plan("budgets", {"de": 1})
    with pytest.raises(RecipeError, match="needs a budget"):
        plan("unimax", {"de": 1})


@given(
    SIZES, st.sampled_from(["all", "proportional", "temperature", "unimax"]), st.floats(0, 1), st.integers(0, 10**14)
)
def test_every_plan_adds_up_and_keeps_the_order_of_sizes(
    sizes: dict[str, int], method: Method, alpha: float, total: int
) -> None:
    made = plan(method, sizes, total=total, alpha=alpha, max_epochs=4.0)
    assert sum(budgets(made)) + made.unspent == made.total
    assert made.unspent >= 0
    whole = sum(budget.share for budget in made.languages.values())
    assert whole == pytest.approx(1.0) or (whole == 0 and sum(budgets(made)) == 0)
    most = 1.0 if method in ("all", "proportional") else 4.0
    for left in made.languages.values():
        assert left.budget <= most * left.available
        for right in made.languages.values():
            if left.available > right.available:
                assert left.budget >= right.budget
                assert left.share >= right.share


@given(SIZES, st.sampled_from(["all", "proportional", "temperature", "unimax", "lola-v1"]))
def test_plans_survive_json_and_do_not_depend_on_order(sizes: dict[str, int], method: Method) -> None:
    made = plan(method, sizes, total=1000)
    assert SamplingPlan.from_json(json.loads(json.dumps(made.to_json()))) == made
    turned = plan(method, dict(reversed(sizes.items())), total=1000)
    assert json.dumps(turned.to_json()) == json.dumps(made.to_json())


def test_no_languages_and_only_empty_ones() -> None:
    for method in ("all", "proportional", "temperature", "unimax", "lola-v1"):
        assert plan(method, {}, total=5).languages == {}
        empty = plan(method, {"a": 0}, total=5)
        assert empty.languages["a"].budget == 0
        assert empty.languages["a"].share == 0.0


def test_largest_remainder_by_hand() -> None:
    parts = {"a": Fraction(7, 3), "b": Fraction(7, 3), "c": Fraction(10, 3)}
    assert round_to_sum(parts, 8, {"a": 5, "b": 5, "c": 9}) == {"a": 2, "b": 2, "c": 4}
    halves = {"a": Fraction(1, 2), "b": Fraction(1, 2)}
    assert round_to_sum(halves, 1, {"a": 1, "b": 2}) == {"a": 0, "b": 1}
    assert round_to_sum(halves, 1, {"a": 1, "b": 1}) == {"a": 1, "b": 0}


DOCUMENTS = st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 40), st.integers(0, 50)), max_size=60)


def brute_force(documents: list[tuple[int, int]], budget: int) -> set[int]:
    """Hashes in the sample: in order of hash, those of one hash together, until the next do not fit."""
    taken: set[int] = set()
    spent = 0
    for value in sorted({hash_ for hash_, _ in documents}):
        size = sum(size for hash_, size in documents if hash_ == value)
        if budget <= 0 or (spent + size > budget and taken):
            break
        taken.add(value)
        spent += size
        if spent > budget:
            break
    return taken


def sample(documents: list[tuple[int, int]], budget: int, pieces: int = 1) -> set[int]:
    hashes = np.array([hash_ for hash_, _ in documents], dtype=np.uint64)
    sizes = np.array([size for _, size in documents], dtype=np.int64)
    bound = hash_bound(lambda: zip(np.array_split(hashes, pieces), np.array_split(sizes, pieces), strict=True), budget)
    assert 0 <= bound <= EVERYTHING
    return set(hashes[chosen(hashes, bound)].tolist())


@given(DOCUMENTS, st.integers(0, 600), st.integers(1, 4))
def test_the_sample_is_the_brute_force_one(documents: list[tuple[int, int]], budget: int, pieces: int) -> None:
    assert sample(documents, budget, pieces) == brute_force(documents, budget)


@given(DOCUMENTS, st.integers(0, 600), st.integers(0, 600))
def test_samples_are_nested(documents: list[tuple[int, int]], one: int, other: int) -> None:
    assert sample(documents, min(one, other)) <= sample(documents, max(one, other))


def test_bounds_at_the_ends() -> None:
    last = 2**64 - 1
    assert sample([(0, 1), (last, 1)], 0) == set()
    assert sample([(0, 1), (last, 1)], 1) == {0}
    assert sample([(0, 1), (last, 1)], 2) == {0, last}
    assert sample([(last, 9)], 1) == {last}
    assert sample([], 5) == set()


def test_budgets_past_the_precision_of_floats() -> None:
    huge = 2**53
    assert sample([(1, huge), (2**60, 1), (2**61, 1), (2**62, huge)], huge + 1) == {1, 2**60}
    assert sample([(1, huge), (2**60, 1), (2**61, 1), (2**62, huge)], huge + 2) == {1, 2**60, 2**61}


def test_first_of_each() -> None:
    assert first_of_each([3, 0, 4, 5], 5) == [3, 0, 2, 0]
    assert first_of_each([3, 4], 100) == [3, 4]
    assert first_of_each([3, 4], 0) == [0, 0]
    assert first_of_each([], 7) == []
