"""The embedded corpus against what its README promises; every plant is checked with code of this file alone."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES, unicode_scripts
from lola_data.sample_corpus import Plant, PlantKind, planted, sample_root

if TYPE_CHECKING:
    from pathlib import Path

ROOT = sample_root()
MODEL = ROOT.parent / "lid.176.ftz"
SCHEMA = pa.schema([("text", pa.string()), ("timestamp", pa.string()), ("url", pa.string()), ("source", pa.string())])

# Letters of scripts written without spaces; each with its marks is a word.
ALONE = (
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-"
    r"\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


@cache
def rows(lang: str, file: str) -> list[dict[str, Any]]:
    return pq.read_table(ROOT / lang / file).to_pylist()


@cache
def shards() -> list[tuple[str, str]]:
    return [(path.parent.name, path.name) for path in sorted(ROOT.glob("*/*.parquet"))]


@cache
def plants() -> list[Plant]:
    return planted()


def of_kind(*kinds: PlantKind) -> list[Plant]:
    return [plant for plant in plants() if plant.kind in kinds]


def text(plant: Plant) -> str:
    return rows(plant.lang, plant.file)[plant.row]["text"]


def original(plant: Plant) -> dict[str, Any]:
    assert plant.of_file is not None
    assert plant.of_row is not None
    return rows(plant.lang, plant.of_file)[plant.of_row]


def word_list(value: str) -> list[str]:
    """Another way to the same words than the builder's: classes spelled out as letters, then one regular expression."""
    folded = unicodedata.normalize("NFC", value.casefold())
    kinds = []
    for character in folded:
        category = unicodedata.category(character)
        if category == "Cf" and character != "\u200b":
            kinds.append("f")
        elif category[0] == "M":
            kinds.append("m")
        elif category[0] not in "LN":
            kinds.append(" ")
        elif category != "Nd" and re.match(ALONE, character):
            kinds.append("c")
        else:
            kinds.append("l")
    found = []
    for match in re.finditer(r"l[lmf]*|c[mf]*", "".join(kinds)):
        start, end = match.span()
        found.append("".join(c for c, kind in zip(folded[start:end], kinds[start:end], strict=True) if kind != "f"))
    return found


def shingle_set(value: str) -> set[tuple[str, ...]]:
    sequence = word_list(value)
    return {tuple(sequence[at : at + 5]) for at in range(len(sequence) - 4)}


def jaccard(a: str, b: str) -> float:
    left, right = shingle_set(a), shingle_set(b)
    return len(left & right) / len(left | right)


def test_word_list_by_hand() -> None:
    assert word_list("Straße, ΟΔΟΣ  x2\u00ad3!") == ["strasse", "οδοσ", "x23"]
    assert word_list("a漢字kana かな") == ["a", "漢", "字", "kana", "か", "な"]
    assert word_list("น้ำ, \u0e49ก") == ["น้", "ำ", "ก"]


def test_size() -> None:
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) <= 6_000_000


def test_shape_of_every_shard() -> None:
    for lang, file in shards():
        parquet = pq.ParquetFile(ROOT / lang / file)
        assert parquet.schema_arrow == SCHEMA, file
        assert re.fullmatch(rf"{lang}_part_\d{{5}}\.parquet", file)
        groups = [parquet.metadata.row_group(at).num_rows for at in range(parquet.num_row_groups)]
        assert all(size == 100 for size in groups[:-1]), file
        assert 0 < groups[-1] <= 100, file
        assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
    parts = Counter(lang for lang, _ in shards())
    assert sum(count == 2 for count in parts.values()) >= 8
    for lang, count in parts.items():
        assert [file for other, file in shards() if other == lang] == [
            f"{lang}_part_{at:05d}.parquet" for at in range(count)
        ]


