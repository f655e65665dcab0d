"""The corpus graph on a real Slurm of one node: the trees of a local run, whatever happens to its jobs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.sample_corpus import sample_root
from tests.cluster.conftest import MAX_ARRAY_SIZE
from tests.cluster.held import hold, slow
from tests.cluster.runs import check_same, follow, lola, run, trees, until, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

MANY = ("cy", "el", "eo", "eu", "ga", "is", "kk", "lv", "sw", "ta", "th", "yo")
SLURM = {"kind": "slurm", "time": "10", "memory_mb": 1000}
CORPUS = ("--only", "download", "--only", "identify", "--only", "dedup")


def ids(recipe: Path) -> dict[str, list[str]]:
    """Jobs of the last submission."""
    return json.loads((recipe.parent / "work/state/slurm/run.json").read_text())["ids"]


def jobs(recipe: Path) -> dict[str, dict[str, Any]]:
    record = json.loads((recipe.parent / "work/state/slurm/run.json").read_text())
    return {job["name"]: job for job in record["jobs"]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus through the whole graph, by processes of this machine."""
    recipe = write_recipe(tmp_path_factory.mktemp("local"), {"tasks": 2, "workers": 2})
    run(recipe)
    return recipe


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for lang in MANY:
        shutil.copytree(sample_root() / lang, folder / lang)
    return folder


def test_the_demo_is_submitted_whole_and_ends_as_a_local_run(tmp_path: Path, slurm: dict[str, str], demo: Path) -> None:
    executor = {**SLURM, "tasks": 4, "lanes": 2, "stages": {"train": {"sbatch": {"comment": "for-the-trainer"}}}}
    recipe = write_recipe(tmp_path, executor)
    said = run(recipe, env=slurm)
    submitted = [one for each in ids(recipe).values() for one in each]
    assert f"submitted {len(submitted)} jobs" in said
    assert f"watch: lola-data status {tmp_path}/work --follow" in said
    # A second one, by whomever, while they are under way.
    second = lola("run", recipe, "--set", "executor.kind=local", env=slurm)
    assert second.returncode == 1
    assert re.search(
        rf"in use by jobs .*{submitted[-1]}|in use by jobs .*\.\.\. of Slurm, submitted by \w+ on ", second.stderr
    )
    assert "Traceback" not in second.stderr
    done = follow(recipe, slurm)
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(trees(recipe), trees(demo))
    # Languages of the one lane did not wait for the other's: nothing but the join waits for both.
    for name, job in jobs(recipe).items():
        lanes = {other.rsplit(".", 1)[-1] for other in (*job["after_ok"], *job["after_any"]) if other[-1] in "12"}
        assert name == "join" or not job["lane"] or lanes <= {job["lane"]}
    again = run(recipe, env=slurm)
    assert "up to date; nothing was submitted" in again


