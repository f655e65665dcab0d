"""What differs between two texts: both can be read out of the comparison, and hand-checked cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.inspect.words import ELIDED, LESS, MORE, SAME, Stretch, compare, excerpt, tokens_of
from lola_data.words import word_counts

texts = st.text(st.sampled_from("ab ä漢ก\u0301.,\n"), max_size=40)


@given(st.text(max_size=60))
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zwei  Wörter, 漢字", ["Zwei", "  ", "Wörter", ",", " ", "漢", "字"]),
        ("हिन्दी में", ["हिन्दी", " ", "में"]),
        ("don't 3.5", ["don", "'", "t", " ", "3", ".", "5"]),
        ("a\u0301b", ["a\u0301b"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens_of(text) == expected


@pytest.mark.parametrize("text", ["one two, three", "漢字かな mixed", "يولد جميع الناس", "हिन्दी में लिखा", ""])
def test_words_are_those_of_deduplication(text: str) -> None:
    import pyarrow as pa

    words = [token for token in tokens_of(text) if token[0].isalnum()]
    assert len(words) == int(word_counts(pa.array([text]))[0])


@given(texts, texts)
def test_both_texts_can_be_read_out(first: str, second: str) -> None:
    found = compare(first, second)
    assert found.cut == 0
    assert "".join(one.text for one in found.stretches if one.kind != MORE) == first
    assert "".join(one.in_second for one in found.stretches if one.kind != LESS) == second
    assert 0 <= found.alike <= 1
    if first == second:
        assert all(one.kind == SAME for one in found.stretches)
        assert found.spaces == 0


def test_white_space_is_counted_and_not_marked() -> None:
    first, second = "one two\n\nthree  four five", "one two three four\nfive"
    found = compare(first, second)
    assert found.stretches == (Stretch(first, SAME, second),)
    assert (found.alike, found.spaces) == (1.0, 3)
    found = compare(first, second.replace("four", "4"))
    assert [one.text for one in found.stretches] == ["one two\n\nthree  ", "four", "4", " five"]
    assert found.spaces == 3
    # A space where there was none is a difference.
    assert [one.kind for one in compare("a b", "ab").stretches] == [LESS, MORE]


def test_a_known_difference() -> None:
    found = compare("the quick brown fox jumps over", "the slow red fox jumps")
    assert found.stretches == (
        Stretch("the ", SAME),
        Stretch("quick brown", LESS),
        Stretch("slow red", MORE),
        Stretch(" fox jumps", SAME),
        Stretch(" over", LESS),
    )
    assert found.alike == pytest.approx(2 * 3 / (6 + 5))  # the, fox, jumps


@pytest.mark.parametrize(
    ("first", "second", "alike"), [("a b", "c d", 0.0), ("", "", 1.0), ("a b", "a b", 1.0), ("a", "", 0.0)]
)
def test_share_alike(first: str, second: str, alike: float) -> None:
    assert compare(first, second).alike == alike


def test_long_differences_are_cut_and_counted() -> None:
    first = "start " + " ".join(f"a{n}" for n in range(50)) + " end"
    second = "start " + " ".join(f"b{n}" for n in range(50)) + " end"
    found = compare(first, second, most_tokens=9)
    less = next(one.text for one in found.stretches if one.kind == LESS)
    more = next(one.text for one in found.stretches if one.kind == MORE)
    assert found.stretches[0] == Stretch("start ", SAME)
    assert found.stretches[-1] == Stretch(" end", SAME)
    assert found.cut == len(first) + len(second) - 2 * len("start  end") - len(less) - len(more)


@given(texts, texts, st.integers(1, 8))
def test_an_excerpt_keeps_all_differences_and_counts_what_it_leaves_out(first: str, second: str, around: int) -> None:
    stretches = compare(first, second).stretches
    shown = excerpt(stretches, around)
    assert [one for one in shown if one.kind in (LESS, MORE)] == [one for one in stretches if one.kind in (LESS, MORE)]
    left_out = sum(int(one.text.split()[1].replace(",", "")) for one in shown if one.kind == ELIDED)
    kept = sum(len(one.text) for one in shown if one.kind == SAME)
    assert left_out + kept == sum(len(one.text) for one in stretches if one.kind == SAME)


def test_an_excerpt_has_the_white_space_of_both() -> None:
    first, second = "word " * 40, "word\n" * 40
    shown = excerpt(compare(first + "old " + first, second + "new\n" + second).stretches, 10)
    assert [(one.kind, one.in_second) for one in shown][1:5] == [
        (SAME, "word\nword\n"), (LESS, "old"), (MORE, "new"), (SAME, "\nword\nword")]  # fmt: skip
    assert (shown[1].text, shown[4].text) == ("word word ", " word word")


def test_an_excerpt_shows_what_surrounds_a_difference() -> None:
    same = "word " * 40
    shown = excerpt(compare(same + "old " + same, same + "new " + same).stretches, 10)
    assert [one.kind for one in shown] == [ELIDED, SAME, LESS, MORE, SAME, ELIDED]
    assert shown[1].text == "word word "
