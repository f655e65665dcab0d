"""Machines that share a run without a scheduler, here as processes of one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.errors import RecipeError
from pipelines import shared_run
from pipelines.shared_run import check_share
from tests.cluster.runs import check_same, lola, run, trees, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = {"languages": ["cy", "sw", "th", "yo"]}
STAGES = ("--only", "download", "--only", "identify")


def start(recipe: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lola_data.cli", "run", str(recipe), *STAGES, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_share_is_a_range_of_the_tasks() -> None:
    assert check_share(64, 16, 16) == range(16, 32)
    with pytest.raises(RecipeError, match="tasks 60 to 67, but --tasks 64 has 0 to 63"):
        check_share(64, 60, 8)


def test_three_machines_leave_the_trees_of_one(tmp_path: Path) -> None:
    calm = write_recipe(tmp_path / "calm", {"tasks": 2, "workers": 2}, **LANGUAGES)
    run(calm, *STAGES)
    recipe = write_recipe(tmp_path / "c", {"workers": 1}, **LANGUAGES)
    shares = [("0", "1"), ("1", "3"), ("4", "1")]
    machines = [start(recipe, "--tasks", "5", "--rank-offset", first, "--ranks", count) for first, count in shares]
    for machine in machines:
        said, _ = machine.communicate(timeout=300)
        assert machine.returncode == 0, said
    check_same(trees(recipe), trees(calm))
    # Every machine has done something.
    ranks = {int(path.stem) for path in (tmp_path / "c/work/logs").rglob("stats/*.json")}
    assert ranks >= {0, 4}
    assert ranks & {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ranks", "2"], "give --tasks, --rank-offset and --ranks, all three"),
        (["--tasks", "4", "--rank-offset", "3", "--ranks", "2"], "tasks 3 to 4, but --tasks 4 has 0 to 3"),
        (["--tasks", "4", "--rank-offset", "2", "--ranks", "2", "--set", "executor.kind=slurm"], "without a scheduler"),
        (["--tasks", "4", "--rank-offset", "2", "--ranks", "2", "--redo", "dedup"], "--rank-offset 0 alone"),
    ],
)
def test_wrong_shares_are_told_in_a_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = lola("run", write_recipe(tmp_path, {}, **LANGUAGES), *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_run, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(shared_run, "BEAT_SECONDS", 0.05)


def machine(tmp_path: Path, ranks: range, **more: Any) -> Any:
    from lola_data.layout import Layout
    from lola_data.recipe import load_recipe

    recipe = load_recipe(write_recipe(tmp_path, {"workers": 1}, **LANGUAGES, **more))
    kind = shared_run._Follower if ranks.start else shared_run._Leader
    return kind(recipe, Layout(recipe.workdir), 4, ranks)


def test_who_waits_for_a_machine_that_is_gone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch)
    with pytest.raises(shared_run.StageError, match="no sign of life from the leader"):
        machine(tmp_path / "a", range(1, 2)).run()
    with pytest.raises(shared_run.StageError, match=r"tasks .*no machine has come that does them"):
        machine(tmp_path / "b", range(1)).run(["download"])
    # What the leader did is kept, and it told the others why it stopped.
    leader = shared_run.storage.read_json(str(tmp_path / "b/work/state/shared/leader.json"))
    assert "no machine has come" in leader["ended"]


def test_who_comes_when_the_leader_has_finished_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(monkeypatch)
    machine(tmp_path, range(4)).run(["download"])
    machine(tmp_path, range(1, 2)).run()
    # What was finished was another run.
    with pytest.raises(shared_run.StageError, match="no sign of life"):
        machine(tmp_path, range(1, 2), seed=5).run()


@pytest.mark.parametrize(
    ("ranks", "more", "told"),
    [
        (range(1, 2), {"seed": 5}, "the recipe .* is not the same here"),
        (range(1, 2), {}, "tasks 1 to 1 are those of the leading machine .* too"),
    ],
)
def test_machines_that_do_not_fit_together_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: range, more: dict[str, Any], told: str
) -> None:
    watched(monkeypatch)
    leader, follower = machine(tmp_path, range(2)), machine(tmp_path, ranks, **more)
    with leader.alive("leader"), pytest.raises(shared_run.StageError, match=told):
        follower.run()
