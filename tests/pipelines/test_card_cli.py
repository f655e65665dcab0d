"""Command ``card``: what it writes and where, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.console import lola
from tests.pipelines.card_run import finished_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory)


@pytest.fixture
def work(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "work")
    return tmp_path / "work"


def includes(folder: Path) -> list[str]:
    return json.loads((folder / "croissant.json").read_text())["distribution"][0]["includes"]


def test_both_files_and_a_word_of_what_is_lacking(work: Path) -> None:
    outcome = lola("card", work)
    assert (outcome.code, outcome.stdout) == (0, "")
    assert f"written: {work}/README.md, {work}/croissant.json" in outcome.stderr
    assert "you may add: --url, --creator, --date-published, --license" in outcome.stderr
    first = {name: (work / name).read_bytes() for name in ("README.md", "croissant.json")}
    assert lola("card", work).code == 0
    assert {name: (work / name).read_bytes() for name in first} == first
    assert not list(work.rglob("*.tmp"))
    assert str(work.parent).encode() not in first["README.md"] + first["croissant.json"]


def test_json_says_what_was_written(work: Path) -> None:
    outcome = lola("card", work, "--json", "--license", "ODC-By-1.0", "--date-published", "2024-05-06")
    manifest = json.loads((work / "sampled/manifest.json").read_text())
    tokens = json.loads((work / "tokens/manifest.json").read_text())
    assert json.loads(outcome.stdout) == {
        "card": f"{work}/README.md",
        "croissant": f"{work}/croissant.json",
        "stage": "sample",
        "languages": 2,
        "documents": manifest["totals"]["out"]["documents"],
        "bytes": manifest["totals"]["out"]["bytes"],
        "tokens": tokens["totals"]["out"]["tokens"],
        "lacking": ["url", "creator"],
        "left_out": [],
    }


@pytest.mark.parametrize(
    ("path", "out", "shards"),
    [
        ("", None, "sampled/en/*.parquet"),
        ("", "sampled", "en/*.parquet"),
        ("sampled", None, "en/*.parquet"),
        ("sampled", ".", "sampled/en/*.parquet"),
        ("deduped", "../elsewhere", "en/*.parquet"),
    ],
)
def test_paths_are_relative_to_the_folder_of_the_card(
    work: Path, monkeypatch: pytest.MonkeyPatch, path: str, out: str | None, shards: str
) -> None:
    monkeypatch.chdir(work)
    outcome = lola("card", path or ".", *(["--out", out] if out else []))
    assert outcome.code == 0, outcome.stderr
    folder = work / (out or path)
    assert includes(folder)[0] == shards
    assert f"path: {shards}\n" in (folder / "README.md").read_text()
    tokens = "tokens/train/" in (folder / "croissant.json").read_text()
    assert tokens == (folder.resolve() == work)


def test_a_downloaded_tree(tmp_path: Path) -> None:
    tree = tmp_path / "shards"
    assert lola("download", "--source", "sample", "--languages", "cy,yo", "--dest", tree).code == 0
    outcome = lola("card", tree, "--json")
    told = json.loads(outcome.stdout)
    assert (told["stage"], told["languages"], told["bytes"], told["tokens"]) == ("download", 2, None, None)
    assert includes(tree) == ["cy/*.parquet", "yo/*.parquet"]
    assert lola("verify", tree).code == 0


def test_a_citation_file_is_named(work: Path) -> None:
    (work / "CITATION.cff").write_text("cff-version: 1.2.0\n")
    assert lola("card", work).code == 0
    assert "Cite this dataset as [CITATION.cff](CITATION.cff) says." in (work / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "croissant.json"])
def test_what_others_wrote_is_left_alone(work: Path, name: str) -> None:
    (work / name).write_text("{}")
    outcome = lola("card", work)
    assert outcome.code == 1
    assert outcome.message.startswith(f"{work}/{name}: is there already and was not written by `lola-data card`")
    assert [path.name for path in work.iterdir() if path.is_file()] == [name]
    assert (work / name).read_text() == "{}"


def test_a_run_goes_on_after_it(work: Path) -> None:
    assert lola("card", work / "sampled").code == 0
    outcome = lola("card", work)
    assert outcome.code == 0, outcome.stderr
    recipe = work.parent / "recipe.yaml"
    recipe.write_text(
        f"workdir: {work}\nlanguages: [en, yo]\ndownload: {{source: sample}}\nsample: {{total: 150000}}\n"
    )
    outcome = lola("run", recipe, "--only", "sample")
    assert "sample: up to date" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["nowhere"], "nowhere: no such folder", 1),
        (["empty"], "empty: no manifest.json of a tree of text", 1),
        (["work/tokens"], "work/tokens: not a tree of text (tokenize); name its work folder", 1),
        (["work", "--license", "see below"], "card: --license see below: not an SPDX identifier", 2),
        (["work", "--url", "example.org"], "card: --url example.org: not a web address", 2),
        (["work", "--name", "a\nb"], "card: --name", 2),
        (["work", "--creator", " "], "card: --creator", 2),
    ],
)
def test_faults_are_told(
    work: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str, code: int
) -> None:
    monkeypatch.chdir(work.parent)
    (work.parent / "empty").mkdir()
    outcome = lola("card", *words)
    assert outcome.code == code
    assert message in outcome.message
    assert not (work / "README.md").exists()


def test_a_damaged_manifest_is_named(work: Path) -> None:
    path = work / "deduped/manifest.json"
    path.write_text('{"stage": "dedup"}')
    outcome = lola("card", work)
    assert outcome.code == 1
    assert outcome.message.startswith(f"{path}: not the manifest of the stage `dedup`")
    path.write_text("{")
    assert f"{path}: not valid JSON" in lola("card", work).message
