"""Commands ``lid train`` and ``lid evaluate``: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from lola_data.cli import EntryPointGroup
from lola_data.lid.cli import lid as command
from tests.lola_data.lid.test_identifier import ARTICLE_1

if TYPE_CHECKING:
    from pathlib import Path

    import click


def run(*arguments: object) -> Result:
    """The command as the console script runs it."""

    class Group(EntryPointGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return command

    return CliRunner().invoke(Group("lola-data"), ["lid", *map(str, arguments)])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Article 1 in twelve languages, and a German one filed as Swahili."""
    path = tmp_path / "rows.tsv"
    lines = ["text\tlang\tkind", *(f"{text}\t{code}\tarticle" for code, text in ARTICLE_1.items())]
    path.write_text("\n".join([*lines, f"{ARTICLE_1['de']}\tsw\tmisfiled"]) + "\n", encoding="utf-8")
    return path


def test_evaluate_prints_the_tables_and_writes_the_scores(rows: Path, tmp_path: Path) -> None:
    result = run("evaluate", "lid.176.ftz", "--data", rows, "--csv", tmp_path / "scores.tsv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("13 texts in 13 languages\n")
    assert "most frequent mistakes of lid.176.ftz: sw as de 1" in result.stdout
    assert "\x1b" not in result.stdout
    assert "written:" in result.stderr
    with (tmp_path / "scores.tsv").open(encoding="utf-8") as lines:
        found = {row["code"]: row for row in csv.DictReader(lines, delimiter="\t")}
    assert found["sw"]["taken_for"] == "de 1"
    assert found["de"]["precision"] == "0.5000"
    assert run("evaluate", "lid.176.ftz", "--data", rows, "--csv", tmp_path / "scores.csv").exit_code == 0
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").startswith("data,model,code,")


def test_evaluate_json_and_where(rows: Path) -> None:
    result = run("evaluate", "lid.176.ftz", "--data", rows, "--json", "--where", "kind = 'article'")
    document = json.loads(result.stdout)
    assert document["models"][0]["accuracy"] == 1.0
    assert document["data"]["texts"] == 12
    assert document["data"]["where"] == "kind = 'article'"


def test_labels_that_nobody_knows_are_told(rows: Path) -> None:
    with rows.open("a", encoding="utf-8") as lines:
        lines.write(f"{ARTICLE_1['de']}\tgermn\tarticle\n{ARTICLE_1['fr']}\txho_Latn\tarticle\n")
    told = run("evaluate", "lid.176.ftz", "--data", rows).stdout.splitlines()[1]
    assert told.endswith("so their texts count as missed: germn (1), xho_Latn (1)")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("evaluate", "lid.176", "--data", "rows.tsv"),
            2,
            "MODEL: 'lid.176' is neither a file nor one of the registered models",
        ),
        (("evaluate", "lid.176.ftz"), 2, "Missing option '--data'"),
        (("evaluate", "--data", "rows.tsv"), 2, "Missing argument 'MODEL...'"),
        (("evaluate", "lid.176.ftz", "--data", "none.tsv"), 1, "none.tsv: no such file"),
        (
            ("evaluate", "lid.176.ftz", "--data", "rows.tsv", "--label-column", "code"),
            1,
            "its columns are text, lang, kind",
        ),
        (("evaluate", "lid.176.ftz", "--data", "rows.tsv", "--where", "kind ="), 2, "not a condition in SQL"),
        (("evaluate", "lid.176.ftz", "--data", "rows.tsv", "--csv", "rows.tsv/x"), 1, "cannot be written"),
        (("train", "--data", "rows.tsv", "--out", "m.bin", "--minn", "5"), 2, "--minn 5 is above --maxn 4"),
        (("train", "--data", "none", "--out", "m.bin"), 1, "none: no such file or folder"),
        (("train", "--data", "rows.tsv", "--out", "m.bin", "--alpha", "2"), 2, "Invalid value for '--alpha'"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_leaves_nothing(
    rows: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(rows.parent)
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert sorted(path.name for path in rows.parent.iterdir()) == ["rows.tsv"]


def test_train_then_evaluate_then_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"__label__{code} {text}" for code, text in ARTICLE_1.items() for _ in range(12)]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    options = (
        "--bucket",
        5000,
        "--epochs",
        20,
        "--lr",
        1,
        "--held-out",
        0,
        "--min-count",
        1,
        "--licence",
        "public domain",
    )
    result = run("train", "--data", "lines.txt", "--out", "own.bin", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("own.bin: 12 languages, ")
    assert "card: own.bin.json" in result.stdout
    assert json.loads((tmp_path / "own.bin.json").read_text(encoding="utf-8"))["licence"] == "public domain"
    before = (tmp_path / "own.bin").read_bytes()
    refused = run("train", "--data", "lines.txt", "--out", "own.bin", *options)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert run("train", "--data", "lines.txt", "--out", "own.bin", *options, "--force").exit_code == 0
    assert (tmp_path / "own.bin").read_bytes() == before
    compared = json.loads(run("evaluate", "own.bin", "lid.176.ftz", "--data", "lines.txt", "--json").stdout)
    assert [model["macro_f1"] for model in compared["models"]] == [1.0, 1.0]
    (difference,) = compared["differences"]
    assert (difference["of"], difference["from"]) == ("lid.176.ftz", "own.bin")


def test_help_shows_examples() -> None:
    for name in ("train", "evaluate"):
        text = run(name, "--help").stdout
        assert f"lola-data lid {name}" in text
        assert "\x0c" not in text
