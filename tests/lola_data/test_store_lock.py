"""A lock on a store. What a work folder makes of it is in tests/pipelines/test_workdir_lock.py."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lola_data import storage
from lola_data import store_lock as locks
from lola_data.errors import ShardError, StageError
from lola_data.store_lock import HeldLock, store_lock
from tests.moto_store import Store, moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = "s3://bucket/run/.lock"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(locks, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.3)
    with moto_store(monkeypatch) as found:
        yield found


def refused(holder: str) -> StageError:
    return StageError(f"in use by {holder}")


def test_a_lock_is_renewed_while_it_is_held(store: Store) -> None:
    with store_lock(LOCK, refused) as lock:
        first = storage.read_json(LOCK)["renewed"]
        time.sleep(1)
        assert storage.read_json(LOCK)["renewed"] > first + 2
        assert lock.taken_by() is None
    assert store.tree("run") == {}


def test_one_that_was_taken_over_is_neither_renewed_nor_released(store: Store) -> None:
    with store_lock(LOCK, refused) as lock:
        time.sleep(0.3)
        other = json.dumps({"holder": "process 7 on elsewhere", "token": "other", "renewed": 1}).encode()
        # Renewed at this very moment, it would be written again.
        while lock.taken_by() is None:
            store.filesystem.pipe_file("bucket/run/.lock", other)
            time.sleep(0.3)
        assert lock.taken_by() == "process 7 on elsewhere"
    assert store.tree("run") == {".lock": other}


def test_a_first_write_whose_answer_is_lost_is_known_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = locks.create_exclusive

    def answer_lost(path: str, content: bytes) -> bool:
        # The first try is done and its answer lost; what is told is of the second.
        create(path, content)
        return create(path, content)

    monkeypatch.setattr(locks, "create_exclusive", answer_lost)
    monkeypatch.setattr(locks, "_watched", lambda *_: pytest.fail("it waits for itself"))
    with store_lock(LOCK, refused) as lock:
        assert lock.taken_by() is None
    assert store.tree("run") == {}


def test_who_waits_while_it_is_let_go_of_has_it_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "GONE_SECONDS", 60.0)
    # Held by one that does not renew it, and lets go of it.
    first = HeldLock(LOCK)
    first.acquire(refused)
    monkeypatch.setattr(locks, "_gone", lambda holder: False)
    letting_go = threading.Timer(0.5, first.release)
    letting_go.start()
    with store_lock(LOCK, refused) as lock:
        assert lock.taken_by() is None
        assert first.taken_by() is not None
    letting_go.join()


def test_a_store_that_cannot_be_read_gives_no_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_json(LOCK, {"holder": "process 7 on elsewhere", "token": "other"})
    before = store.tree("run")

    def fails(path: str) -> bytes:
        raise ShardError(f"{path}: the store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "read_bytes", fails)
        with pytest.raises(ShardError, match="does not answer"), store_lock(LOCK, refused):
            raise AssertionError
    assert store.tree("run") == before
