"""Names in which nothing is hidden, and counts in few digits."""

from __future__ import annotations

import unicodedata

import pytest

from lola_data.report.text import short_count, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain & <b>", "plain & <b>"),
        ("Ẹ káàárọ̀ 中文 עברית", "Ẹ káàárọ̀ 中文 עברית"),
        ("abc\u202edcba", "abc‹U+202E›dcba"),
        ("\u2066x\u2069", "‹U+2066›x‹U+2069›"),
        ("nul\0", "nul‹U+0000›"),
        ("two\nlines\ttab\u2028end", "two‹U+000A›lines‹U+0009›tab‹U+2028›end"),
        ("zero\u200bwidth\ufeff", "zero‹U+200B›width‹U+FEFF›"),
        ("\ud800", "‹U+D800›"),
        ("\U000e0041", "‹U+E0041›"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_nothing_that_reorders_or_hides_text_is_left() -> None:
    everything = "".join(map(chr, range(0x110000)))
    for character in set(visible(everything)):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        # Characters with a bidirectional class that forces an order, of Unicode Standard Annex 9, table 4.
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "LRO",
            "RLE",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (6.3e12, "6.30T"),
    ],
)
def test_counts_have_three_digits(count: float, text: str) -> None:
    assert short_count(count) == text
