"""`lola-data download`: a folder of one's own, plans, more of the same, and the source that is meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.console import Outcome, lola
from tests.pipelines.download_cases import corpus, read_tree, write_tree

if TYPE_CHECKING:
    from pathlib import Path

ALONE = ("--tasks", "1", "--workers", "1")
FILES = corpus({"de": 4, "sw": 1, "yo": 2})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", FILES)


def visible(dest: Path) -> set[str]:
    return {path for path in read_tree(dest) if path[0] != "."}


def download(source: Path, dest: Path, *options: str) -> Outcome:
    return lola("download", "--path", source, "--dest", dest, *ALONE, *options)


def test_shards_lie_right_in_the_folder(source: Path, tmp_path: Path) -> None:
    outcome = download(source, tmp_path / "dest", "--languages", "de,sw")
    assert outcome.code == 0, outcome.stderr
    expected = {path for path in FILES if path[:2] in ("de", "sw")}
    assert visible(tmp_path / "dest") == expected | {"manifest.json"}
    assert lola("status", tmp_path / "dest").code == 0
    # It is a tree like any other.
    assert lola("balance", tmp_path / "dest", "--json").code == 0


def test_the_same_command_again_does_nothing_and_more_goes_on(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    assert download(source, dest, "--languages", "sw").code == 0
    outcome = download(source, dest, "--languages", "sw")
    assert "up to date" in outcome.stderr
    outcome = download(source, dest, "--languages", "sw,yo")
    assert outcome.code == 0, outcome.stderr
    assert "2 of 3 units to do" in outcome.stderr
    assert visible(dest) == {path for path in FILES if path[:2] != "de"} | {"manifest.json"}
    manifest = json.loads((dest / "manifest.json").read_text())
    assert sorted(manifest["languages"]) == ["sw", "yo"]
    # And with every limit raised.
    assert download(source, dest, "--languages", "sw,yo,de", "--max-shards", "2").code == 0
    assert download(source, dest, "--languages", "sw,yo,de", "--max-shards", "3").code == 0
    assert sum(path.startswith("de/") for path in visible(dest)) == 3


def test_less_is_refused_and_redo_begins_afresh(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    write_tree(dest, {"notes.txt": b"mine"})
    assert download(source, dest).code == 0
    outcome = download(source, dest, "--languages", "sw")
    assert outcome.code == 1
    assert "not among those chosen now" in outcome.stderr
    assert visible(dest) >= set(FILES)
    outcome = download(source, dest, "--languages", "sw", "--redo")
    assert outcome.code == 0, outcome.stderr
    assert visible(dest) == {path for path in FILES if path[:2] == "sw"} | {"manifest.json", "notes.txt"}


def test_a_dry_run_plans_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    outcome = download(source, tmp_path / "dest", "--max-shards", "2", "--dry-run", "--json")
    assert outcome.code == 0, outcome.stderr
    plan = json.loads(outcome.stdout)
    sizes = {path: len(content) for path, content in FILES.items()}
    assert plan["languages"]["de"]["shards"] == 2
    assert plan["languages"]["de"]["all_shards"] == 4
    assert plan["languages"]["de"]["all_bytes"] == sum(size for path, size in sizes.items() if path[:2] == "de")
    assert plan["forecast"]["bytes"] == sum(sizes[file["path"]] for file in plan["files"])
    assert plan["forecast"]["free"] > 0
    assert not (tmp_path / "dest").exists()
    text = download(source, tmp_path / "dest", "--max-shards", "2", "--dry-run").stdout
    assert "to fetch: 5 shards of 3 languages" in text
    # The plan is what then happens.
    assert download(source, tmp_path / "dest", "--max-shards", "2").code == 0
    assert visible(tmp_path / "dest") - {"manifest.json"} == {file["path"] for file in plan["files"]}


def test_sizes_are_written_as_people_write_them(source: Path, tmp_path: Path) -> None:
    assert download(source, tmp_path / "dest", "--max-bytes", "10MB", "--dry-run").code == 0
    outcome = download(source, tmp_path / "dest", "--max-bytes", "10XB")
    assert outcome.code == 2
    assert "max_bytes" in outcome.stderr
    outcome = download(source, tmp_path / "dest", "--max-bytes", "1kB")
    assert outcome.code == 1
    assert "more than `max_bytes`" in outcome.stderr


def test_names_and_columns_from_the_command_line(tmp_path: Path) -> None:
    line = json.dumps({"content": "Guten Tag"}).encode()
    source = write_tree(tmp_path / "source", {"data/deu/a.jsonl": line})
    outcome = download(
        source, tmp_path / "dest", "--files", "data/{lang}/*", "--names", "de=deu", "--columns", "text=content"
    )
    assert outcome.code == 0, outcome.stderr
    assert visible(tmp_path / "dest") == {"de/a.parquet", "manifest.json"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--dest", "x", "--workdir", "y"), 2, "not both"),
        (("--dest", ""), 2, "--dest is empty"),
        (("--dest", "s3://b/x", "--path", "p"), 2, "a local folder is wanted"),
        (("--dest", "x", "--path", "p", "--columns", "body=text"), 2, "maps text, timestamp, url and source"),
        (("--dest", "x", "--path", "p", "--files", "data/*"), 2, "needs {lang}"),
        (("--path", "nowhere", "--dest", "x"), 1, "no such folder"),
        ((), 2, "--workdir"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lola("download", *options, *ALONE)
    assert outcome.code == code, outcome.stderr
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@host/x", "https://secret@host/x", "s3://key:secret@bucket/x", "ftp://me:secret@host/x"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    outcome = lola("download", "--path", address, "--dest", tmp_path / "d")
    assert outcome.code == 2
    assert "`download.path`: has credentials in it" in outcome.stderr
    if ":secret" in address:
        assert "secret" not in outcome.stderr
    assert not (tmp_path / "d").exists()


def test_an_address_with_an_account_is_not_taken_for_one_with_credentials(tmp_path: Path) -> None:
    outcome = lola("download", "--path", "abfs://container@account.example/x", "--dest", tmp_path / "d")
    assert "credentials in it" not in outcome.stderr


def test_an_option_is_named_as_it_was_typed(tmp_path: Path) -> None:
    outcome = lola("download", "--max-shards", "0", "--dest", tmp_path / "d")
    assert outcome.code == 2
    assert "--max-shards 0: " in outcome.stderr
    assert "--set" not in outcome.stderr


def test_all_languages_can_be_asked_for(tmp_path: Path) -> None:
    outcome = lola("download", "--source", "sample", "--languages", "all", "--dest", tmp_path / "d", "--dry-run")
    assert outcome.code == 0, outcome.stderr
