"""Training lines: nothing lost, nothing too long, cut where a reader would cut."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.lines import RESERVED, _break_classes, split_lines

SEPARATORS = [chr(point) for point in (*range(0x20), 0x7F)] + list(RESERVED)
TRICKY = [
    "a",
    "é",
    "的",
    "。",
    " ",
    "  ",
    "\n",
    "\t",
    "\0",
    "\u2585",
    "\u2581",
    "\u0301",
    "\u200d",
    "क्ष",
    "👩",
    "🇩",
    "ั",
    "-",
]


def lines_of(text: str, max_bytes: int) -> list[str]:
    lines = split_lines(pa.array([text]), max_bytes)
    return [bytes(lines.data[start:stop]).decode() for start, stop in lines.spans.tolist()]


@pytest.mark.parametrize(
    ("text", "max_bytes", "expected"),
    [
        ("one line", 64, ["one line"]),
        ("two\nlines\r\n\n", 64, ["two", "lines"]),
        ("tab\there\0nul", 64, ["tab", "here", "nul"]),
        ("a\u2585b\u2581c", 64, ["a", "b", "c"]),
        ("hello world foo", 7, ["hello", " world", " foo"]),  # before the space that belongs to the next word
        ("a  bcdefgh", 8, ["a", "  bcdefg", "h"]),  # a run of spaces stays together
        ("你好。世界大家好", 12, ["你好。", "世界大家", "好"]),  # after the full stop, then between characters
        ("well-known,things", 12, ["well-known,", "things"]),
        ("👩‍👩‍👧👩‍👩‍👧", 20, ["👩‍👩‍👧", "👩‍👩‍👧"]),  # a family is one cluster
        ("क्षक्षक्ष", 12, ["क्ष", "क्ष", "क्ष"]),  # so is a conjunct
        ("🇩🇪🇫🇷🇩🇪", 10, ["🇩🇪", "🇫🇷", "🇩🇪"]),  # and a flag
        ("xye\u0301", 4, ["xy", "e\u0301"]),
        ("กำกำ", 8, ["กำ", "กำ"]),  # Thai SARA AM stays with its consonant
        ("\u1100\u1161\u11a8" * 2, 10, ["\u1100\u1161\u11a8"] * 2),  # conjoining Hangul
        ("e\u0301\u0301\u0301", 5, ["e\u0301\u0301", "\u0301"]),  # longer than a line: between characters
        ("", 64, []),
        ("\n\n", 64, []),
    ],
)
def test_places_of_cuts(text: str, max_bytes: int, expected: list[str]) -> None:
    assert lines_of(text, max_bytes) == expected


@settings(max_examples=300, deadline=None)
@given(
    documents=st.lists(
        st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.sampled_from(TRICKY)).map("".join)),
        max_size=4,
    ),
    max_bytes=st.integers(4, 40),
)
def test_every_byte_is_in_one_line_or_a_separator(documents: list[str], max_bytes: int) -> None:
    array = pa.array(documents, pa.string())
    lines = split_lines(array, max_bytes)
    data = "".join(documents).encode()
    for number, document in enumerate(documents):
        spans = lines.spans[lines.documents[number] : lines.documents[number + 1]].tolist()
        expected = document
        for separator in SEPARATORS:
            expected = expected.replace(separator, "")
        parts = [bytes(lines.data[start:stop]).decode() for start, stop in spans]  # raises if cut inside a character
        assert "".join(parts) == expected
        assert all(0 < len(part.encode()) <= max_bytes for part in parts)
    kept = int((lines.spans[:, 1] - lines.spans[:, 0]).sum())
    assert kept + lines.separator_bytes == len(data)
    assert lines.reserved == sum(document.count(mark) for document in documents for mark in RESERVED)


def test_slices_of_an_array_and_both_offset_widths() -> None:
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(["skipped", "kept one\ntwo", None, "three"], kind).slice(1)
        lines = split_lines(array, 64)
        assert [bytes(lines.data[a:b]) for a, b in lines.spans.tolist()] == [b"kept one", b"two", b"three"]
        assert lines.documents.tolist() == [0, 2, 2, 3]


def test_more_lines_than_expected_at_first() -> None:
    text = "a\n" * 5000
    assert len(split_lines(pa.array([text]), 64).spans) == 5000


def test_classes_know_every_space_mark_and_punctuation() -> None:
    classes = _break_classes()
    missed = [
        point
        for point in range(0x110000)
        if not 0xD800 <= point < 0xE000
        and (unicodedata.category(chr(point))[0] in "PSM" or unicodedata.category(chr(point)) == "Zs")
        and classes[point] == 0
    ]
    assert missed == []
    assert np.count_nonzero(classes) > 9_000
