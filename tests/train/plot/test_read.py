from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import RecipeError, TrainingError
from tests.train.plot.conftest import RECORDS, settings, train_record, valid_record
from train.plot.read import number, read_run, read_runs

if TYPE_CHECKING:
    from collections.abc import Callable


def test_what_was_written_is_read(make_run: Callable[..., Path]):
    run = read_run(make_run())
    assert list(run.train) == [record for record in RECORDS if record["kind"] == "train"]
    assert list(run.valid) == [record for record in RECORDS if record["kind"] == "valid"]
    assert (run.name, run.step, run.tokens, run.steps) == ("first", 20, 2000, 20)
    assert run.settings == settings()["config"]
    assert run.summary is not None
    assert run.notes == ()


def test_a_run_by_its_file_and_a_run_named_twice(make_run: Callable[..., Path]):
    first, second = make_run("first"), make_run("second")
    assert [run.name for run in read_runs([first / "metrics.jsonl", second, first])] == ["first", "second"]


def test_a_line_cut_off_is_passed_over(make_run: Callable[..., Path]):
    run = read_run(make_run(tail='{"kind":"train","step":25,"lo'))
    assert run.step == 20
    assert len(run.notes) == 1
    assert "metrics.jsonl: line 8 is no record" in run.notes[0]
    assert "cut off" in run.notes[0]


@pytest.mark.parametrize(
    "line",
    ["", "[1]", "null", '"x"', '{"step":3}', '{"kind":"train"}', '{"kind":"train","step":"3"}', "\x00\x00", "[" * 9999],
)
def test_a_line_that_is_no_record_is_passed_over(make_run: Callable[..., Path], line: str):
    path = make_run(records=RECORDS[:3], tail=line + "\n" + json.dumps(train_record(11, 1.0)) + "\n")
    run = read_run(path)
    assert [record["step"] for record in run.train] == [5, 10, 11]
    assert bool(run.notes) == bool(line)


def test_bytes_that_are_no_text_and_line_separators_in_names(make_run: Callable[..., Path]):
    path = make_run(records=[])
    loss = {"x\u2028y": 3.0}
    lines = [b"\xff\xfe{}\n", json.dumps(valid_record(5, dict(loss)), ensure_ascii=False).encode() + b"\n"]
    (path / "metrics.jsonl").write_bytes(b"".join(lines))
    run = read_run(path)
    assert [record["loss"] for record in run.valid] == [loss]
    assert "line 1 is no record" in run.notes[0]


def test_steps_that_were_done_again_count_once(make_run: Callable[..., Path]):
    """A resume goes back to step 10: what the earlier attempt wrote after it does not count."""
    again = [train_record(15, 7.0), valid_record(15, {"de": 1.0}), train_record(25, 6.5)]
    run = read_run(make_run(records=[*RECORDS, *again]))
    assert [(record["step"], record["loss"]) for record in run.train] == [(5, 8.0), (10, 6.0), (15, 7.0), (25, 6.5)]
    assert [record["step"] for record in run.valid] == [0, 10, 15]


def test_unknown_kinds_and_keys_are_left_alone(make_run: Callable[..., Path]):
    run = read_run(make_run(records=[{"kind": "profile", "step": 99}, *RECORDS]))
    assert run.step == 20
    assert run.notes == ()


def test_a_folder_that_is_no_run(tmp_path: Path, make_run: Callable[..., Path]):
    for path in (tmp_path / "nowhere", tmp_path, make_run("work/runs/moe") / "config.json"):
        with pytest.raises(TrainingError, match="not the folder of a run") as caught:
            read_run(path)
        assert str(path) in str(caught.value)
    with pytest.raises(TrainingError, match=r"did you mean .*work/runs/moe\?"):
        read_run(tmp_path / "work")


@pytest.mark.parametrize(("content", "why"), [("", "has no records yet"), ('{"kind":"tr', "holds no whole record")])
def test_a_file_without_a_record(make_run: Callable[..., Path], content: str, why: str):
    path = make_run(records=[], tail=content)
    with pytest.raises(TrainingError, match=why) as caught:
        read_run(path)
    assert str(path / "metrics.jsonl") in str(caught.value)


def test_settings_that_are_missing_or_half_written(make_run: Callable[..., Path]):
    path = make_run()
    (path / "config.json").write_text('{"config": {"mod')
    (path / "summary.json").unlink()
    run = read_run(path)
    assert (run.settings, run.tokenizer, run.summary, run.steps) == ({}, {}, None, None)


def test_names_tell_runs_apart(make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    runs = [make_run("a/runs/moe"), make_run("b/runs/moe"), make_run("c\u202ed")]
    names = [run.name for run in read_runs(runs)]
    assert names[:2] == ["a/runs/moe", "b/runs/moe"]
    assert "\u202e" not in "".join(names)
    monkeypatch.chdir(runs[0])
    assert read_runs([Path()])[0].name == "moe"


def test_more_runs_than_colours(make_run: Callable[..., Path]):
    with pytest.raises(RecipeError, match="9 runs"):
        read_runs([make_run(f"run{place}") for place in range(9)])


def test_number():
    record = {"a": {"b": 2, "nan": float("nan"), "true": True, "text": "3"}, "c": None}
    assert number(record, "a", "b") == 2
    for keys in (("a", "nan"), ("a", "true"), ("a", "text"), ("a",), ("c",), ("c", "d"), ("x",)):
        assert number(record, *keys) is None
    assert number(None, "a") is None
