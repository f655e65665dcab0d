"""``lola-data generate``, ``evaluate`` and ``export`` as they are called, on a model of random weights."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.errors import RecipeError
from tests.train.conftest import write_tree
from tests.train.test_cli import lola_data
from tests.train.test_score import EOD, FRENCH, GERMAN, encoded, run, text_tree, tokenizer  # noqa: F401
from train.generate_cli import read_prompts
from train.prefixes import held_out_prefixes

if TYPE_CHECKING:
    from pathlib import Path

    from train.generate import LoadedRun


@pytest.fixture
def asked(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> list[object]:  # noqa: F811
    """The checkpoints that were asked for; each is the random model."""
    steps: list[object] = []
    monkeypatch.setattr("train.generate.load_run", lambda *_, step, **__: steps.append(step) or run)
    return steps


def test_many_prompts_in_their_order(asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "le chien"}\n\n{"prompt": "犬", "other": 1}\n')
    command = ("generate", tmp_path, "--prompt", "der hund", "--prompts", file, "--num", "2", "--max-tokens", "9")
    code, output, _ = lola_data(capsys, *command, "--json", "--step", "12")
    assert (code, asked) == (0, [12])
    rows = [json.loads(line) for line in output.splitlines()]
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        (prompt, sample) for prompt in ("der hund", "le chien", "犬") for sample in (0, 1)
    ]
    assert all(row["step"] == 3 and row["tokens"] <= 9 and row["ended"] == (row["tokens"] < 9) for row in rows)
    code, output, _ = lola_data(capsys, *command, "--json", "--batch-size", "1")
    assert [json.loads(line) for line in output.splitlines()] == rows
    code, output, _ = lola_data(capsys, *command)
    assert output.count("--- prompt ") == 6
    assert f"--- prompt 1, text 2\nder hund{rows[1]['continuation']}\n" in output
    code, output, _ = lola_data(capsys, "generate", tmp_path, "--prompt", "der hund", "--max-tokens", "9")
    assert output == f"der hund{rows[0]['continuation']}\n"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", b"", "no prompt in it"),
        ("p.txt", b" \n\n", "no prompt in it"),
        ("p.txt", b"good\nb\xff\n", r"line 2 is not valid UTF-8 \(byte 1\)"),
        ("p.jsonl", b'{"prompt": "a"}\nno\n', "line 2 is not JSON"),
        ("p.jsonl", b'{"prompt": 3}\n', "line 1 has no string `prompt`"),
        ("p.jsonl", b"[1]\n", "line 1 has no string `prompt`"),
        ("none.txt", None, "No such file"),
    ],
)
def test_prompt_files_that_cannot_be_used(tmp_path: Path, name: str, data: bytes | None, message: str):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=message):
        read_prompts(str(tmp_path / name))


def test_lines_of_a_prompt_file(tmp_path: Path):
    (tmp_path / "p.txt").write_bytes("\ufeffein \r\n\n zwei".encode())
    assert read_prompts(str(tmp_path / "p.txt")) == ["ein ", " zwei"]


def token_tree(run: LoadedRun, root: Path, texts: list[str]) -> Path:  # noqa: F811
    facts = {"vocab_size": run.model.vocab_size, "eod_id": EOD, "sha256": "0" * 64, "path": ""}
    docs = [[*run.tokenizer.encode(text), EOD] for text in texts]
    return write_tree(root, {"valid": {"de": [docs[:2], docs[2:]]}}, tokenizer=facts)


def test_a_language_begins_with_its_held_out_documents(
    run: LoadedRun,  # noqa: F811
    asked: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    work = tmp_path / "work"
    tree = token_tree(run, work / "tokens", [*GERMAN, ""])
    found = held_out_prefixes(tree, run, "de", num=3, tokens=4, seed=0)
    assert sorted(prefix.document for prefix in found) == [0, 1, 2]  # each once, but for the empty one
    for prefix in found:
        assert prefix.ids == run.tokenizer.encode(GERMAN[prefix.document])[:4]
        assert GERMAN[prefix.document].startswith(prefix.text)
    assert held_out_prefixes(tree, run, "de", num=2, tokens=4, seed=0) == found[:2]
    assert held_out_prefixes(tree, run, "de", num=5, tokens=4, seed=0) == [*found, *found[:2]]
    options = ("--lang", "de", "--num", "3", "--lang-tokens", "4", "--json", "--max-tokens", "3")
    code, output, _ = lola_data(capsys, "generate", work / "runs" / "moe", *options)
    rows = [json.loads(line) for line in output.splitlines()]
    assert [(row["lang"], row["document"], row["prompt"]) for row in rows] == [
        ("de", prefix.document, prefix.text) for prefix in found
    ]
    for arguments, message in (
        (("--lang", "fr"), "--lang fr: "),
        (("--lang", "de", "--prompt", "x"), "the model has no other way"),
        (("--lang", "de", "--tree", tmp_path / "none"), "make token shards first"),
    ):
        code, _, errors = lola_data(capsys, "generate", work / "runs" / "moe", *arguments)
        assert code
        assert message in errors
        assert "Traceback" not in errors
    code, _, errors = lola_data(capsys, "generate", tmp_path / "a" / "b", "--lang", "de")
    assert (code, "name it with --tree" in errors) == (2, True)


def test_a_character_is_not_cut(run: LoadedRun, tmp_path: Path):  # noqa: F811
    tree = token_tree(run, tmp_path / "tokens", ["ab\U0001f600c"])  # four byte pieces
    assert len(run.tokenizer.encode("ab\U0001f600")) == 6
    for tokens in (2, 3, 4, 5):
        assert held_out_prefixes(tree, run, "de", num=1, tokens=tokens, seed=0)[0].text == "ab"
    assert held_out_prefixes(tree, run, "de", num=1, tokens=6, seed=0)[0].text == "ab\U0001f600"


def test_evaluate_prints_and_writes_the_same(asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tree = text_tree(tmp_path / "text", de=[*encoded(*GERMAN), b"\xff"], fr=encoded(*FRENCH))
    command = ("evaluate", tmp_path, tree, "--csv", tmp_path / "o.csv", "--step", "best")
    code, output, errors = lola_data(capsys, *command, "--json")
    assert (code, asked) == (0, ["best"])
    assert errors == "de: documents skipped: 1 not valid UTF-8\n"
    found = json.loads(output)
    assert found["skipped"] == {"de": {"invalid": 1, "empty": 0}}
    with (tmp_path / "o.csv").open() as stream:
        rows = {row.pop("lang"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)}
    assert rows == found["languages"]
    assert found["mean"]["loss"] == pytest.approx((rows["de"]["loss"] + rows["fr"]["loss"]) / 2)
    code, output, _ = lola_data(capsys, *command, "--lang", "fr")
    assert [line.split()[0] for line in output.splitlines()] == [
        "step",
        "language",
        "--------",
        "fr",
        "--------",
        "mean",
    ]
    code, _, errors = lola_data(capsys, "evaluate", tmp_path, text_tree(tmp_path / "empty", de=[b""]))
    assert (code, "no document to score" in errors) == (1, True)


def on_a_terminal(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.setattr(stream, "isatty", lambda: True)


def test_evaluate_says_how_far_it_is_on_a_terminal_alone(
    asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = ("evaluate", tmp_path, text_tree(tmp_path / "text", **{"[b]": encoded(*GERMAN)}), "--json")
    code, output, errors = lola_data(capsys, *command)
    assert (code, errors) == (0, "")
    tokens = json.loads(output)["languages"]["[b]"]["tokens"]
    on_a_terminal(sys.stderr, monkeypatch)
    code, shown, errors = lola_data(capsys, *command)
    assert (code, shown) == (0, output)
    assert f"[b]: 3 documents, {tokens} tokens" in errors


def test_generate_says_how_far_it_is_where_its_texts_go_elsewhere(
    asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = ("generate", tmp_path, "--prompt", "der hund", "--max-tokens", "3", "--num", "2")
    code, output, errors = lola_data(capsys, *command)
    assert (code, errors) == (0, "")
    on_a_terminal(sys.stderr, monkeypatch)
    code, shown, errors = lola_data(capsys, *command)
    assert (code, shown, "generating" in errors) == (0, output, True)
    on_a_terminal(sys.stdout, monkeypatch)
    code, shown, errors = lola_data(capsys, *command)
    assert (code, shown, errors) == (0, output, "")


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_precision_is_passed_on(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    seen: list[object] = []
    monkeypatch.setattr("train.generate.load_run", lambda *_, precision, **__: seen.append(precision) or sys.exit(0))
    for arguments in ([], ["--precision", "bf16"], ["--precision", "auto"]):
        lola_data(capsys, command, tmp_path, *(["x"] if command == "evaluate" else []), *arguments)
    assert seen == ["fp32", "bf16", "auto"]


def test_export_lists_what_it_wrote(asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ("export", tmp_path, tmp_path / "out", "--dtype", "bfloat16")
    code, output, _ = lola_data(capsys, *command, "--json")
    found = json.loads(output)
    assert found["files"] == {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert (found["step"], found["foreign_to_lola"]) == (3, [])
    code, _, errors = lola_data(capsys, *command)
    assert (code, "--force" in errors) == (1, True)
    code, output, _ = lola_data(capsys, *command, "--force")
    assert code == 0
    assert "model.safetensors" in output


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str):
    code, output, _ = lola_data(capsys, command, "--help")
    assert code == 0
    assert f"lola-data {command} runs/first" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--top-p", "0"),
        ("generate", "--top-p", "1.1"),
        ("generate", "--top-p", "nan"),
        ("generate", "--step", "-1"),
        ("generate", "--num", "0"),
        ("evaluate", "--max-tokens", "0", "x"),
    ],
)
def test_options_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]):
    code, _, errors = lola_data(capsys, arguments[0], tmp_path, *arguments[1:])
    assert code == 2
    assert arguments[1] in errors
