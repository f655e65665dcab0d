"""The lock of a run on a store: two machines do not train one run. Its copies are in test_shard_cache."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lola_data import storage
from lola_data import store_lock as locks
from lola_data.errors import TrainingError
from tests.moto_store import Store, moto_store
from train.ranks import ALONE
from train.remote_run import RemoteRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lola_data.train_config import TrainConfig

URL = "s3://bucket/w/runs/moe"
LOCK = f"{URL}/.lock"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(locks, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.3)
    with moto_store(monkeypatch) as found:
        yield found


def elsewhere(stop: threading.Event) -> None:
    """A trainer on another machine."""
    count = 0
    while not stop.wait(0.1):
        count += 1
        storage.write_json(LOCK, {"holder": "process 7 on elsewhere", "token": "other", "renewed": count})


def test_a_second_machine_is_refused_and_told_by_whom(store: Store, tmp_path: Path) -> None:
    one, other = (RemoteRun(URL, tmp_path / name, ALONE) for name in ("one", "other"))
    with one.held():
        mine = f"{URL}: process {os.getpid()} on {socket.gethostname()} is training there"
        with pytest.raises(TrainingError, match=mine), other.held():
            raise AssertionError
    assert store.tree("w") == {}
    with other.held():
        pass


def test_a_second_process_here_is_refused_by_the_folder(store: Store, tmp_path: Path) -> None:
    one, other = (RemoteRun(URL, tmp_path, ALONE) for _ in range(2))
    with one.held(), pytest.raises(TrainingError, match="another process is training there"), other.held():
        raise AssertionError


def test_the_lock_is_neither_sent_nor_fetched_nor_deleted(store: Store, tmp_path: Path) -> None:
    run, later = (RemoteRun(URL, tmp_path / name, ALONE) for name in ("run", "later"))
    step = "checkpoints/step_00000010"
    with run.held():
        for path in (f"{step}/.metadata", f"{step}/checkpoint.json", "config.json"):
            (run.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (run.folder / path).write_bytes(b"{}")
        run.send()
        assert ".lock" in store.tree("w/runs/moe")
    assert sorted(store.tree("w/runs/moe")) == [f"{step}/.metadata", f"{step}/checkpoint.json", "config.json"]
    with later.held():
        (later.folder / "of before").write_bytes(b"")
        inode = (later.folder / ".lock").stat().st_ino
        later.fetch()
        # The file that the process holds is still the one that others would ask for.
        assert (later.folder / ".lock").stat().st_ino == inode
        found = {path.relative_to(later.folder).as_posix() for path in later.folder.rglob("*") if path.is_file()}
        assert found == {".lock", f"{step}/.metadata", f"{step}/checkpoint.json", "config.json"}


def test_a_run_that_was_taken_over_is_not_written_to(store: Store, tmp_path: Path) -> None:
    run = RemoteRun(URL, tmp_path, ALONE)
    stop = threading.Event()
    other = threading.Thread(target=elsewhere, args=(stop,))
    with run.held():
        time.sleep(0.3)
        other.start()
        time.sleep(0.5)
        (run.folder / "config.json").write_bytes(b"{}")
        with pytest.raises(TrainingError, match="process 7 on elsewhere has taken the run over"):
            run.send()
        stop.set()
        other.join()
    assert list(store.tree("w/runs/moe")) == [".lock"]
    assert json.loads(store.tree("w/runs/moe")[".lock"])["token"] == "other"


def test_training_holds_the_run(
    store: Store,
    tree: Path,
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from train.loop import train

    config = tiny(cache_dir=str(tmp_path / "cache"))
    stop = threading.Event()
    other = threading.Thread(target=elsewhere, args=(stop,))
    other.start()
    while not store.tree("w"):
        time.sleep(0.1)
    with pytest.raises(TrainingError, match=f"{URL}: process 7 on elsewhere is training there"):
        train(config, tree, URL)
    stop.set()
    other.join()
    assert list(store.tree("w/runs/moe")) == [".lock"]
    # What a killed one left is taken over.
    monkeypatch.setattr(locks, "_gone", lambda holder: True)
    assert train(config, tree, URL).finished
    there = store.tree("w/runs/moe")
    assert "summary.json" in there
    assert ".lock" not in there
