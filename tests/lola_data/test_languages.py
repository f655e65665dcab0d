"""The language table against published figures and facts checked by hand."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from lola_data.errors import RecipeError
from lola_data.languages import LANGUAGES, Language, language, unicode_scripts

# code, name, ISO 639-3, script, family, documents, tokens: CulturaX card; ISO registers; Glottolog.
FACTS = [
    ("en", "English", "eng", "Latn", "Indo-European", 3241065682, 2846970578793),
    ("ru", "Russian", "rus", "Cyrl", "Indo-European", 799310908, 737201800363),
    ("de", "German", "deu", "Latn", "Indo-European", 420017484, 357030348021),
    ("zh", "Chinese", "zho", "Hans", "Sino-Tibetan", 218624604, 227055380882),
    ("ja", "Japanese", "jpn", "Jpan", "Japonic", 111188475, 107873841351),
    ("vi", "Vietnamese", "vie", "Latn", "Austroasiatic", 102411180, None),
    ("tr", "Turkish", "tur", "Latn", "Turkic", 94207460, 64292787164),
    ("ar", "Arabic", "arb", "Arab", "Afro-Asiatic", 74027952, 69354335076),
    ("fa", "Persian", "fas", "Arab", "Indo-European", 59531144, 45947657495),
    ("el", "Greek", "ell", "Grek", "Indo-European", 51430226, 43147590757),
    ("uk", "Ukrainian", "ukr", "Cyrl", "Indo-European", 44740545, 38226128686),
    ("hu", "Hungarian", "hun", "Latn", "Uralic", 44132152, 43417981714),
    ("fi", "Finnish", "fin", "Latn", "Uralic", 30467667, 28925009180),
    ("id", "Indonesian", "ind", "Latn", "Austronesian", 23251368, 12062966061),
    ("th", "Thai", "tha", "Thai", "Tai-Kadai", 20960550, 15717374014),
    ("ko", "Korean", "kor", "Kore", "Koreanic", 20557310, 24765448392),
    ("hi", "Hindi", "hin", "Deva", "Indo-European", 19665355, 16791362871),
    ("bn", "Bangla", "ben", "Beng", "Indo-European", 12436596, 9572929804),
    ("az", "Azerbaijani", "aze", "Latn", "Turkic", 5084505, None),
    ("ta", "Tamil", "tam", "Taml", "Dravidian", 4728460, 4378078610),
    ("he", "Hebrew", "heb", "Hebr", "Afro-Asiatic", 4653979, 4937152096),
    ("ka", "Georgian", "kat", "Geor", "Kartvelian", 3120321, 2617625564),
    ("hy", "Armenian", "hye", "Armn", "Indo-European", 2964488, None),
    ("mn", "Mongolian", "mon", "Cyrl", "Mongolic-Khitan", 1928828, None),
    ("te", "Telugu", "tel", "Telu", "Dravidian", 1822865, 1566972146),
    ("eu", "Basque", "eus", "Latn", "Basque", 1598822, None),
    ("km", "Khmer", "khm", "Khmr", "Austroasiatic", 1013181, None),
    ("my", "Burmese", "mya", "Mymr", "Sino-Tibetan", 865575, None),
    ("si", "Sinhala", "sin", "Sinh", "Indo-European", 753655, 880289097),
    ("pa", "Punjabi", "pan", "Guru", "Indo-European", 646987, 727546145),
    ("eo", "Esperanto", "epo", "Latn", "Artificial Language", 460088, None),
    ("ku", "Kurdish", "kur", "Latn", "Indo-European", 295314, None),
    ("am", "Amharic", "amh", "Ethi", "Afro-Asiatic", 243349, 358206762),
    ("lo", "Lao", "lao", "Laoo", "Tai-Kadai", 217842, None),
    ("ckb", "Central Kurdish", "ckb", "Arab", "Indo-European", 172035, None),
    ("or", "Odia", "ory", "Orya", "Indo-European", 153461, None),
    ("yi", "Yiddish", "yid", "Hebr", "Indo-European", 141156, None),
    ("mg", "Malagasy", "mlg", "Latn", "Austronesian", 115910, None),
    ("dv", "Divehi", "div", "Thaa", "Indo-European", 66702, None),
    ("sw", "Swahili", "swa", "Latn", "Atlantic-Congo", 66506, None),
    ("bo", "Tibetan", "bod", "Tibt", "Sino-Tibetan", 54185, None),
    ("ug", "Uyghur", "uig", "Arab", "Turkic", 47035, None),
    ("azb", "South Azerbaijani", "azb", "Arab", "Turkic", 29833, None),
    ("sah", "Sakha", "sah", "Cyrl", "Turkic", 22141, None),
    ("ce", "Chechen", "che", "Cyrl", "Nakh-Daghestanian", 17322, None),
    ("pnb", "Western Panjabi", "pnb", "Arab", "Indo-European", 15625, None),
    ("xmf", "Mingrelian", "xmf", "Geor", "Kartvelian", 9706, None),
    ("mhr", "Eastern Mari", "mhr", "Cyrl", "Uralic", 7883, None),
    ("bpy", "Bishnupriya", "bpy", "Beng", "Indo-European", 5087, None),
    ("new", "Newari", "new", "Deva", "Sino-Tibetan", 4344, None),
    ("jbo", "Lojban", "jbo", "Latn", "Artificial Language", 1349, None),
    ("qu", "Quechua", "que", "Latn", "Quechuan", 1202, None),
    ("gom", "Goan Konkani", "gom", "Deva", "Indo-European", 721, None),
    ("nah", "Nahuatl languages", None, "Latn", "Uto-Aztecan", 131, None),
    ("gn", "Guarani", "grn", "Latn", "Tupian", 103, None),
    ("xal", "Kalmyk", "xal", "Cyrl", "Mongolic-Khitan", 51, None),
    ("so", "Somali", "som", "Latn", "Afro-Asiatic", 39, None),
    ("ht", "Haitian Creole", "hat", "Latn", "Indo-European", 12, None),
    ("myv", "Erzya", "myv", "Cyrl", "Uralic", 4, None),
    ("bcl", "Central Bikol", "bcl", "Latn", "Austronesian", 1, None),
]

# ISO 15924 codes that some CulturaX language is written in.
ISO_15924 = {
    "Arab", "Armn", "Beng", "Cyrl", "Deva", "Ethi", "Geor", "Grek", "Gujr", "Guru", "Hans", "Hant", "Hebr",
    "Java", "Jpan", "Khmr", "Knda", "Kore", "Laoo", "Latn", "Mlym", "Mong", "Mymr", "Orya", "Sinh", "Sund",
    "Taml", "Telu", "Thaa", "Thai", "Tibt",
}  # fmt: skip

GLOTTOLOG_TOP_LEVEL = {
    "Afro-Asiatic", "Artificial Language", "Atlantic-Congo", "Austroasiatic", "Austronesian", "Basque", "Dravidian",
    "Indo-European", "Japonic", "Kartvelian", "Koreanic", "Mongolic-Khitan", "Nakh-Daghestanian", "Quechuan",
    "Sino-Tibetan", "Tai-Kadai", "Tupian", "Turkic", "Uralic", "Uto-Aztecan",
}  # fmt: skip


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact[0])
def test_known_language(fact: tuple[str, str, str | None, str, str, int, int | None]) -> None:
    entry = language(fact[0])
    assert fact == (
        entry.code,
        entry.name,
        entry.iso639_3,
        entry.script,
        entry.family,
        entry.documents,
        entry.tokens,
    )


def test_every_language_of_culturax() -> None:
    assert len(LANGUAGES) == 167
    # 7.2 billion documents and, over the 48 languages with a published count, 6.2 trillion tokens.
    assert sum(entry.documents for entry in LANGUAGES.values()) == 7_228_929_542
    assert sum(entry.tokens or 0 for entry in LANGUAGES.values()) == 6_175_071_004_762
    assert sum(entry.tokens is not None for entry in LANGUAGES.values()) == 48
    # LOLA v1's training set: 4 % of a language, 2 % of English, 16 % of German, all of those under 100,000.
    assert sum(entry.lola_v1_docs for entry in LANGUAGES.values()) == 275_653_546
    for code, share in (("en", 0.02), ("de", 0.16), ("fr", 0.04), ("uz", 1.0)):
        assert LANGUAGES[code].lola_v1_docs == int(LANGUAGES[code].documents * share)


def test_order_is_most_documents_first() -> None:
    sizes = [entry.documents for entry in LANGUAGES.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_codes_scripts_and_families_are_well_formed() -> None:
    for code, entry in LANGUAGES.items():
        assert entry.code == code
        assert entry.scripts[0] == entry.script
        assert len(set(entry.scripts)) == len(entry.scripts)
        assert set(entry.scripts) <= ISO_15924, code
        assert entry.family in GLOTTOLOG_TOP_LEVEL, code
        assert entry.iso639_3 is None or (len(entry.iso639_3) == 3 and entry.iso639_3.islower()), code
        assert len(code) != 3 or entry.iso639_3 == code or code in ("als", "nah"), code
    assert {script for entry in LANGUAGES.values() for script in entry.scripts} == ISO_15924
    assert {entry.family for entry in LANGUAGES.values()} == GLOTTOLOG_TOP_LEVEL


def test_no_two_languages_share_an_iso_code() -> None:
    codes = [entry.iso639_3 for entry in LANGUAGES.values() if entry.iso639_3]
    assert len(codes) == len(set(codes)) == 165


@pytest.mark.parametrize(
    ("code", "iso", "word"),
    [
        ("als", "gsw", "Alemannic"),
        ("sh", "hbs", "Latin script"),
        ("bh", None, "group code"),
        ("nah", None, "group code"),
        ("eml", "eml", "retired in 2009"),
        ("no", "nor", "Bokmål"),
        ("ku", "kur", "Kurmanji"),
        ("tl", "fil", "Tagalog"),
    ],
)
def test_codes_that_mislead_say_so(code: str, iso: str | None, word: str) -> None:
    assert language(code).iso639_3 == iso
    assert word in language(code).note


@pytest.mark.parametrize(
    ("code", "scripts"),
    [
        ("zh", {"Hani"}),
        ("yue", {"Hani"}),
        ("ja", {"Hani", "Hira", "Kana"}),
        ("ko", {"Hang", "Hani"}),
        ("sr", {"Cyrl", "Latn"}),
        ("sh", {"Latn"}),
        ("uz", {"Latn", "Cyrl", "Arab"}),
        ("ckb", {"Arab"}),
        ("mn", {"Cyrl", "Mong"}),
        ("de", {"Latn"}),
    ],
)
def test_scripts_that_characters_have(code: str, scripts: set[str]) -> None:
    assert unicode_scripts(code) == scripts


def test_no_character_has_a_writing_system_as_its_script() -> None:
    assert not {"Hans", "Hant", "Jpan", "Kore"} & {script for code in LANGUAGES for script in unicode_scripts(code)}


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("deu", "de"),
        ("English", "en"),
        ("gsw", "als"),
        ("pt_BR", "pt"),
        ("zh-Hans", "zh"),
        ("ckbb", "ckb"),
        ("EN", "en"),
    ],
)
def test_unknown_code_is_led_to_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match=f"'{wrong}'.*'{nearest}'"):
        language(wrong)


@pytest.mark.parametrize("wrong", ["", "q", "日本語", "\n"])
def test_any_wrong_code_is_refused_with_a_valid_one(wrong: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        unicode_scripts(wrong)
    assert any(f"{code!r} (" in str(refusal.value) for code in LANGUAGES)


def test_table_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        language("en").name = "Anglish"  # type: ignore[misc]
    assert not hasattr(LANGUAGES, "__setitem__")
    assert not hasattr(Language, "__dict__") or "__slots__" in vars(Language)


def test_import_reads_nothing_and_loads_nothing_heavy() -> None:
    probe = (
        "import sys, lola_data.languages as m; "
        "heavy = {'csv', 'importlib.resources', 'difflib', 'numpy', 'pyarrow', 'polars', 'torch'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy or m.LANGUAGES._table is not None else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
