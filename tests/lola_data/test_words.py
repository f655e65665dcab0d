"""Words, shingles and digests against Python's own Unicode functions and hand-counted texts."""

from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.shingles import shingle_hashes
from lola_data.unicode_tables import (
    CLASS_MASK,
    CLASS_SHIFT,
    CONTINUOUS,
    CONTINUOUS_RANGES,
    EXPANDS_BIT,
    FORMAT,
    LETTER,
    MARK,
    POINT_MASK,
    SEPARATOR,
    SPACE,
    unicode_tables,
    word_class,
)
from lola_data.words import (
    normalised_hash128,
    scan_words,
    word_counts,
    word_hashes,
)


def normal(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


def words_of(text: str) -> list[str]:
    """The words of a text by the rule of the manual, a character at a time."""
    words: list[str] = []
    kind = SEPARATOR
    for character in normal(text):
        found = word_class(ord(character))
        if found == FORMAT or (found == MARK and kind == SEPARATOR):
            continue
        if found == MARK or (found == LETTER and kind == LETTER):
            words[-1] += character
        elif found in (LETTER, CONTINUOUS):
            words.append(character)
        kind = kind if found == MARK else found if found in (LETTER, CONTINUOUS) else SEPARATOR
    return words


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, type=pa.string())


def hashes_per_text(texts: pa.Array | pa.ChunkedArray) -> list[list[int]]:
    values, offsets = word_hashes(texts)
    return [values[start:end].tolist() for start, end in pairwise(offsets)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick, brown fox!", 4),
        ("don't stop", 3),
        ("3.5 and 35", 4),
        ("snake_case", 2),
        ("  \n\t ", 0),
        ("漢字かな交じり文", 8),
        ("カタカナ、ひらがな。", 8),
        # ka + sara ii + mai ek are one word; every other base character is another.
        ("ที่นี่", 2),
        ("ภาษาไทย", 7),
        # Khmer: four consonants (one below another by the sign coeng, U+17D2), each with its marks.
        ("ខ្មែរ", 3),
        ("မြန်မာ", 3),
        ("བོད་ཡིག", 4),
        ("ພາສາລາວ", 7),
        ("한국어 문장", 2),
        ("नमस्ते दुनिया", 2),
        # ZWNJ and ZWJ do not split a word; a zero width space does, and so does an ordinary one.
        ("می\u200cخواهم", 1),
        ("ක්\u200dෂ", 1),
        ("co\u00adop", 1),
        ("a\u200bb", 2),
        ("iPhone手机2台", 5),
        ("๒๕๖๗", 1),
        ("❤️ 👩‍👩‍👧", 0),
        ("e\u0301te\u0301", 1),
        ("\u0301 a", 1),
        ("x\x00y", 2),
    ],
)
def test_hand_counted_words(text: str, words: int) -> None:
    assert word_counts(column(text)).tolist() == [words]
    assert len(words_of(text)) == words


def test_every_code_point_has_the_class_and_folding_of_the_unicode_database() -> None:
    tables = unicode_tables()
    # Planes 4 to 13 are unassigned, 15 and 16 private: they fold to themselves and separate.
    empty = [*range(0x40000, 0xE0000), *range(0xE1000, 0x110000)]
    assert (tables.entry[empty] == np.array(empty) + (SEPARATOR << CLASS_SHIFT)).all()
    entries = tables.entry.tolist()
    for point in [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000)]:
        character = chr(point)
        folded = normal(character)
        entry = entries[point]
        if entry & EXPANDS_BIT:
            start = entry & POINT_MASK
            size = int(tables.expansion[start])
            points = [int(value) for value in tables.expansion[start + 1 : start + 1 + size]]
        else:
            points = [entry & POINT_MASK]
            assert (entry >> CLASS_SHIFT) & CLASS_MASK == word_class(ord(folded)), hex(point)
        assert [chr(value) for value in points] == list(folded), hex(point)


def test_word_classes_follow_categories() -> None:
    for point in [*range(0x40000), *range(0xE0000, 0xE1000), sys.maxunicode]:
        category = unicodedata.category(chr(point))
        found = word_class(point)
        if found == MARK:
            assert category[0] == "M"
        elif found in (LETTER, CONTINUOUS):
            assert category[0] in "LN" or (found == CONTINUOUS and category == "Cn")
        elif found == SPACE:
            assert chr(point).isspace()
        elif found == FORMAT:
            assert category == "Cf"
        else:
            assert category[0] not in "LMN"


