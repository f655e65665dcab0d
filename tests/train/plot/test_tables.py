from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lola_data.train_config import PRESETS
from tests.train.plot.conftest import RECORDS, settings, train_record
from train.plot.languages import language_scores
from train.plot.measures import smoothed
from train.plot.read import read_run, read_runs
from train.plot.tables import language_table, run_rows, run_table, settings_table, text_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_rows_of_runs(make_run: Callable[..., Path]):
    path = make_run()
    (row,) = run_rows([read_run(path)], 10)
    assert row == {
        "name": "first", "path": str(path), "complete": True, "step": 20, "steps": 20, "tokens": 2000,
        "parameters": 123456, "active_parameters": 23456, "loss": 4.5,
        "smoothed_loss": smoothed([5, 10, 15, 20], [8.0, 6.0, 5.0, 4.5], 10)[-1], "held_out_loss": pytest.approx(4.2),
        "unigram_loss": 5.0, "bits_per_byte": pytest.approx(1.5 * 4.2), "tokens_per_second": 1012.5,
    }  # fmt: skip


def test_parameters_of_a_run_that_is_going_on_are_counted(make_run: Callable[..., Path]):
    torch = pytest.importorskip("torch")
    from train.model import Decoder

    config = PRESETS["demo"]
    path = make_run(summary=None, config={"config": config.to_dict(), "tokenizer": {"vocab_size": 300, "eod_id": 0}})
    (row,) = run_rows([read_run(path)], 0)
    with torch.device("meta"):
        counted = sum(p.numel() for p in Decoder(config.model, 300, 0).parameters())
    assert (row["complete"], row["parameters"]) == (False, counted)


def test_unknown_settings_are_no_reason_to_fail(make_run: Callable[..., Path]):
    path = make_run(summary=None, config={"config": {"model": {"depth": 3}}, "tokenizer": {"vocab_size": 9}})
    (row,) = run_rows([read_run(path)], 0)
    assert (row["parameters"], row["steps"]) == (None, None)
    assert run_table([row])[1][0][:4] == ["first", "20", "2,000", "–"]


def test_last_loss_is_the_last_that_is_a_number(make_run: Callable[..., Path]):
    path = make_run(records=[train_record(1, 4.0), train_record(2, None), train_record(3, None)])
    (row,) = run_rows([read_run(path)], 0)
    assert (row["loss"], row["held_out_loss"], row["bits_per_byte"]) == (4.0, None, None)


def test_settings_that_differ(make_run: Callable[..., Path]):
    first = make_run("first")
    second = make_run("second", config=settings(layers=6, top_k=2))
    assert settings_table(read_runs([first, second])) == (
        ["setting", "first", "second"],
        [["model.layers", "4", "6"], ["model.top_k", "–", "2"]],
    )
    assert settings_table(read_runs([first, make_run("third")])) is None


def test_table_of_languages(make_run: Callable[..., Path]):
    runs = read_runs([make_run("a"), make_run("b", RECORDS[:4], summary=None)])
    table = language_table(runs, language_scores(runs))
    assert table is not None
    heads, rows = table
    assert heads[:3] == ["language", "training tokens", "a: bits per byte"]
    assert rows == [
        ["de", "9,000", "6.000", "7.500", "0.20", "7.500", "7.500", "0.10"],
        ["yo", "400", "6.600", "7.500", "0.40", "9.000", "7.500", "0.20"],
    ]


def test_lines_are_aligned():
    lines = text_lines((["run", "step"], [["a\x1b[2J", "1,000"], ["語", "2"]]))
    assert "\x1b" not in "".join(lines)
    assert [line.split()[-1] for line in lines] == ["step", "1,000", "2"]
    assert lines[2].startswith("語")
    assert len(lines[0]) == len(lines[1]) == len(lines[2]) + 1  # 語 takes two cells
