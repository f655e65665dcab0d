from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import TrainingError
from train.metrics import MetricsLog, read_metrics
from train.progress import describe

if TYPE_CHECKING:
    from pathlib import Path


def write(run: Path, step: int, *steps: int) -> None:
    with MetricsLog(run, step=step, tensorboard=False) as log:
        for number in steps:
            log.write({"kind": "train", "step": number, "loss": number / 2})


def test_each_step_stands_in_the_file_once(tmp_path: Path):
    write(tmp_path, 0, 1, 2, 3, 4)
    write(tmp_path, 2, 3, 4, 5)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    write(tmp_path, 0, 0, 1)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path):
    write(tmp_path, 0, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "train", "ste')
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    write(tmp_path, 2, 3)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    assert b"ste\n" not in path.read_bytes()


def test_a_number_that_does_not_exist_is_null(tmp_path: Path):
    with MetricsLog(tmp_path, step=0, tensorboard=True) as log:
        log.write({"kind": "valid", "step": 1, "mean": math.nan, "loss": {"de": math.inf}})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"kind": "valid", "step": 1, "mean": None, "loss": {"de": None}}
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written"):
        MetricsLog(tmp_path / "none", step=0, tensorboard=False)


def test_records_in_words():
    assert describe({"kind": "valid", "mean": 5.25, "unigram_mean": 6.0}) == "held-out loss 5.250 (unigram 6.000)"
    assert describe({"kind": "valid", "mean": None, "unigram_mean": None}) == "no held-out tokens"
    record = {"kind": "train", "loss": 3.0, "lr": 0.001, "tokens_per_second": 12345.6}
    assert describe(record) == "loss 3.000  lr 1.0e-03  12,346 tokens/s"
