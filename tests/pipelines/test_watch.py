"""``status --follow``: it goes on for as long as a run holds the work folder, on a disk and on a store."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lola_data import storage, store_lock
from lola_data.layout import Layout
from pipelines import watch
from pipelines.workdir_lock import workdir_lock
from tests.moto_store import moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["disk", "store"])
def layout(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    if request.param == "disk":
        yield Layout(str(tmp_path / "work"))
    else:
        with moto_store(monkeypatch):
            yield Layout("s3://bucket/work")


def test_it_is_told_whether_a_run_holds_the_folder(layout: Layout) -> None:
    held = watch.lock_watch(layout)
    assert not held()
    with workdir_lock(layout):
        assert held()
        assert held()
    assert not held()


def test_it_ends_when_the_run_does(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    taken = threading.Event()

    def run() -> None:
        with workdir_lock(layout):
            taken.set()
            ended.wait(30)

    thread = threading.Thread(target=run)
    thread.start()
    taken.wait(30)
    found: list[bool] = []
    follower = threading.Thread(target=lambda: found.append(watch.follow(layout, every=0.05)))
    follower.start()
    time.sleep(0.5)
    assert follower.is_alive()
    ended.set()
    thread.join()
    follower.join(30)
    # Nothing was begun, so nothing is left undone.
    assert found == [True]
    assert capsys.readouterr().out.startswith("a run is under way\n")


def test_a_lock_on_a_store_that_nobody_renews_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**more: Any) -> None:
        with storage.atomic_output(path) as handle:
            handle.write(json.dumps({"holder": "process 1 on another-machine", "token": "x", **more}).encode())

    path = "s3://bucket/work/state/lock"
    now = [1000.0]
    with moto_store(monkeypatch):
        monkeypatch.setattr(store_lock.time, "monotonic", lambda: now[0])
        told(renewed=1)
        held = watch.lock_watch(Layout("s3://bucket/work"))
        assert held()
        now[0] += store_lock.GONE_SECONDS - 1
        assert held()
        told(renewed=2)
        now[0] += 2
        assert held()
        now[0] += store_lock.GONE_SECONDS + 1
        assert not held()
