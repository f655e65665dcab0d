from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.console import lola
from tests.train.plot.conftest import train_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_files_of_one_run(make_run: Callable[..., Path]):
    run = make_run()
    outcome = lola("train", "plot", run)
    assert outcome.code == 0
    files = [run / "plots" / name for name in ("loss.png", "languages.png", "experts.png", "training.html")]
    assert all(file.stat().st_size > 1000 for file in files)
    assert outcome.stderr.splitlines() == [f"written: {file}" for file in files]
    assert outcome.stdout.splitlines()[1].split()[:4] == ["first", "20", "2,000", "123,456"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--png",), {"loss.png", "languages.png", "experts.png"}),
        (("--html", "x.html"), {"x.html"}),
        (("--png", "--html", "x.html"), {"loss.png", "languages.png", "experts.png", "x.html"}),
    ],
)
def test_what_is_written_can_be_chosen(
    make_run: Callable[..., Path], tmp_path: Path, options: tuple[str, ...], names: set[str]
):
    out = tmp_path / "out"
    named = [out / option if option.endswith(".html") else option for option in options]
    assert lola("train", "plot", make_run("a"), make_run("b"), "--out", out, *named).code == 0
    assert {file.name for file in out.iterdir()} == names


def test_json(make_run: Callable[..., Path], tmp_path: Path):
    outcome = lola("train", "plot", make_run("a"), make_run("b", summary=None), "--out", tmp_path, "--json")
    rows = json.loads(outcome.stdout)
    assert [(row["name"], row["complete"], row["step"], row["loss"]) for row in rows] == [
        ("a", True, 20, 4.5), ("b", False, 20, 4.5),
    ]  # fmt: skip


def test_a_broken_line_is_told(make_run: Callable[..., Path]):
    run = make_run(tail='{"kind":"tr')
    outcome = lola("train", "plot", run, "--png")
    assert outcome.code == 0
    assert f"{run}/metrics.jsonl: line 8 is no record; passed over" in outcome.stderr


def test_errors(make_run: Callable[..., Path], tmp_path: Path):
    run, empty = make_run(), make_run("empty", [])
    for arguments, code, words in (
        ((tmp_path / "nowhere",), 1, f"{tmp_path}/nowhere: not the folder of a run"),
        ((empty,), 1, f"{empty}/metrics.jsonl: has no records yet"),
        ((run, "--languages", "xx"), 2, "--languages xx"),
        ((run, "--languages", ","), 2, "an empty list"),
        ((run, "--out", run / "metrics.jsonl" / "x"), 1, "metrics.jsonl/x"),
    ):
        outcome = lola("train", "plot", *arguments)
        assert outcome.code == code
        assert words in outcome.message
        assert len(outcome.message.strip().splitlines()) == 1
    assert not (run / "plots").exists()
    for arguments in ((), (run, "--x", "time"), (run, "--smooth", "-1"), (run, "--out", run / "metrics.jsonl")):
        assert lola("train", "plot", *arguments).code == 2


def test_train_itself_is_as_it_was(tmp_path: Path):
    for words, code, told in (
        (("train", "--help"), 0, "Usage: lola-data train [OPTIONS] RECIPE|TREE [RUN]\n"),
        (("train", "plot", "--help"), 0, "Usage: lola-data train plot [OPTIONS] RUN..."),
        (("train",), 2, "name TREE"),
        (("train", tmp_path / "a", tmp_path / "b", "c"), 2, "unexpected extra argument"),
        (("train", tmp_path / "a", "--seed", "x", tmp_path / "b"), 2, "'x' is not a valid integer"),
        (("train", "./plot", tmp_path / "run"), 1, "make token shards first"),
    ):
        outcome = lola(*words)
        assert outcome.code == code
        assert told in outcome.stdout + outcome.stderr
    assert "plot" in lola("train", "--help").stdout.partition("Commands:")[2]


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, train.cli; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_no_warning_reaches_the_user(make_run: Callable[..., Path]):
    outcome = lola("train", "plot", make_run("名前 _x", [train_record(1, None, load={"1": [0.0, 0.0]})]), "--png")
    assert outcome.code == 0
    assert all(line.startswith("written: ") for line in outcome.stderr.splitlines())