def test_cancelled_and_failed_tasks_are_done_again_and_nothing_else(
    tmp_path: Path, slurm: dict[str, str], source: Path
) -> None:
    shutil.copytree(source, tmp_path / "source")
    download = {"source": "local", "path": str(tmp_path / "source")}
    calm = write_recipe(tmp_path / "calm", {"tasks": 2, "workers": 2}, download=download)
    run(calm, *CORPUS)
    units = len([*source.rglob("*.parquet")])
    shard = next((tmp_path / "source/ta").glob("*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    setup = hold(tmp_path / "hold", "identify", 2)
    executor = {**SLURM, "tasks": 11, "lanes": 1, "setup": setup}
    recipe = write_recipe(tmp_path / "c", executor, download=download)

    # A shard that cannot be read: its task fails, once.
    run(recipe, *CORPUS, env=slurm)
    arrays = ids(recipe)["download.fetch.1"]
    assert len(arrays) == -(-11 // MAX_ARRAY_SIZE)
    failed = follow(recipe, slurm)
    assert failed.returncode == 1
    assert str(shard) in failed.stdout
    assert f"download: failed, {units - 1}/{units} units" in failed.stdout
    assert "identify: waiting" in failed.stdout
    assert len([*(tmp_path / "c/work/raw").rglob("*.parquet")]) == units - 1
    assert "ta_part_00000.parquet: " in failed.stdout.split("  log: ")[1]
    shard.write_bytes(whole)
    run(recipe, *CORPUS, env=slurm)
    assert [len(job["ranks"]) for name, job in jobs(recipe).items() if name.startswith("download")] == [1]

    # A task that is cancelled while it writes.
    until((tmp_path / "hold/held").exists, "a task that writes")
    (task,) = [one for array in ids(recipe)["identify.1"] for one in (f"{array}_2",) if (_ask(slurm, one) == "RUNNING")]
    assert [*(tmp_path / "c/work/identified").rglob("*.tmp")]
    subprocess.run(["scancel", task], env=os.environ | slurm, check=True)
    cancelled = follow(recipe, slurm)
    assert cancelled.returncode == 1
    assert re.search(rf"task 2 \(job {task}\) was cancelled", cancelled.stdout), cancelled.stdout
    assert (found := re.search(r"identify: failed, (\d+)/(\d+) units", cancelled.stdout))
    assert 0 < int(found[1]) < int(found[2])
    assert "download: complete" in cancelled.stdout

    (tmp_path / "hold/go").touch()
    said = run(recipe, *CORPUS, env=slurm)
    assert jobs(recipe)["identify.1"]["ranks"] == [2], said
    done = follow(recipe, slurm)
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(trees(recipe), trees(calm))


def _ask(slurm: dict[str, str], task: str) -> str:
    command = ["squeue", "--noheader", "--jobs", task, "--format=%T"]
    return subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, check=False).stdout.strip()


def test_training_is_requeued_at_its_time_limit_until_it_is_complete(
    tmp_path: Path, slurm: dict[str, str], demo: Path
) -> None:
    """Two processes of torchrun, stopped by the time limit, end with the weights of a run that was not."""
    # 300 steps of 0.4 seconds. Slurm may tell of the limit a minute earlier than it is asked to: of two minutes some 40
    # to 100 seconds are left.
    train = {"tokens": 300 * 8 * 64, "checkpoint_every": 100_000, "keep_checkpoints": 1, "log_every": 50}
    executor = {**SLURM, "grace_seconds": 20, "stages": {"train": {"processes_per_node": 2, "time": "2"}}}
    shutil.copytree(demo.parent / "work", tmp_path / "c/work")
    recipe = write_recipe(tmp_path / "c", {**executor, "setup": slow(tmp_path / "slow", 0.4)}, train=train)
    shutil.copytree(demo.parent / "work", tmp_path / "calm/work")
    executor["stages"]["train"]["time"] = "10"
    calm = write_recipe(tmp_path / "calm", executor, train=train)
    for one in (calm, recipe):
        run(one, "--only", "train", "--redo", "train", env=slurm)
        done = follow(one, slurm)
        assert done.returncode == 0, done.stdout + done.stderr
    log = next((tmp_path / "c/work/logs/slurm").glob("train.*.out")).read_text()
    assert log.count("requeued, to go on from there") >= 1, log
    check_same(trees(recipe), trees(calm))


def test_what_slurm_refuses_leaves_nothing_in_the_queue(tmp_path: Path, slurm: dict[str, str]) -> None:
    executor = {**SLURM, "stages": {"tokenize": {"partition": "nowhere"}}}
    recipe = write_recipe(tmp_path, executor, languages=["sw", "yo"])
    done = lola("run", recipe, env=slurm)
    assert done.returncode == 1
    assert "tokenize: not submitted: " in done.stderr
    assert "nowhere" in done.stderr or "partition" in done.stderr
    assert "executor.stages: tokenize" in done.stderr
    assert "Traceback" not in done.stderr
    queue = subprocess.run(["squeue", "--noheader"], env=os.environ | slurm, capture_output=True, text=True, check=True)
    until(lambda: not queue.stdout.strip() or not _queue(slurm), "an empty queue")


def _queue(slurm: dict[str, str]) -> str:
    done = subprocess.run(["squeue", "--noheader"], env=os.environ | slurm, capture_output=True, text=True, check=True)
    return done.stdout.strip()
