"""What is shown can neither steer a terminal nor mislead, and is all there."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lola_data.shown_text import (
    FSI,
    LRI,
    MARK,
    PDI,
    RLI,
    Span,
    cut,
    decoded,
    has_right_to_left,
    is_right_to_left,
    laid_out,
    lines,
    plain,
    spans,
    wrapped,
)

# Unicode 15, property Bidi_Control, and the characters on which terminals and Python's splitlines break lines.
BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
BREAKS = [0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029]
ARABIC = "مرحبا بالعالم"
anything = st.text(st.characters(codec=None), max_size=60)


def shown(text: str) -> str:
    return "".join(span.text for span in spans(text))


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), *BIDI, *BREAKS, 0xFEFF, 0xAD, 0xE000, 0xFFFE])
def test_what_acts_is_a_mark_that_says_what_it_is(code: int) -> None:
    if code == 0x0A:
        assert spans("\n") == [Span("\n")]
        return
    (mark,) = spans(chr(code))
    assert mark.kind == MARK
    assert chr(code) not in mark.text
    assert mark.note.startswith(f"U+{code:04X}")


@given(anything)
def test_nothing_that_acts_is_left(text: str) -> None:
    left = shown(text).replace("\n", "")
    assert not [c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp", "Co") or ord(c) in BIDI]
    assert "\n" not in plain(text)


@pytest.mark.parametrize("text", ["می‌خواهم", "क्‍ष", "ភាសា​ខ្មែរ", "👩‍👩‍👧", "ẹ́ à", "日本語", "½ € ﷺ"])
def test_text_in_any_script_stays_as_it_is(text: str) -> None:
    assert spans(text) == [Span(text)]


def test_names_of_marks() -> None:
    assert shown("a\x00b\x1b[31m\u202ec\r\n\x9b\u200f\x7f") == "a‹NUL›b‹ESC›[31m‹RLO›c‹CR›\n‹U+009B›‹RLM›‹DEL›"


@given(st.binary(max_size=40))
def test_bytes_that_are_not_utf8_are_shown_as_python_escapes_them(data: bytes) -> None:
    escaped = data.decode("utf-8", "backslashreplace")
    assert shown(decoded(data)) == shown(escaped)


def test_invalid_bytes() -> None:
    assert shown(decoded(b"ok \xff\xc3 \xed\xa0\x80")) == "ok \\xff\\xc3 \\xed\\xa0\\x80"


def test_cut_does_not_part_a_letter_from_its_marks() -> None:
    text = "ọ́bá"  # o with a dot below and an acute
    decomposed = unicodedata.normalize("NFD", text)
    assert cut(decomposed, 1) == (decomposed[:3], len(decomposed) - 3)
    assert cut("abc", 3) == ("abc", 0)
    assert cut("abc", None) == ("abc", 0)
    assert cut("a👩‍👧b", 2) == ("a👩‍👧", 1)


@given(st.text(st.sampled_from("ab \u0301漢字ب👩\u200d\n"), max_size=50), st.integers(4, 12))
def test_rows_fit_lose_nothing_and_begin_with_no_mark(text: str, width: int) -> None:
    for line in lines(spans(text)):
        rows = wrapped(line, width)
        whole = "".join(span.text for row in rows for span in row)
        assert whole == "".join(span.text for span in line)
        for row in rows:
            joined = "".join(span.text for span in row)
            longest = max((cell_len(cluster) for cluster in joined.split(" ")), default=0)
            assert cell_len(joined.rstrip(" ")) <= width or longest > width
        for row in rows[1:]:
            assert unicodedata.category(row[0].text[0])[0] != "M"


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("one two three", 8, ["one two ", "three"]),
        ("漢字漢字漢", 5, ["漢字", "漢字", "漢"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 5, [""]),
        ("ab 漢字", 4, ["ab ", "漢字"]),
    ],
)
def test_where_lines_are_broken(text: str, width: int, expected: list[str]) -> None:
    assert ["".join(span.text for span in row) for row in wrapped([Span(text)], width)] == expected


@pytest.mark.parametrize(
    ("text", "rtl", "has"),
    [(ARABIC, True, True), ("abc " + ARABIC, False, True), ("123 " + ARABIC, True, True), ("abc", False, False),
     ("", False, False), ("שלום", True, True), ("日本", False, False)],
)  # fmt: skip
def test_direction_is_that_of_the_first_strong_character(text: str, rtl: bool, has: bool) -> None:
    assert is_right_to_left(text) is rtl
    assert has_right_to_left(text) is has


def test_lines_with_right_to_left_text_are_isolated_and_others_are_not() -> None:
    assert laid_out([Span("abc")], None) == [[Span("abc")]]
    assert "".join(span.text for span in laid_out([Span(ARABIC)], None)[0]) == f"{FSI}{ARABIC}{PDI}"
    rows = laid_out(spans(ARABIC + " abc"), 8)
    assert len(rows) > 1
    assert {row[0].text for row in rows} == {RLI}  # the direction of the line, though a row may begin with Latin
    assert {row[0].text for row in laid_out(spans("abc " + ARABIC), 8)} == {LRI}
    assert plain("x" + ARABIC) == f"{FSI}x{ARABIC}{PDI}"


@settings(max_examples=50)
@given(st.text(st.sampled_from("abب \u202e\u2067\u2069\u2068"), max_size=40), st.integers(5, 20))
def test_every_isolate_is_closed_in_its_row_whatever_the_text_holds(text: str, width: int) -> None:
    for line in lines(spans(text)):
        for row in laid_out(line, width):
            depth = 0
            for character in "".join(span.text for span in row):
                depth += (character in (FSI, LRI, RLI)) - (character == PDI)
                assert depth >= 0
            assert depth == 0