def test_languages_and_scripts() -> None:
    misplaced = {(plant.lang, plant.file, plant.row) for plant in plants()}
    found = Counter(
        lang for lang, file in shards() for at in range(len(rows(lang, file))) if (lang, file, at) not in misplaced
    )
    assert set(found) <= set(LANGUAGES)
    assert len(found) == 103
    assert len({script for lang in found for script in unicode_scripts(lang)}) >= 12
    assert sum(count >= 260 for count in found.values()) == 17
    assert min(found.values()) >= 15


def test_letters_are_of_the_script_of_the_language() -> None:
    # First word of the Unicode name of a letter, by ISO 15924 code.
    names = {
        "Arab": "ARABIC", "Armn": "ARMENIAN", "Beng": "BENGALI", "Cyrl": "CYRILLIC", "Deva": "DEVANAGARI",
        "Ethi": "ETHIOPIC", "Geor": "GEORGIAN", "Grek": "GREEK", "Gujr": "GUJARATI", "Guru": "GURMUKHI",
        "Hang": "HANGUL", "Hani": "CJK", "Hebr": "HEBREW", "Khmr": "KHMER", "Knda": "KANNADA", "Laoo": "LAO",
        "Mlym": "MALAYALAM", "Mymr": "MYANMAR", "Sinh": "SINHALA", "Taml": "TAMIL", "Telu": "TELUGU",
        "Thaa": "THAANA", "Thai": "THAI", "Tibt": "TIBETAN", "Hira": "HIRAGANA", "Kana": "KATAKANA",
    }  # fmt: skip
    for lang in sorted({lang for lang, _ in shards()}):
        own = {names.get(script, "LATIN") for script in unicode_scripts(lang)}
        body = "".join(row["text"] for row in rows(lang, f"{lang}_part_00000.parquet")[:12])
        letters = [unicodedata.name(character, "?").split()[0] for character in body if character.isalpha()]
        assert sum(name in own for name in letters) > len(letters) / 2, lang


def test_rows_look_like_culturax() -> None:
    sources = {"mC4", "OSCAR-2019", "OSCAR-2109", "OSCAR-2201", "OSCAR-2301"}
    for lang, file in shards():
        for row in rows(lang, file):
            assert row["source"] in sources
            assert row["text"].strip()
            assert (row["url"] is None) == (row["timestamp"] is None) == (row["source"] == "OSCAR-2019")
            if row["url"] is not None:
                assert urlsplit(row["url"]).netloc, row["url"]
                assert re.fullmatch(r"20[12]\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ", row["timestamp"])


def test_no_address_twice_but_where_planted() -> None:
    shared = Counter(original(plant)["url"] for plant in of_kind("same_url"))
    seen: Counter[str] = Counter()
    for lang, file in shards():
        seen.update(row["url"] for row in rows(lang, file) if row["url"])
    assert {url: count for url, count in seen.items() if count > 1} == dict.fromkeys(shared, 2)
    # Nor do two addresses differ only in ways that some tools wipe out.
    bare = Counter(re.sub(r"^https?://(www\.)?|#.*$|/$", "", url.lower()) for url in seen)
    assert max(bare.values()) == 1


def test_licence_and_origin_of_every_row() -> None:
    terms = {
        "udhr": "free of copyright",
        "libreoffice-help": "MPL-2.0",
        "gnome-user-docs": "CC-BY-SA-3.0",
        "mozilla-legal-docs": "CC-BY-SA-3.0",
        "contributor-covenant": "CC-BY-4.0",
        "thaigov-corpus": "public domain",
    }
    with gzip.open(ROOT / "provenance.tsv.gz", "rt", encoding="utf-8", newline="") as lines:
        provenance = list(csv.DictReader(lines, delimiter="\t"))
    for row in provenance:
        assert terms[row["origin"]] == row["licence"]
    listed = [(row["lang"], row["file"], int(row["row"])) for row in provenance]
    assert sorted(listed) == [(lang, file, at) for lang, file in shards() for at in range(len(rows(lang, file)))]
    assert {(row["plant"], row["lang"], row["file"], int(row["row"])) for row in provenance if row["plant"]} == {
        (plant.kind, plant.lang, plant.file, plant.row) for plant in plants()
    }
    notice = (ROOT / "NOTICE.md").read_text(encoding="utf-8")
    assert all(f"`{origin}`" in notice for origin in terms)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("MPL-2.0.txt", "Mozilla Public License Version 2.0"),
        ("CC-BY-SA-3.0.txt", "Attribution-ShareAlike 3.0 Unported"),
        ("CC-BY-4.0.txt", "Creative Commons Attribution 4.0 International"),
        ("MIT-udhr.txt", "The MIT License"),
    ],
)
def test_licence_text_lies_beside_the_files(name: str, phrase: str) -> None:
    assert phrase in " ".join((ROOT / f"LICENSE-{name}").read_text(encoding="utf-8").split())
    assert f"LICENSE-{name}" in (ROOT / "NOTICE.md").read_text(encoding="utf-8")


