"""Runs on a store, read through a copy here."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import ShardError, TrainingError
from tests.moto_store import Store, moto_store
from train.stored_run import copies_folder, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "s3://bucket/w/runs/moe"
LOSSES = {10: 3.0, 20: 2.0, 30: 2.5}


def steps(*numbers: int) -> dict[str, bytes]:
    """Checkpoints, as far as they matter here."""
    return {
        f"checkpoints/step_{number:08d}/{name}": f"{name} of {number}".encode()
        for number in numbers
        for name in (".metadata", "__0_0.distcp", "checkpoint.json")
    }


FILES = {
    "config.json": b"{}",
    "tokenizer.model": b"model",
    "metrics.jsonl": "".join(
        json.dumps({"kind": "valid", "step": step, "mean": loss}) + "\n" for step, loss in LOSSES.items()
    ).encode(),
    ".lock": b"{}",
    "tensorboard/events": b"events",
    **steps(*LOSSES),
}


def put(store: Store, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        store.filesystem.pipe_file(f"bucket/w/runs/moe/{path}", content)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path / "cache"))
    with moto_store(monkeypatch) as found:
        put(found, FILES)
        yield found


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wanted(*with_tensors: int) -> dict[str, bytes]:
    """What a copy holds when these checkpoints have been asked for."""
    small = {path for path in FILES if "/" not in path and path != ".lock"}
    records = {path for path in FILES if path.endswith("/checkpoint.json")}
    return {path: FILES[path] for path in small | records} | steps(*with_tensors)


def test_a_run_on_a_disk_is_its_own_folder(tmp_path: Path) -> None:
    with run_here(tmp_path, "newest") as folder:
        assert folder == tmp_path


def test_what_is_asked_for_is_fetched_once(store: Store) -> None:
    with run_here(URL) as folder:
        assert content_of(folder) == wanted()
        assert folder.name == "moe"
    store.requests.clear()
    for step, number in (("newest", 30), ("newest", 30), ("best", 20), (20, 20), (10, 10)):
        with run_here(f"{URL}/", step) as folder:  # pyright: ignore[reportArgumentType]
            assert content_of(folder) == wanted(number)
    # Each of the three checkpoints twice two files, and nothing of what was here already.
    assert sorted(one.path.partition("/moe/")[2] for one in store.reads()) == sorted(
        path for path in steps(10, 20, 30) if not path.endswith(".json")
    )


def test_what_has_changed_is_fetched_anew_and_what_is_gone_is_deleted(store: Store) -> None:
    with run_here(URL, "newest"):
        pass
    changed = {"metrics.jsonl": FILES["metrics.jsonl"].replace(b"3.0", b"9.0"), **steps(40)}
    put(store, changed)
    for path in steps(10):
        store.filesystem.rm_file(f"bucket/w/runs/moe/{path}")
    store.requests.clear()
    with run_here(URL, "newest") as folder:
        expected = {path: content for path, content in wanted(40).items() if path not in steps(10)}
        assert content_of(folder) == expected | changed
        assert not (folder / "checkpoints/step_00000010").exists()
    assert len(store.reads()) == 4


def test_a_copy_that_was_damaged_or_broke_off_is_completed(store: Store) -> None:
    with run_here(URL, "newest") as folder:
        pass
    (folder / "checkpoints/step_00000030/__0_0.distcp").write_bytes(b"short")
    (folder.parent / "versions.json").write_bytes(b"{half")
    with run_here(URL, "newest") as folder:
        assert content_of(folder) == wanted(30)


def test_without_a_record_a_checkpoint_is_none(store: Store) -> None:
    store.filesystem.rm_file("bucket/w/runs/moe/checkpoints/step_00000030/checkpoint.json")
    with run_here(URL, "newest") as folder:
        assert (folder / "checkpoints/step_00000020/__0_0.distcp").exists()
        assert not (folder / "checkpoints/step_00000030").exists()


@pytest.mark.parametrize("url", ["s3://bucket/w/runs/other", "s3://bucket/w", "s3://nobody/run"])
def test_where_no_run_is_none_is_found(store: Store, url: str) -> None:
    with pytest.raises(TrainingError, match=f"{url}/config.json: is not there"), run_here(url, "newest"):
        raise AssertionError


def test_a_checkpoint_that_goes_away_meanwhile_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from train import stored_run

    def listed(url: str, *, hidden: bool) -> object:
        found = objects_below(url, hidden=hidden)
        store.filesystem.rm_file("bucket/w/runs/moe/checkpoints/step_00000030/__0_0.distcp")
        return found

    objects_below = stored_run.objects_below
    monkeypatch.setattr(stored_run, "objects_below", listed)
    with pytest.raises(TrainingError, match=r"__0_0\.distcp: was deleted while the run was read"), run_here(URL, 30):
        raise AssertionError


def test_what_goes_wrong_with_the_copy_is_told_by_the_address(store: Store) -> None:
    with pytest.raises(TrainingError, match=f"^{URL}/config.json: not the settings of a run"), run_here(URL) as folder:
        raise TrainingError(f"{folder}/config.json: not the settings of a run")
    with pytest.raises(TrainingError, match=f"^{URL}/x: damaged"), run_here(URL) as folder:
        raise ShardError(f"{folder}/x: damaged")


def test_one_process_at_a_time_has_the_copy(store: Store) -> None:
    both = threading.Event()

    def read() -> None:
        with run_here(URL, 10):
            both.set()

    with run_here(URL, "newest") as folder:
        other = threading.Thread(target=read)
        other.start()
        assert not both.wait(0.5)
        assert content_of(folder) == wanted(30)
    other.join()
    assert both.is_set()


def test_the_folder_of_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path))
    assert copies_folder() == tmp_path / "runs"
