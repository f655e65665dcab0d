"""Checks against Python's own decoder and string methods."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.checks import first_row, has_nul, invalid_utf8, is_blank, oversized

MALFORMED = {
    "lone continuation": b"a\x80b",
    "cut two-byte form": b"ab\xc3",
    "cut three-byte form": b"ab\xe2\x82",
    "cut four-byte form": b"ab\xf0\x9f\x98",
    "overlong slash": b"\xc0\xaf",
    "overlong in three bytes": b"\xe0\x80\xaf",
    "overlong in four bytes": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "past U+10FFFF": b"\xf4\x90\x80\x80",
    "no such lead byte": b"\xff",
    "Latin-1": "Grüße".encode("latin-1"),
    "bad third byte": b"\xe2\x82\x28",
    "bad fourth byte": b"\xf0\x9f\x98\x28",
    "lead after lead": b"\xc3\xc3\xa4",
}
VALID = ["", "plain", "Grüße", "漢字", "😀", "\ud7ff\ue000", "\U0010ffff", "\0", "\x7f\x80\u07ff\u0800\uffff\U00010000"]


def column(rows: list[bytes | None]) -> pa.Array:
    """A string column over bytes that may be no strings, as a Parquet file may give it."""
    return pa.array(rows, pa.binary()).view(pa.string())


def is_valid(row: bytes) -> bool:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("row", MALFORMED.values(), ids=MALFORMED)
def test_each_malformed_sequence_is_found_in_its_row(row: bytes) -> None:
    assert invalid_utf8(column([b"good", row, "gut, schön".encode(), None, b""])).tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_every_valid_form_passes() -> None:
    assert not invalid_utf8(column([text.encode() for text in VALID] + [None])).any()
    # One bad row makes the others go through the exact check.
    assert invalid_utf8(column([b"\xff", *(text.encode() for text in VALID)])).tolist() == [True] + [False] * len(VALID)


@given(st.lists(st.binary(max_size=12) | st.text(max_size=4).map(lambda text: text.encode("utf-8", "ignore"))))
def test_agrees_with_pythons_decoder(rows: list[bytes]) -> None:
    assert invalid_utf8(column(list(rows))).tolist() == [not is_valid(row) for row in rows]


def test_a_character_cut_between_two_rows_is_invalid_in_both() -> None:
    assert invalid_utf8(column([b"\xc3", b"\xa4"])).tolist() == [True, True]


@given(st.lists(st.sampled_from([b"", b"a", b"\0", b"a\0", b"\0b", b"\0\0", b"ab\xff", None])), st.integers(0, 3))
def test_nul_rows(rows: list[bytes | None], start: int) -> None:
    expected = [row is not None and b"\0" in row for row in rows]
    assert has_nul(column(rows)).tolist() == expected
    assert has_nul(column([b"\0"] * start + rows + [b"\0"]).slice(start, len(rows))).tolist() == expected


def test_bytes_under_a_null_do_not_count() -> None:
    values = pa.array([b"ok", b"\0\xff" * 9, b"ok"], pa.binary()).view(pa.string())
    masked = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), *values.buffers()[1:]])
    assert masked.to_pylist() == ["ok", None, "ok"]
    assert not invalid_utf8(masked).any()
    assert not has_nul(masked).any()
    assert not oversized(masked, 2).any()
    assert is_blank(masked).tolist() == [False, True, False]


def test_oversized_counts_bytes_not_characters() -> None:
    assert oversized(pa.array(["äöü", "abcdef", "abcdefg", None, ""]), 6).tolist() == [False, False, True, False, False]


def test_blank() -> None:
    texts = [None, "", " ", "\t\r\n", "\u00a0\u2003\u3000\u2028", " a ", "\u200b", "\0", "-"]
    assert is_blank(pa.array(texts)).tolist() == [True] * 5 + [False] * 4


@given(
    st.lists(st.text(st.sampled_from(" \t\n\v\f\r\x85\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000ab\u200b")))
)
def test_blank_is_what_python_strips_to_nothing(texts: list[str]) -> None:
    assert is_blank(pa.array(texts, pa.string())).tolist() == [not text.strip() for text in texts]


def test_chunks_slices_and_no_rows() -> None:
    chunks = pa.chunked_array([column([b"a"]), column([b"\xff", b"b"]), column([])])
    assert invalid_utf8(chunks).tolist() == [False, True, False]
    assert invalid_utf8(column([b"\xff", b"a", b"\xfe"]).slice(1, 1)).tolist() == [False]
    assert invalid_utf8(pa.chunked_array([], pa.string())).tolist() == []
    assert has_nul(column([])).tolist() == []


def test_first_row() -> None:
    assert first_row(invalid_utf8(column([b"a", b"\xff", b"\xff"]))) == 1
    assert first_row(invalid_utf8(column([b"a"]))) is None
    assert first_row(invalid_utf8(column([]))) is None
