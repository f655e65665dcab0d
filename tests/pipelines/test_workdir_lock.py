"""The lock of a work folder, on a store and on a disk."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lola_data import storage
from lola_data import store_lock as locks
from lola_data.errors import StageError
from lola_data.layout import Layout
from pipelines.workdir_lock import workdir_lock
from tests.moto_store import moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(locks, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.5)
    with moto_store(monkeypatch):
        yield Layout("s3://bucket/work")


def leave(layout: Layout, holder: str) -> None:
    """The lock of a run that was killed."""
    with storage.atomic_output(layout.state("lock")) as handle:
        handle.write(json.dumps({"holder": holder, "token": "other", "renewed": 3}).encode())


def test_a_second_run_is_refused_and_told_by_whom(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with workdir_lock(layout):
        monkeypatch.setattr(locks, "_gone", lambda holder: False)
        mine = f"in use by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(StageError, match=mine), workdir_lock(layout):
            raise AssertionError
    assert not storage.exists(layout.state("lock"))
    with workdir_lock(layout):
        pass


def test_a_lock_of_a_process_of_this_machine_that_has_ended_is_taken_at_once(layout: Layout) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    leave(layout, f"process {child} on {socket.gethostname()}")
    before = time.monotonic()
    with workdir_lock(layout):
        assert time.monotonic() - before < locks.GONE_SECONDS + locks.SETTLE_SECONDS
        assert storage.read_json(layout.state("lock"))["token"] != "other"


def test_a_lock_that_is_not_renewed_is_taken_over(layout: Layout) -> None:
    leave(layout, "process 7 on elsewhere")
    before = time.monotonic()
    with workdir_lock(layout):
        assert time.monotonic() - before >= locks.GONE_SECONDS
        assert str(os.getpid()) in storage.read_json(layout.state("lock"))["holder"]


@pytest.mark.parametrize("there", ["an abandoned lock", "none", "none, on a store that heeds no condition"])
def test_of_several_that_start_at_once_one_has_it(layout: Layout, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    def written(path: str, content: bytes) -> bool:
        with storage.atomic_output(path) as handle:
            handle.write(content)
        return True

    if there == "an abandoned lock":
        leave(layout, "process 7 on elsewhere")
    elif there != "none":
        monkeypatch.setattr(locks, "create_exclusive", written)
    inside, most = [0], [0]
    refused: list[str] = []
    turn = threading.Lock()

    def contend() -> None:
        try:
            with workdir_lock(layout):
                with turn:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(1.5)
                with turn:
                    inside[0] -= 1
        except StageError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(refused) == 3
    assert all("in use by" in told for told in refused)


def test_a_look_at_a_lock_on_a_disk_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    lock = tmp_path / "state" / "lock"
    lock.parent.mkdir()
    with lock.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.1, fcntl.flock, (other, fcntl.LOCK_UN))
        letting_go.start()
        with workdir_lock(layout):
            assert f"process {os.getpid()} on" in lock.read_text()
        letting_go.join()


def test_a_lock_on_a_disk_that_is_held_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock").open("wb") as other:
        other.write(b"process 7 on elsewhere")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(StageError, match="in use by process 7 on elsewhere"),
            workdir_lock(Layout(str(tmp_path))),
        ):
            raise AssertionError
        assert (tmp_path / "state" / "lock").read_text() == "process 7 on elsewhere"


def test_a_run_whose_lock_is_taken_over_ends_and_says_by_whom(layout: Layout) -> None:
    with pytest.raises(StageError, match="was taken over by process 7 on elsewhere"), workdir_lock(layout):
        leave(layout, "process 7 on elsewhere")
        for _ in range(200):
            time.sleep(0.05)
            leave(layout, "process 7 on elsewhere")
    assert storage.read_json(layout.state("lock"))["holder"] == "process 7 on elsewhere"


def test_an_interrupt_by_the_user_stays_one(layout: Layout) -> None:
    with pytest.raises(KeyboardInterrupt), workdir_lock(layout):
        raise KeyboardInterrupt
