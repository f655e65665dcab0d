"""The command ``tokenizer``: train, report, encode; refusals as exit codes without a traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from lola_data.errors import LolaError, RecipeError
from lola_data.sample_corpus import sample_root
from tokenizer.cli import tokenizer
from tokenizer.encode import Encoder

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = ["--vocab-size", "1200", "--train-bytes", "100000", "--languages", "en,sw,fa"]


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(tokenizer, list(arguments), input=stdin)


def test_train_writes_a_tokenizer_and_prints_the_report(tmp_path: Path) -> None:
    result = run("train", str(sample_root()), "--out", str(tmp_path), *TRAIN)
    assert result.exit_code == 0, result.output
    assert "bytes dropped per language: 0" in result.output
    assert "came back as they were" in result.output
    assert {line.split()[0] for line in result.output.splitlines()[1:4]} == {"en", "sw", "fa"}
    assert Encoder(tmp_path / "tokenizer.model").vocab_size == 1_200


def test_train_json(tmp_path: Path) -> None:
    result = run("train", str(sample_root()), "--out", str(tmp_path), *TRAIN, "--json")
    value = json.loads(result.stdout)
    assert value["card"] == json.loads((tmp_path / "card.json").read_text("utf-8"))
    assert [row["lang"] for row in value["report"]] == ["en", "fa", "sw"]
    assert all(row["round_trip_failures"] == 0 for row in value["report"])


def test_report(model_dir: Path) -> None:
    model = str(model_dir / "tokenizer.model")
    result = run("report", model, str(sample_root()), "--languages", "de,th", "--reference", "de", "--json")
    rows = {row["lang"]: row for row in json.loads(result.stdout)}
    assert rows["de"]["parity"] == 1.0
    assert rows["th"]["tokens"] > 0
    plain = run("report", model, str(sample_root()), "--languages", "de,th", "--bytes", "1000")
    assert plain.output.startswith("language")


def test_encode(model_dir: Path, encoder: Encoder) -> None:
    model = str(model_dir / "tokenizer.model")
    text = "Habari ya ▁ dunia\n</s>"
    value = json.loads(run("encode", model, "--text", text, "--json").stdout)
    assert encoder.decode(value["ids"]) == text
    assert value["pieces"] == [encoder.piece(token) for token in value["ids"]]
    assert json.loads(run("encode", model, "--json", stdin=text.encode()).stdout) == value
    assert run("encode", model, "--text", "").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "absent", "--out", "x"], "no <lang>/<shard>.parquet"),
        (["encode", "absent.model", "--text", "x"], "absent.model: No such file"),
        (["report", "absent.model", str(sample_root())], "absent.model: No such file"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, LolaError)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked_as_in_a_recipe(tmp_path: Path) -> None:
    result = run("train", str(sample_root()), "--out", str(tmp_path), "--alpha", "3")
    assert isinstance(result.exception, RecipeError)
    assert "alpha" in str(result.exception)


def test_standard_input_that_is_not_text(model_dir: Path) -> None:
    result = run("encode", str(model_dir / "tokenizer.model"), stdin=b"ab\xff")
    assert "not valid UTF-8 at byte 2" in str(result.exception)


@pytest.mark.parametrize("command", [[], ["train"], ["report"], ["encode"]])
def test_help_has_an_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert not command or f"lola-data tokenizer {command[0]}" in result.output
