"""Scripts of characters against Python's character names, scripts of texts against hand-made cases."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.languages import LANGUAGES
from lola_data.scripts import NO_LETTERS, dominant_script, script_table, writes

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_PREFIX = {
    "ARABIC": "Arab",
    "ARMENIAN": "Armn",
    "BENGALI": "Beng",
    "CANADIAN SYLLABICS": "Cans",
    "CHEROKEE": "Cher",
    "CJK UNIFIED IDEOGRAPH": "Hani",
    "CYRILLIC": "Cyrl",
    "DEVANAGARI": "Deva",
    "ETHIOPIC": "Ethi",
    "GEORGIAN": "Geor",
    "GREEK": "Grek",
    "GUJARATI": "Gujr",
    "GURMUKHI": "Guru",
    "HANGUL": "Hang",
    "HEBREW": "Hebr",
    "HIRAGANA": "Hira",
    "JAVANESE": "Java",
    "KANNADA": "Knda",
    "KATAKANA": "Kana",
    "KHMER": "Khmr",
    "LAO": "Laoo",
    "LATIN": "Latn",
    "MALAYALAM": "Mlym",
    "MONGOLIAN": "Mong",
    "MYANMAR": "Mymr",
    "ORIYA": "Orya",
    "SINHALA": "Sinh",
    "SUNDANESE": "Sund",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "THAANA": "Thaa",
    "THAI": "Thai",
    "TIBETAN": "Tibt",
}
"""First words of a letter's Unicode name, and the script they stand for."""


def script_of(texts: Sequence[str | None]) -> list[str]:
    return dominant_script(pa.array(texts, pa.string())).to_pylist()


def test_every_letter_has_the_script_in_its_name() -> None:
    table = script_table()
    checked = 0
    for point in range(0x110000):
        character = chr(point)
        if unicodedata.category(character)[0] != "L":
            continue
        name = unicodedata.name(character, "")
        expected = next(
            (code for prefix, code in NAME_PREFIX.items() if name.startswith((prefix + " ", prefix + "-"))), None
        )
        if expected is None or table.of[point] == 0:
            continue
        assert table.codes[table.of[point]] == expected, name
        checked += 1
    assert checked > 110_000


def test_no_letter_of_these_scripts_is_left_out() -> None:
    table = script_table()
    left = {
        unicodedata.name(chr(point))
        for point in range(0x110000)
        if unicodedata.category(chr(point))[0] == "L"
        and table.of[point] == 0
        and unicodedata.name(chr(point), "").startswith(tuple(f"{prefix} LETTER" for prefix in NAME_PREFIX))
    }
    assert left == set()


def test_digits_signs_and_spaces_are_no_letters() -> None:
    assert script_of(["1234", "१२३", "٣٤٥", "!?.,:", " \n", "😀 🇩🇪", "", None, "\u200d\u200c", "№ ™"]) == ["Zyyy"] * 10


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Guten Tag", "Latn"),
        ("Добрый день", "Cyrl"),
        ("Καλημέρα", "Grek"),
        ("שלום עולם", "Hebr"),
        ("صباح الخير", "Arab"),
        ("शुभ प्रभात", "Deva"),
        ("শুভ সকাল", "Beng"),
        ("காலை வணக்கம்", "Taml"),
        ("สวัสดี", "Thai"),
        ("ສະບາຍດີ", "Laoo"),
        ("ជំរាបសួរ", "Khmr"),
        ("မင်္ဂလာပါ", "Mymr"),
        ("བཀྲ་ཤིས", "Tibt"),
        ("ሰላም", "Ethi"),
        ("გამარჯობა", "Geor"),
        ("Բարեւ", "Armn"),
        ("ދިވެހި", "Thaa"),
        ("ᮞᮥᮔ᮪ᮓ", "Sund"),
        ("ꦗꦮ", "Java"),
        ("你好,世界", "Hani"),
        ("你好,世界。ㄅㄆㄇ", "Hani"),
        ("こんにちは", "Jpan"),
        ("カタカナ", "Jpan"),
        ("すべての人間は、生まれながらにして自由であり、", "Jpan"),
        ("日本国憲法第九条戦争の放棄", "Hani"),
        ("안녕하세요", "Kore"),
        ("大韓民國은 民主共和國이다", "Kore"),
        ("人人生而自由,在尊严和权利上一律平等。「の」", "Hani"),
        ("Unicode 中文", "Latn"),
        ("Das Wort слово steht hier", "Latn"),
        ("a я", "Cyrl"),
        ("𐐀𐐁 Deseret", "Latn"),
        ("𠀀𠀁", "Hani"),
    ],
)
def test_texts_by_hand(text: str, script: str) -> None:
    assert script_of([text]) == [script]


def test_japanese_and_korean_beat_a_script_that_is_more_than_each_part() -> None:
    """Six kana and six Han together outweigh eight Latin letters."""
    assert script_of(["あいうえおか日本語文字列 abcdefgh"]) == ["Jpan"]


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_pass(rows: list[bytes]) -> None:
    column = pa.array(rows, pa.binary()).view(pa.string())
    assert set(dominant_script(column).to_pylist()) <= set(script_table().codes)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=6))
def test_a_row_is_judged_by_itself(texts: list[str]) -> None:
    assert script_of(texts) == [script_of([text])[0] for text in texts]
    padded = dominant_script(pa.array(["я", *texts, "я"]).slice(1, len(texts)))
    assert padded.to_pylist() == script_of(texts)
    assert dominant_script(pa.chunked_array([texts, texts], pa.string())).to_pylist() == script_of(texts) * 2


def test_writes() -> None:
    assert writes("ja", "Jpan")
    assert writes("ja", "Hani")
    assert writes("ko", "Kore")
    assert writes("zh", "Hani")
    assert writes("sr", "Cyrl")
    assert writes("sr", "Latn")
    assert not writes("sh", "Cyrl")
    assert not writes("de", "Cyrl")
    assert not writes("zh", "Jpan")


def test_every_language_can_be_seen() -> None:
    """No language is written only in scripts that the detector never gives."""
    codes = set(script_table().codes) - {"Hira", "Kana", "Hang", "Bopo"}
    assert all(any(writes(code, script) for script in codes) for code in LANGUAGES)


def test_of_ascii_the_letters_and_they_alone_are_of_a_script() -> None:
    """The counting takes a Latin letter for the only kind of letter among the first 128 characters."""
    table = script_table()
    found = {chr(point): table.codes[table.of[point]] for point in range(128)}
    assert found == {character: "Latn" if character.isalpha() else NO_LETTERS for character in found}


def test_runs_of_scripts_are_all_counted() -> None:
    """By hand: 3 Greek letters in three runs, 2 Cyrillic, 2 Latin; then one Latin more than Greek."""
    assert dominant_script(pa.array(["αж aβжbγ", "αж aβжbγcd"])).to_pylist() == ["Grek", "Latn"]
