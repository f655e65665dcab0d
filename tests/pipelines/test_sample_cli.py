"""`lola-data sample --plan`: what it says is what the stage then does; it reads no text and writes nothing."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import storage
from lola_data.languages import LANGUAGES
from lola_data.layout import Layout
from pipelines.workdir_lock import workdir_lock
from tests.console import lola

if TYPE_CHECKING:
    from pathlib import Path

ALONE = ("--tasks", "1", "--workers", "1")
DOCUMENTS = {"de": 3000, "el": 900, "sw": 120, "yo": 7}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deduplicated shards, two of each language; text i has 1 + i % 7 letters of two bytes each."""
    root = tmp_path_factory.mktemp("corpus") / "deduped"
    for lang, documents in DOCUMENTS.items():
        for part, rows in (("a", range(documents // 3)), ("b", range(documents // 3, documents))):
            path = root / lang / f"{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.table({
                "id": [f"{lang}/{part}/{row}" for row in rows],
                "text": ["ü" * (1 + row % 7) for row in rows],
                "claimed_lang": [lang] * len(rows),
                "lang": [lang] * len(rows),
            })  # fmt: skip
            pq.write_table(table, path, row_group_size=500)
    return root


def plan(*arguments: str | Path) -> dict[str, Any]:
    """The JSON document of a plan."""
    done = lola("sample", "--plan", "--json", *arguments)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "all"),
        ("--method", "all", "--unit", "documents"),
        ("--method", "proportional", "--unit", "documents", "--total", "1000"),
        ("--method", "temperature", "--unit", "documents", "--alpha", "0.5"),
        ("--method", "unimax", "--unit", "documents", "--total", "2500", "--max-epochs", "2"),
        ("--method", "budgets", "--unit", "documents", "--budgets", "de=10", "--budgets", "sw=999"),
        ("--method", "lola-v1"),
        ("--method", "temperature", "--alpha", "0.3", "--languages", "de,el,sw"),
        ("--method", "unimax", "--total", "9000", "--max-epochs", "2"),
        ("--method", "budgets", "--budgets", "de=1001", "--budgets", "yo=3"),
    ],
)
def test_the_stage_does_what_the_plan_says(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    told = plan(tree, *options)
    done = lola("sample", tree, "--workdir", tmp_path / "work", *ALONE, *options)
    assert done.code == 0, done.stderr
    manifest = storage.read_json(str(tmp_path / "work/sampled/manifest.json"))
    rows = {row["lang"]: row for row in told["rows"]}
    assert set(rows) == set(manifest["plan"]["languages"])
    assert (told["total"], told["unspent"]) == (manifest["plan"]["total"], manifest["plan"]["unspent"])
    for lang, made in manifest["plan"]["languages"].items():
        row, taken = rows[lang], manifest["languages"][lang]["out"]["documents"]
        assert row["documents"] == DOCUMENTS[lang]
        assert row[told["unit"]] == made["available"]
        assert (row["budget"], row["target_share"], row["epochs"]) == (made["budget"], made["share"], made["epochs"])
        if told["unit"] == "documents" or row["documents_taken"] in (0, DOCUMENTS[lang]):
            assert row["documents_taken"] == taken
            assert "documents_taken" not in row["estimated"] or told["unit"] != "documents"
        else:
            # A document is in the sample with chance p = budget / available: the deviation of the binomial is
            # sqrt(n p (1 - p)), and as sizes differ by less than their mean, that of the count is no larger.
            p = made["budget"] / made["available"]
            assert abs(row["documents_taken"] - taken) <= 1 + 5 * math.sqrt(DOCUMENTS[lang] * p * (1 - p))
            assert "documents_taken" in row["estimated"]


def test_a_work_folder_is_looked_into_and_left_as_it_is(tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "deduped").symlink_to(tree)
    before = files(work)
    with workdir_lock(Layout(str(work))):
        locked = files(work)
        told = plan("--workdir", work, "--unit", "documents")
        assert files(work) == locked
    assert told["source"] == "tree"
    assert {row["lang"]: row["documents"] for row in told["rows"]} == DOCUMENTS
    assert set(before) <= set(files(work))
    assert any("has no manifest" in note for note in told["notes"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"workdir: {work}\nsample: {{method: unimax, unit: documents, total: 28}}\n")
    by_recipe = plan("--recipe", recipe)
    assert {row["lang"]: row["budget"] for row in by_recipe["rows"]} == dict.fromkeys(DOCUMENTS, 7)


def test_without_data_the_published_table_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = plan("--method", "lola-v1")
    assert told["source"] == "published"
    assert {row["lang"]: row["documents_taken"] for row in told["rows"]} == {
        code: entry.lola_v1_docs for code, entry in LANGUAGES.items()
    }
    told = plan("--workdir", tmp_path / "work", "--languages", "de,yo")
    assert [row["lang"] for row in told["rows"]] == ["de", "yo"]
    assert any("has no shards yet" in note for note in told["notes"])
    in_tokens = plan("--unit", "tokens", "--languages", "de,yo", "--method", "unimax", "--total", "200000")
    # Yoruba: 192 documents, at four epochs more than half of it; German gets the other half.
    assert [row["budget"] for row in in_tokens["rows"]] == [100_000, 100_000]
    assert in_tokens["settings"]["tokenizer"] is None
    assert not list(tmp_path.iterdir())


def test_the_table_and_the_csv_file(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "plan.csv"
    arguments = ("--plan", tree, "--unit", "documents", "--method", "proportional", "--total", "403", "--csv", target)
    done = lola("sample", *arguments)
    assert done.code == 0, done.stderr
    table, _, lines = done.stdout.partition("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["lang", "name", "documents", "share", "taken", "target", "epochs"]
    # 403 of 4027: 300.2, 90.1, 12.0 and 0.7 documents, by largest remainder.
    assert rows[2] == ["de", "German", "3,000", "74.5%", "300", "74.5%", "0.100"]
    assert [row[4] for row in rows[2:6]] == ["300", "90", "12", "1"]
    assert rows[-1][:3] == ["total", "4,027", "100.0%"]
    assert lines.startswith("plan: proportional by documents (total 403): 403 documents over 4 languages\n")
    read = list(csv.DictReader(target.read_text().splitlines()))
    assert [(row["lang"], row["documents_taken"]) for row in read] == [
        ("de", "300"), ("el", "90"), ("sw", "12"), ("yo", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--plan", "--languages", "de,xx"), 2, "language 'xx': not a CulturaX code"),
        (("--plan", "--method", "budgets"), 2, "`method: budgets` needs `budgets`"),
        (("--plan", "--method", "budgets", "--budgets", "xx=5"), 2, "sample.budgets: language 'xx'"),
        (("--plan", "--method", "unimax"), 2, "`method: unimax` needs `total`"),
        (("--plan", "--method", "lola-v1", "--unit", "bytes"), 2, "set `unit: documents`"),
        (("--plan", "--method", "lola-v1", "--unit", "tokens"), 2, "set `unit: documents`"),
        (("--plan", "nowhere"), 1, "sample: nowhere: no shards <lang>/*.parquet there"),
        (("--plan", ""), 2, "INPUT is empty"),
        (("--csv", "plan.csv", "--workdir", "work"), 2, "--csv writes the table of --plan"),
        ((), 2, "give --workdir"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lola("sample", *arguments)
    assert done.code == code
    assert message in done.message
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_budget_for_a_language_that_the_tree_lacks_is_refused(tree: Path) -> None:
    done = lola("sample", "--plan", tree, "--method", "budgets", "--budgets", "is=5")
    assert done.code == 2
    assert "no documents in is; the languages at hand are de, el, sw, yo" in done.message


def test_a_work_folder_as_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for arguments in (("--plan",), ("--workdir", tmp_path / "other")):
        done = lola("sample", tmp_path, *arguments)
        assert done.code == 2
        assert f"is a work folder: give it with --workdir, or name the tree in it, {tmp_path}/deduped" in done.message


def test_a_csv_file_that_cannot_be_written_is_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lola("sample", "--plan", tree, "--csv", tmp_path / "file" / "plan.csv")
    assert done.code == 1
    assert "plan.csv: cannot be written" in done.message
