"""Scores against their definitions, written out one text at a time, and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.lid.scores import CALIBRATION_BINS, macro_f1_difference, score

CODES = ["hr", "bs", "sr", "de", "xx"]


def ones(truth: list[str]) -> np.ndarray:
    return np.ones(len(truth), np.float32)


def test_a_case_by_hand() -> None:
    truth = ["de"] * 4 + ["bs"] * 2 + ["hr"] * 4
    answers = ["de", "de", "de", "hr", "hr", "hr", "hr", "hr", "de", "xx"]
    found = score(truth, answers, ones(truth), named={"de", "hr", "xx"})
    de, bs, hr = (found.by_code[code] for code in ("de", "bs", "hr"))
    assert (de.texts, de.answered, de.correct) == (4, 4, 3)
    assert (de.precision, de.recall, de.f1) == (0.75, 0.75, 0.75)
    assert (hr.precision, hr.recall) == (0.4, 0.5)
    assert hr.f1 == pytest.approx(4 / 9)  # 2 x 2 / (4 texts + 5 answers)
    assert (bs.f1, bs.precision, bs.recall, bs.named) == (0, 0, 0, False)
    assert hr.taken_for == (("de", 1), ("xx", 1))
    assert found.macro_f1 == pytest.approx((0.75 + 4 / 9 + 0) / 3)
    assert found.macro_f1_named == pytest.approx((0.75 + 4 / 9) / 2)
    assert found.codes_named == 2
    assert found.accuracy == 0.5
    assert found.accuracy_named == 5 / 8
    # Both Bosnian texts were called Croatian, its near kin.
    assert found.group_accuracy == 0.7
    (group,) = found.groups
    assert (group.codes, group.texts) == (("bs", "hr"), 6)
    assert (group.within, group.exact) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert found.confusions == (("bs", "hr", 2), ("de", "hr", 1), ("hr", "de", 1), ("hr", "xx", 1))
    # Of German's texts a quarter was called Croatian, of Bosnian's all; of Croatian's a quarter German.
    assert hr.false_positive_rate == pytest.approx((0.25 + 1) / 2)
    assert de.false_positive_rate == pytest.approx((0.25 + 0) / 2)
    assert found.false_positive_rate == pytest.approx((0.625 + 0.125 + 0) / 3)


def test_the_false_positive_rate_does_not_depend_on_how_many_texts_a_language_has() -> None:
    truth, answers = ["de"] * 2 + ["hr"] * 4, ["de", "hr", "hr", "hr", "de", "hr"]
    again = [code for code, times in zip(truth, [30] * 2 + [7] * 4, strict=True) for _ in range(times)]
    given = [code for code, times in zip(answers, [30] * 2 + [7] * 4, strict=True) for _ in range(times)]
    first, second = score(truth, answers, ones(truth)), score(again, given, ones(again))
    for code in ("de", "hr"):
        rate = first.by_code[code].false_positive_rate
        assert rate == pytest.approx(second.by_code[code].false_positive_rate)
        assert rate > 0
    assert first.by_code["hr"].precision != pytest.approx(second.by_code["hr"].precision)


def test_languages_with_few_texts_are_left_out_of_averages_but_their_texts_are_not() -> None:
    truth, answers = ["de", "de", "hr"], ["de", "de", "de"]
    found = score(truth, answers, ones(truth), min_documents=2)
    assert [code.code for code in found.codes] == ["de"]
    assert found.too_few == ("hr",)
    assert found.by_code["de"].precision == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx(0.8)
    assert found.texts == 3


def test_calibration_by_hand() -> None:
    # Bins of 1/15: 0.52 and 0.53 in the eighth (7/15, 8/15], 0.9 in the fourteenth, 1.0 in the last, 0.0 in the first.
    chances = np.array([0.52, 0.53, 0.9, 1.0, 0.0], np.float32)
    truth, answers = ["de"] * 5, ["de", "hr", "de", "hr", "hr"]
    found = score(truth, answers, chances)
    assert [(bin.texts, bin.accuracy) for bin in found.bins] == [(1, 0), (2, 0.5), (1, 1), (1, 0)]
    assert [round(bin.low * CALIBRATION_BINS) for bin in found.bins] == [0, 7, 13, 14]
    assert found.calibration_error == pytest.approx((2 * 0.025 + 0.1 + 1.0 + 0) / 5, abs=1e-6)


def test_answers_as_sure_as_they_are_right_are_calibrated() -> None:
    draw = np.random.default_rng(0)
    chances = draw.uniform(0, 1, 200_000)
    right = draw.uniform(0, 1, chances.size) < chances
    answers = np.where(right, "de", "hr").tolist()
    error = score(["de"] * chances.size, answers, chances.astype(np.float32)).calibration_error
    assert error < 0.01
    assert score(["de"] * chances.size, answers, ones(answers)).calibration_error == pytest.approx(0.5, abs=0.01)


pairs = st.lists(st.tuples(st.sampled_from(CODES[:4]), st.sampled_from(CODES)), min_size=1, max_size=40)


@given(pairs)
def test_definitions_one_text_at_a_time(rows: list[tuple[str, str]]) -> None:
    truth, answers = [row[0] for row in rows], [row[1] for row in rows]
    found = score(truth, answers, ones(truth))
    there = sorted(set(truth))
    assert [code.code for code in found.codes] == there
    f1 = []
    for code in there:
        both = sum(t == a == code for t, a in rows)
        precision = both / answers.count(code) if code in answers else 0.0
        recall = both / truth.count(code)
        f1.append(2 * precision * recall / (precision + recall) if both else 0.0)
        others = [other for other in there if other != code]
        rates = [sum(t == other and a == code for t, a in rows) / truth.count(other) for other in others]
        scored = found.by_code[code]
        assert scored.precision == pytest.approx(precision)
        assert scored.recall == pytest.approx(recall)
        assert scored.f1 == pytest.approx(f1[-1])
        assert scored.false_positive_rate == pytest.approx(sum(rates) / len(rates) if rates else 0.0)
        assert sum(count for _, count in scored.taken_for) == truth.count(code) - both
    assert found.macro_f1 == pytest.approx(sum(f1) / len(f1))
    assert found.accuracy == pytest.approx(sum(t == a for t, a in rows) / len(rows))
    kin = {"hr", "bs", "sr"}
    assert found.group_accuracy == pytest.approx(sum(t == a or {t, a} <= kin for t, a in rows) / len(rows))


def test_a_model_does_not_differ_from_itself() -> None:
    truth = ["de", "hr", "bs", "sr"] * 5
    answers = ["de", "hr", "hr", "hr"] * 5
    found = macro_f1_difference(truth, answers, answers, replicates=50)
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_interval_is_that_of_drawing_texts_anew() -> None:
    """Against a bootstrap that draws row by row, inside each language."""
    draw = np.random.default_rng(1)
    truth = ["de"] * 40 + ["hr"] * 60 + ["bs"] * 25
    left = [code if draw.uniform() < 0.6 else CODES[draw.integers(5)] for code in truth]
    right = [code if draw.uniform() < 0.7 else CODES[draw.integers(5)] for code in truth]
    found = macro_f1_difference(truth, left, right, replicates=4000, seed=3)
    rows = {code: [at for at, true in enumerate(truth) if true == code] for code in ("de", "hr", "bs")}

    def macro(answers: list[str], drawn: list[int]) -> float:
        return score([truth[at] for at in drawn], [answers[at] for at in drawn], ones(drawn)).macro_f1  # type: ignore[arg-type]

    values = []
    for _ in range(800):
        drawn = [int(at) for places in rows.values() for at in draw.choice(places, len(places))]
        values.append(macro(right, drawn) - macro(left, drawn))
    low, high = np.quantile(values, (0.025, 0.975))
    assert found.difference == pytest.approx(
        score(truth, right, ones(truth)).macro_f1 - score(truth, left, ones(truth)).macro_f1
    )
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)
    assert found.high - found.low > 0.1


def test_the_interval_is_the_same_for_the_same_seed_and_order_of_texts_is_nothing() -> None:
    truth, left = ["de", "hr", "bs"] * 20, ["de", "de", "hr"] * 20
    right = ["de", "hr", "hr", "de", "hr", "bs"] * 10
    first = macro_f1_difference(truth, left, right, replicates=200, seed=5)
    assert first == macro_f1_difference(truth, left, right, replicates=200, seed=5)
    assert first == macro_f1_difference(truth[::-1], left[::-1], right[::-1], replicates=200, seed=5)
    assert first != macro_f1_difference(truth, left, right, replicates=200, seed=6)