def test_embedded_model_is_the_published_one() -> None:
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert digest == "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
    notice = MODEL.with_name("lid.176.ftz.NOTICE.md").read_text(encoding="utf-8")
    assert digest in notice
    assert "Attribution-ShareAlike 3.0" in notice


def test_how_much_was_planted() -> None:
    counts = Counter(plant.kind for plant in plants())
    assert counts["exact_copy"] >= 40
    assert counts["normalised_copy"] >= 20
    assert sum(plant.jaccard is not None and plant.jaccard >= 0.9 for plant in of_kind("near_duplicate")) >= 60
    assert sum(plant.jaccard is not None and plant.jaccard < 0.4 for plant in of_kind("decoy")) >= 30
    assert counts["same_url"] >= 30
    assert counts["wrong_language"] >= 50
    assert counts["wrong_language_short"] >= 10
    for kind in get_args(PlantKind):
        assert len({plant.lang for plant in of_kind(kind)}) >= 8, kind
        assert len({script for plant in of_kind(kind) for script in unicode_scripts(plant.lang)}) >= 6, kind
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind, count in counts.items():
        assert f"| `{kind}` | {count} |" in readme


def test_every_plant_has_its_own_row_and_original() -> None:
    places = [(plant.file, plant.row) for plant in plants()]
    originals = [(plant.of_file, plant.of_row) for plant in plants() if plant.of_file]
    assert len(set(places + originals)) == len(places) + len(originals)
    for plant in plants():
        if plant.of_file is None or plant.of_row is None:
            assert plant.kind.startswith("wrong_language")
        else:
            assert (plant.of_file, plant.of_row) < (plant.file, plant.row)


def test_exact_copies() -> None:
    for plant in of_kind("exact_copy"):
        assert text(plant) == original(plant)["text"]
        assert rows(plant.lang, plant.file)[plant.row]["url"] != original(plant)["url"]


def test_normalised_copies_differ_in_white_space_and_case_alone() -> None:
    for plant in of_kind("normalised_copy"):
        before = original(plant)["text"]
        assert text(plant) != before
        assert " ".join(text(plant).casefold().split()) == " ".join(before.casefold().split())
        assert word_list(text(plant)) == word_list(before)


def test_similarity_of_near_duplicates_and_decoys() -> None:
    for plant in of_kind("near_duplicate", "decoy", "same_url"):
        assert plant.jaccard == pytest.approx(jaccard(text(plant), original(plant)["text"]), abs=1e-6), plant
    near = [plant.jaccard for plant in of_kind("near_duplicate") if plant.jaccard]
    assert all(0.9 <= value < 0.97 for value in near)
    assert sum(value >= 0.94 for value in near) == sum(value < 0.93 for value in near) == len(near) / 2


def test_decoys_open_like_their_original_and_go_on_differently() -> None:
    for plant in of_kind("decoy"):
        ours, theirs = text(plant).split("\n"), original(plant)["text"].split("\n")
        assert ours[:2] == theirs[:2]
        assert ours[-1] != theirs[-1]
        assert plant.jaccard is not None
        assert 0.1 <= plant.jaccard < 0.35


