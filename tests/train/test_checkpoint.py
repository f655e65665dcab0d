from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from lola_data.errors import TrainingError
from lola_data.train_config import TrainConfig
from train.checkpoint import Identity, check_identity, newest_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = Identity(
    TrainConfig().to_dict(),
    {"train/de_00000.bin": "a" * 64},
    {"vocab_size": 9, "eod_id": 1, "sha256": "b"},
)


def save(folder: Path, step: int, keep: int = 9) -> Path:
    return save_checkpoint(
        folder, step=step, tokens=step * 10, identity=IDENTITY, state={"x": torch.arange(1000) * step}, keep=keep
    )


def test_what_is_saved_comes_back(tmp_path: Path):
    save(tmp_path, 7)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.tokens, found.identity) == (7, 70, IDENTITY)
    assert torch.equal(found.state["x"], torch.arange(1000) * 7)


def test_the_newest_are_kept(tmp_path: Path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000015", "step_00000020"]


@pytest.mark.parametrize("fault", ["cut", "flipped", "no state", "no record", "half a record", "empty", "renamed"])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, fault: str):
    save(tmp_path, 5)
    torn = save(tmp_path, 10)
    state, record = torn / "state.pt", torn / "checkpoint.json"
    if fault == "cut":
        os.truncate(state, state.stat().st_size - 1)
    elif fault == "flipped":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    elif fault == "no state":
        state.unlink()
    elif fault == "no record":
        record.unlink()
    elif fault == "half a record":
        record.write_bytes(record.read_bytes()[:100])
    elif fault == "empty":
        shutil.rmtree(torn)
        torn.mkdir()
    else:
        torn.rename(tmp_path / "step_00000011")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5


def test_leftovers_of_a_kill_are_swept_away(tmp_path: Path):
    leftover = tmp_path / ".step_00000004.tmp"
    leftover.mkdir()
    (leftover / "state.pt").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None
    save(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_no_folder_no_checkpoint(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "none") is None


def test_a_disk_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"step_00000006.*No space left"):
        save(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(IDENTITY, config=TrainConfig(seed=3).to_dict()), "seed = 0, this run has 3"),
        (
            replace(IDENTITY, config=TrainConfig().replace({"model": {"layers": 7}}).to_dict()),
            "this run has 7",
        ),
        (replace(IDENTITY, shards={"train/de_00000.bin": "c" * 64}), "token shard train/de_00000.bin"),
        (replace(IDENTITY, tokenizer={**IDENTITY.tokenizer, "sha256": "x"}), "tokenizer.sha256"),
    ],
)
def test_another_run_is_refused_by_field(tmp_path: Path, wanted: Identity, message: str):
    with pytest.raises(TrainingError) as error:
        check_identity(IDENTITY, wanted, tmp_path)
    assert message in str(error.value)


def test_how_often_to_look_and_save_may_change(tmp_path: Path):
    config = TrainConfig(checkpoint_every=3, eval_every=9, device="cpu", keep_checkpoints=7)
    check_identity(IDENTITY, replace(IDENTITY, config=config.to_dict()), tmp_path)
