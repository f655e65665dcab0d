"""Every form of labelled text gives the same rows; what is not of that form is refused by file and line."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import LolaError, RecipeError, ShardError
from lola_data.lid.labelled import read_labelled

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    ("Guten Tag", "deu_Latn"),
    ('Er sagte "ja"', "de"),
    ("Habari za asubuhi", "swh_Latn"),
    ("Të gjithë", "als_Latn"),
    ("Älli Mensche", "als"),
    ("Molweni", "xho_Latn"),
]
CODES = ["de", "de", "sw", "sq", "als", "xho_Latn"]
"""Alemannic is CulturaX's als; with a script behind it, als is Tosk Albanian. Xhosa is not in CulturaX."""


def write(path: Path, rows: list[tuple[str | None, str | None]], text: str = "text", label: str = "lang") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({text: [row[0] for row in rows], label: [row[1] for row in rows], "n": range(len(rows))}), path
        )
    elif path.suffix == ".tsv":
        lines = [f"n\t{text}\t{label}", *(f"{at}\t{row[0] or ''}\t{row[1] or ''}" for at, row in enumerate(rows))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("".join(f"__label__{row[1]} {row[0]}\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(
            "".join(json.dumps({text: row[0], label: row[1], "n": at}) + "\n" for at, row in enumerate(rows))
        )
    return str(path)


def rows_of(*paths: str, **options: str) -> list[tuple[str, str]]:
    data = read_labelled(paths, **options)  # type: ignore[arg-type]
    return list(zip(data.text.to_pylist(), data.label.to_pylist(), strict=True))


@pytest.mark.parametrize("name", ["a.parquet", "a.tsv", "a.jsonl", "a.ndjson", "a.txt"])
def test_every_form_gives_the_same(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)  # type: ignore[arg-type]
    data = read_labelled([path])
    assert data.text.to_pylist() == [text for text, _ in ROWS]
    assert data.label.to_pylist() == CODES
    assert data.text.type == pa.large_string()
    (source,) = data.sources
    content = (tmp_path / name).read_bytes()
    assert (source.files, source.rows, source.bytes) == (1, 6, len(content))
    assert source.sha256 == hashlib.sha256(content).hexdigest()


def test_a_tree_is_labelled_by_its_folders(tmp_path: Path) -> None:
    for lang, name, texts in (
        ("sw", "b", ["moja"]),
        ("de", "a", ["eins", "zwei"]),
        ("de", "b", ["drei"]),
        ("ekk_Latn", "a", ["üks"]),
    ):
        (tmp_path / lang).mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": texts, "lang": ["xx"] * len(texts)}), tmp_path / lang / f"{name}.parquet")
    pq.write_table(pa.table({"licence": ["MIT"]}), tmp_path / "licences.parquet")
    data = read_labelled([f"{tmp_path}/"])
    assert data.text.to_pylist() == ["eins", "zwei", "drei", "üks", "moja"]
    assert data.label.to_pylist() == ["de", "de", "de", "et", "sw"]
    (source,) = data.sources
    assert (source.files, source.rows) == (4, 5)
    digests = "".join(
        f"{hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()}  {path}\n"
        for path in ("de/a.parquet", "de/b.parquet", "ekk_Latn/a.parquet", "sw/b.parquet")
    )
    assert source.sha256 == hashlib.sha256(digests.encode()).hexdigest()


@pytest.mark.parametrize("name", ["a.parquet", "a.tsv", "a.jsonl"])
def test_columns_by_name_conditions_and_rows_without(tmp_path: Path, name: str) -> None:
    rows = [("Guten Tag", "de"), (None, "de"), ("Habari", None), ("  ", "sw"), ("Habari zenu", "sw"), ("ja", "de")]
    rows += [("?!", "und_Latn"), ("?!", "und")]
    path = write(tmp_path / name, rows, text="content", label="code")
    data = read_labelled([path], text_column="content", label_column="code")
    assert data.text.to_pylist() == ["Guten Tag", "Habari zenu", "ja"]
    assert data.left_out == 5
    where = "code = 'de' and length(content) > 2"
    data = read_labelled([path], text_column="content", label_column="code", where=where)
    assert data.text.to_pylist() == ["Guten Tag"]
    assert data.described()["where"] == where
    assert rows_of(path, text_column="content", label_column="code", where="cast(n as int) = 5") == [("ja", "de")]


def test_several_are_joined_in_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.tsv", [("eins", "de")]), write(tmp_path / "b.jsonl", [("moja", "sw")])
    assert rows_of(second, first) == [("moja", "sw"), ("eins", "de")]


def test_dictionaries_and_large_strings_are_text_too(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["eins"], pa.large_string()), "lang": pa.array(["de"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows_of(str(tmp_path / "a.parquet")) == [("eins", "de")]


def test_nothing_given_missing_or_of_another_form(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,lang\n")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (str(tmp_path / "none.parquet"), "no such file"),
        (str(tmp_path / "none"), "no such file or folder"),
        (str(tmp_path / "a.csv"), "of a form that is not read here"),
        (str(tmp_path / "empty"), r"no <lang>/\*\.parquet in it"),
    ):
        with pytest.raises(ShardError, match=message):
            read_labelled([path])
    with pytest.raises(RecipeError, match="--data"):
        read_labelled([])
    path = write(tmp_path / "b.tsv", [("eins", "de")])
    with pytest.raises(RecipeError, match=r"no labelled text in it.*does not hold"):
        read_labelled([path], where="lang = 'sw'")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"__label__de Guten Tag\nHabari\n", "line 2 does not begin with __label__"),
        ("a.txt", b"\n__label__de __label__sw beides\n", "line 2 has two labels"),
        ("a.txt", b"__label__de gut\n__label__de \xff\n", "line 2 is not valid UTF-8"),
        (
            "a.tsv",
            b"text\tcode\neins\tde\n",
            "no column `lang`; its columns are text, code: name one with --label-column",
        ),
        ("a.tsv", b"content\tlang\neins\tde\n", "no column `text`.*--text-column"),
        ("a.tsv", b"text\tlang\neins\tde\tx\ty\n", "expected a header"),
        ("a.tsv", b"", "expected a header"),
        ("a.tsv", b"text\tlang\neins\tde und sw\n", "'de und sw' is no label"),
        (
            "a.jsonl",
            b'{"text": "eins", "lang": "de"}\n{"text": \n',
            "line 2 is not JSON .*JSON object a line",
        ),
        ("a.jsonl", b'{"text": "eins", "lang": "de"}\n\n["zwei", "de"]\n', "line 3 is not an object"),
        ("a.jsonl", b'{"text": 5, "lang": "de"}\n', "column `text` is Int64, not text"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1 is not valid UTF-8"),
        ("a.parquet", b"PAR1 no", "not a complete Parquet file"),
    ],
)
def test_refusals_name_the_file_and_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LolaError, match=message) as error:
        read_labelled([str(tmp_path / name)])
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_columns_that_hold_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "lang": ["de", "de"]}), path)
    with pytest.raises(ShardError, match=r"column `text` is int64, not string"):
        read_labelled([str(path)])
    bad = pa.array([b"gut", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad, "lang": ["de", "de"]}), path)
    with pytest.raises(ShardError, match=r"row 1: column `text` is not valid UTF-8"):
        read_labelled([str(path)])


@pytest.mark.parametrize("where", ["kind =", "length(", "no_such_function(text)"])
def test_conditions_that_are_no_sql(tmp_path: Path, where: str) -> None:
    path = write(tmp_path / "a.tsv", [("eins", "de")])
    with pytest.raises(RecipeError, match="--where"):
        read_labelled([path], where=where)


def test_conditions_on_other_columns_or_of_another_type(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", [("eins", "de")])
    with pytest.raises(ShardError, match=r"no column `kind`.*--where"):
        read_labelled([path], where="kind = 'article'")
    with pytest.raises(RecipeError, match="--where"):
        read_labelled([path], where="length(text)")