def test_continuous_ranges_hold_the_scripts_they_name() -> None:
    starts = [first for first, _, _ in CONTINUOUS_RANGES]
    assert starts == sorted(starts)
    names = {
        "CJK UNIFIED": True,
        "HIRAGANA LETTER": True,
        "KATAKANA LETTER": True,
        "THAI CHARACTER": True,
        "LAO LETTER": True,
        "KHMER LETTER": True,
        "MYANMAR LETTER": True,
        "TIBETAN LETTER": True,
        "YI SYLLABLE": True,
        "JAVANESE LETTER": True,
        "TAI THAM LETTER": True,
        "NEW TAI LUE LETTER": True,
        "TAI LE LETTER": True,
        "TAI VIET LETTER": True,
        "BALINESE LETTER": True,
        "LATIN": False,
        "CYRILLIC": False,
        "ARABIC LETTER": False,
        "DEVANAGARI LETTER": False,
        "HANGUL SYLLABLE": False,
        "ETHIOPIC SYLLABLE": False,
        "GEORGIAN LETTER": False,
        "MONGOLIAN LETTER": False,
    }
    seen = set()
    for point in range(0x20000):
        if unicodedata.category(chr(point)) != "Lo":
            continue
        name = unicodedata.name(chr(point), "")
        for prefix, continuous in names.items():
            if name.startswith(prefix):
                seen.add(prefix)
                assert (word_class(point) == CONTINUOUS) == continuous, name
    assert seen >= {prefix for prefix, continuous in names.items() if continuous}


ALPHABET = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("aAbB zZ.,_'-0١๑ \n\t\u00a0"),
    st.sampled_from("ßẞſǰŉİıΐΰϊΪςσΣͅᾳᾼὒΫΆΐΰẖẗẘẙẚﬃﬆՙևᾐ"),
    st.sampled_from(
        "\u0301\u0300\u0308\u0323\u0316\u0327\u0345\u0331\u030c\u030a\u0307\u05b4\u05bc\u064e\u0651\u093c\u3099"
    ),
    st.sampled_from("JHTWYjhtwyΙΥιυАЕИйЙ"),
    st.sampled_from("한각가ᄀ\u1161\u11a8漢字かがカガ゛ｶﾞไทยที่ខ្មែবাোেၐီਖ਼क़क\u200c\u200d\u200b\u00adÅΩK豈丽"),
)
TEXTS = st.lists(st.text(ALPHABET, max_size=30), max_size=6)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_words_are_those_of_the_normalised_text(texts: list[str]) -> None:
    found = hashes_per_text(column(*texts))
    expected = [words_of(text) for text in texts]
    assert [len(one) for one in found] == [len(one) for one in expected]
    by_word: dict[str, int] = {}
    for hashes, words in zip(found, expected, strict=True):
        for value, word in zip(hashes, words, strict=True):
            assert by_word.setdefault(word, value) == value
    assert len(set(by_word.values())) == len(by_word)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_digests_are_equal_just_when_the_normalised_texts_are(texts: list[str]) -> None:
    variants = [
        *texts,
        *(unicodedata.normalize("NFD", text) for text in texts),
        *(text.upper() for text in texts),
        *(f"\n {text}\t" for text in texts),
        *(text.replace(" ", "") for text in texts),
    ]
    keys = [" ".join(normal(text).split()) for text in variants]
    digests = [tuple(row) for row in normalised_hash128(column(*variants)).tolist()]
    by_key: dict[str, tuple[int, ...]] = {}
    for key, digest in zip(keys, digests, strict=True):
        assert by_key.setdefault(key, digest) == digest
    assert len(set(by_key.values())) == len(by_key)


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET, max_size=40), st.integers(1, 4))
def test_texts_equal_under_casefold_and_nfc_have_equal_shingles(text: str, n: int) -> None:
    same = column(text, normal(text), normal(normal(text)))
    values, offsets = shingle_hashes(same, n)
    sets = [values[start:end].tolist() for start, end in pairwise(offsets)]
    if normal(normal(text)) == normal(text):
        assert sets[0] == sets[1] == sets[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRASSE", "straße"),
        ("ΌΣΟΣ", "όσος"),
        ("e\u0301", "É"),
        ("J\u030c", "ǰ"),
        ("Ϊ\u0301", "ΐ"),
        ("İ\u0323", "i\u0323\u0307"),
        ("ﬃ", "FFI"),
        ("\u212b", "å"),
        ("각", "\u1100\u1161\u11a8"),
        ("क\u093c", "क़"),
        ("か\u3099", "が"),
    ],
)
def test_pairs_that_are_one_text(one: str, other: str) -> None:
    scan = scan_words(column(one, other))
    assert scan.words[0] == scan.words[1]
    assert scan.digests[0].tolist() == scan.digests[1].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [("3.5", "35"), ("a b", "ab"), ("a;b", "a,b"), ("no!", "no"), ("ab\u200dc", "a\u200dbc"), ("a\u200db", "\u200dab")],
)
def test_digests_tell_apart_what_words_may_not(one: str, other: str) -> None:
    digests = normalised_hash128(column(one, other))
    assert digests[0].tolist() != digests[1].tolist()


