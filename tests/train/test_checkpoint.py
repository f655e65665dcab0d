from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lola_data.errors import TrainingError
from lola_data.train_config import TrainConfig
from train.checkpoint import Identity, Saver, best_of, check_identity, checkpoint_of, newest_checkpoint

IDENTITY = Identity(
    TrainConfig().to_dict(),
    {"train/de_00000.bin": "a" * 64},
    {"vocab_size": 9, "eod_id": 1, "sha256": "b"},
)


def save(folder: Path, step: int, keep: int = 9, held_out: float | None = None, *, asynchronous: bool = False) -> Path:
    state = {"model.x": torch.arange(1000) * step, "optimizer.x.step": torch.tensor(float(step))}
    with Saver(folder, IDENTITY, keep=keep, keep_best=True, asynchronous=asynchronous) as saver:
        saver.save(state, step=step, tokens=step * 10, held_out=held_out, extra={"watch": {"losses": [1.5]}})
    return folder / f"step_{step:08d}"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, asynchronous: bool):
    save(tmp_path, 7, asynchronous=asynchronous)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.tokens, found.identity) == (7, 70, IDENTITY)
    assert found.extra == {"watch": {"losses": [1.5]}}
    assert torch.equal(found.part("model")["x"], torch.arange(1000) * 7)
    assert found.part("optimizer") == {"x.step": torch.tensor(7.0)}
    state = {"model.x": torch.zeros(1000, dtype=torch.int64)}
    found.load_into(state)
    assert torch.equal(state["model.x"], torch.arange(1000) * 7)


def test_a_state_that_changes_after_the_call_is_saved_as_it_was(tmp_path: Path):
    x = torch.arange(200_000.0)
    with Saver(tmp_path, IDENTITY, keep=1) as saver:
        saver.save({"model.x": x}, step=1, tokens=1)
        x.zero_()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["model.x"], torch.arange(200_000.0))


def test_the_same_state_gives_the_same_files(tmp_path: Path):
    one, other = save(tmp_path / "a", 3), save(tmp_path / "b", 3, asynchronous=True)
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_a_tensor_that_is_not_there_is_refused(tmp_path: Path):
    save(tmp_path, 7)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(TrainingError, match=r"step_00000007: cannot be loaded: .*model\.y"):
        found.load_into({"model.y": torch.zeros(3)})


def test_the_newest_are_kept(tmp_path: Path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000015", "step_00000020"]


def test_the_best_is_kept_too(tmp_path: Path):
    for step, loss in ((5, 3.0), (10, 2.0), (15, None), (20, 2.5), (25, 2.0)):
        save(tmp_path, step, keep=1, held_out=loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000010", "step_00000025"]
    assert best_of(tmp_path) == tmp_path / "step_00000010"


@pytest.mark.parametrize("fault", ["cut", "flipped", "no state", "no record", "half a record", "empty", "renamed"])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, fault: str):
    save(tmp_path, 5)
    torn = save(tmp_path, 10)
    state, record = torn / "__0_0.distcp", torn / "checkpoint.json"
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


def test_the_checkpoint_of_a_step_is_found_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = {step: save(tmp_path, step) for step in (3, 6, 123_456_789)}
    opened: list[Path] = []
    really = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode, **more: opened.append(path) or really(path, *mode, **more))
    for step, path in paths.items():
        found = checkpoint_of(tmp_path, step)
        assert found is not None
        assert (found.step, found.path) == (step, path)
        assert {one.parent for one in opened} == {path}
        opened.clear()
    assert checkpoint_of(tmp_path, 4) is checkpoint_of(tmp_path / "none", 3) is None
    assert not opened
    (tmp_path / "step_00000003").rename(tmp_path / "step_00000004")
    assert checkpoint_of(tmp_path, 4) is None, "its record says another step"
    (paths[6] / ".metadata").unlink()
    assert checkpoint_of(tmp_path, 6) is None, "not whole"


def test_leftovers_of_a_kill_are_swept_away(tmp_path: Path):
    leftover = tmp_path / ".step_00000004.tmp"
    leftover.mkdir()
    (leftover / "__0_0.distcp").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None
    save(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_no_folder_no_checkpoint(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool):
    save(tmp_path, 5)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem._write_item", full)
    with pytest.raises(TrainingError, match=r"step_00000006: cannot be written.*No space left"):
        save(tmp_path, 6, asynchronous=asynchronous)
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