def test_shared_addresses() -> None:
    for plant in of_kind("same_url"):
        again = rows(plant.lang, plant.file)[plant.row]
        assert again["url"] == original(plant)["url"] is not None
        assert again["timestamp"] > original(plant)["timestamp"]
        assert plant.jaccard is not None
        assert plant.jaccard < 0.4


def test_nothing_else_is_alike() -> None:
    """Any other pair of one language has less than 0.4 of its shingles in common, so a removal there is a mistake."""
    expected = {
        frozenset({(plant.file, plant.row), (plant.of_file, plant.of_row)})
        for plant in of_kind("exact_copy", "normalised_copy", "near_duplicate")
    }
    alike: set[frozenset[tuple[str, int]]] = set()
    for lang in ("de", "en", "ko", "ja", "sr", "hi", "ar", "my", "wuu", "uk"):
        holders: dict[int, list[int]] = defaultdict(list)
        sets: list[tuple[tuple[str, int], set[int]]] = []
        for other, file in shards():
            if other != lang:
                continue
            for at, row in enumerate(rows(lang, file)):
                mine = {hash(shingle) for shingle in shingle_set(row["text"])}
                shared = Counter(index for shingle in mine for index in holders.get(shingle, ()))
                for index, count in shared.items():
                    if count >= 0.4 * len(mine | sets[index][1]):
                        alike.add(frozenset({(file, at), sets[index][0]}))
                for shingle in mine:
                    holders[shingle].append(len(sets))
                sets.append(((file, at), mine))
        assert alike == {pair for pair in expected if all(file.split("_")[0] == lang for file, _ in pair if file)}
        alike.clear()


@cache
def model() -> Any:
    return fasttext.load_model(str(MODEL))


def label(value: str) -> tuple[str, float]:
    labels, scores = model().predict([" ".join(value.split())])
    return labels[0][0].removeprefix("__label__"), float(scores[0][0])


def test_misfiled_documents_can_be_told() -> None:
    close = [
        {"hr", "bs", "sr", "sh"}, {"id", "ms", "jv", "su", "min"}, {"zh", "yue", "wuu"}, {"no", "nn", "da"},
        {"az", "azb"},
        {"hi", "bh", "mai", "ne", "mr"}, {"cs", "sk"}, {"es", "gl", "pt", "ast"}, {"uk", "be", "ru", "bg", "mk"},
    ]  # fmt: skip
    told = []
    for plant in of_kind("wrong_language", "wrong_language_short"):
        assert plant.true_lang in LANGUAGES
        assert plant.true_lang != plant.lang
        assert not any({plant.true_lang, plant.lang} <= group for group in close)
        if plant.kind == "wrong_language":
            assert len(text(plant)) >= 500
            told.append(label(text(plant))[0] == plant.true_lang)
        else:
            assert 40 <= len(text(plant)) <= 160
    assert sum(told) >= 0.95 * len(told)


def test_large_languages_stay_large_when_misnamed_documents_go() -> None:
    added = {(plant.file, plant.row) for plant in plants()}
    found: dict[str, list[str]] = defaultdict(list)
    for lang, file in shards():
        found[lang] += [row["text"] for at, row in enumerate(rows(lang, file)) if (file, at) not in added]
    large = [lang for lang, texts in found.items() if len(texts) >= 260]
    assert len(large) == 17
    # The smallest of them, and those with the most English left in their pages.
    for lang in ("en", "ko", "km", "fi", "id"):
        assert lang in large
        assert sum(label(value)[0] == lang for value in found[lang]) >= 260, lang


def test_missing_sample_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lola_data.sample_corpus.files", lambda _: tmp_path)
    with pytest.raises(ShardError, match="reinstall"):
        sample_root()
    folder = tmp_path / "resources" / "sample"
    folder.mkdir(parents=True)
    (folder / "planted.tsv").write_text(
        "kind\tlang\tfile\trow\tof_file\tof_row\tjaccard\ttrue_lang\nodd\t\t\t\t\t\t\t\n"
    )
    with pytest.raises(ShardError, match=r"line 2.*'odd'"):
        planted()