MIXED = ["Zwei Wörter", None, "", "漢字 かな", "e\u0301 decomposed \u0301", "x" * 70, "ภาษาไทย", "Ω mega"]


def layouts() -> dict[str, pa.Array | pa.ChunkedArray]:
    plain = column(*MIXED)
    padded = column("drop me", *MIXED, "and me")
    return {
        "large": plain.cast(pa.large_string()),
        "sliced": padded.slice(1, len(MIXED)),
        "large sliced": padded.cast(pa.large_string()).slice(1, len(MIXED)),
        "chunked": pa.chunked_array([padded.slice(1, 3), column(), plain.slice(3, 1), padded.slice(5, 4)]),
        "dictionary": plain.dictionary_encode(),
        "filtered": padded.filter(pa.array([False, *[True] * len(MIXED), False])),
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_the_layout_of_the_column_does_not_matter(name: str) -> None:
    expected = scan_words(column(*MIXED))
    found = scan_words(layouts()[name])
    assert found.words.tolist() == expected.words.tolist()
    assert found.offsets.tolist() == expected.offsets.tolist()
    assert found.digests.tolist() == expected.digests.tolist()


def test_a_column_equals_its_texts_one_by_one() -> None:
    together = scan_words(column(*MIXED))
    for number, text in enumerate(MIXED):
        alone = scan_words(column(text))
        assert alone.words.tolist() == together.words[slice(*together.offsets[number : number + 2])].tolist()
        assert alone.digests[0].tolist() == together.digests[number].tolist()


def test_the_head_is_a_copy_without_the_words_of_long_texts() -> None:
    scan = scan_words(column("a b c", "d e f g", None, "h", "i j"))
    head = scan.head(4, 3)
    assert head.offsets.tolist() == [0, 3, 3, 3, 4]
    assert head.words.tolist() == [*scan.words[:3], scan.words[7]]
    assert head.digests.tolist() == scan.digests[:4].tolist()
    scan.words[:] = 0
    assert (head.words != 0).all()
    assert scan.head(9, 9).offsets.tolist() == scan.offsets.tolist()
    assert scan.head(2, 0).words.size == 0
    assert scan.head(0, 9).offsets.tolist() == [0]


@pytest.mark.parametrize(
    "empty", [column(), pa.chunked_array([], type=pa.string()), pa.nulls(3), column(None, None), column("", "")]
)
def test_columns_of_nothing(empty: pa.Array | pa.ChunkedArray) -> None:
    scan = scan_words(empty)
    assert scan.words.size == 0
    assert scan.offsets.tolist() == [0] * (len(empty) + 1)
    assert scan.digests.shape == (len(empty), 2)
    assert len({tuple(row) for row in scan.digests.tolist()}) <= 1


def test_a_null_is_an_empty_text_even_over_bytes() -> None:
    # A validity bitmap may hide bytes that are still there.
    hidden = pa.Array.from_buffers(
        pa.string(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([0, 3, 6], np.int32)), pa.py_buffer(b"abcdef")]
    )
    assert hidden.to_pylist() == [None, "def"]
    assert word_counts(hidden).tolist() == [0, 1]


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="strings"):
        word_counts(pa.array([1, 2]))


def test_bytes_that_are_not_utf8_do_no_harm() -> None:
    broken = [
        b"ab\xff cd",
        b"\xe4\xb8",
        b"\xf0\x9f\x98",
        b"\xc3",
        b"a\xc3(b",
        b"\xf8\x88\x80\x80\x80",
        b"ok \xf4\x90\x80\x80",
    ]
    assert word_counts(_as_string(broken)).tolist() == [2, 0, 0, 0, 2, 0, 1]


def _as_string(values: list[bytes]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    )


def test_a_document_of_100_mb() -> None:
    part = "word and 漢字 again; "
    count = 100_000_000 // len(part.encode()) + 1
    values, offsets = word_hashes(pa.array([part * count], type=pa.large_string()))
    assert offsets.tolist() == [0, 5 * count]
    assert values[:5].tolist() == values[-5:].tolist()


def test_fixed_hashes() -> None:
    """Files keep these hashes between runs and machines, so they must never change unnoticed: an independent
    computation of the same formulas with Python's integers."""
    mask = (1 << 64) - 1

    def mix(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return value ^ value >> 31

    def word(text: str) -> int:
        state = 0x243F6A8885A308D3
        for character in text:
            state = (state ^ ord(character)) * 0x9E3779B97F4A7C15 & mask
            state ^= state >> 32
        return mix(state)

    values, _ = word_hashes(column("Ab ça 漢"))
    assert values.tolist() == [word("ab"), word("ça"), word("漢")]
    step = 0xC2B2AE3D27D4EB4F
    pair = mix((word("ab") * step + word("ça")) & mask)
    assert shingle_hashes(column("ab ça"), 2)[0].tolist() == [pair]
