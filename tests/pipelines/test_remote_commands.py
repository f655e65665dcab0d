"""Every command that reads a work folder says of one on an object store what it says of one on a disk."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from lola_data.recipe import parse_recipe
from pipelines.corpus import run_corpus
from tests.console import lola
from tests.moto_store import SECRET, Store, moto_store
from tests.pipelines.test_remote_workdir import RECIPE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REMOTE = "s3://bucket/w"
COMMANDS = {
    "status": "status WORK --languages",
    "verify": "verify WORK",
    "verify of a tree": "verify WORK/tokens --json",
    "balance": "balance WORK",
    "balance of a tree": "balance WORK/sampled",
    "balance of tokens": "balance WORK/tokens --json",
    "inspect": "inspect WORK --n 3 --seed 5",
    "inspect of tokens": "inspect WORK/tokens --n 2",
    "inspect of one document": "inspect WORK sw/sw_part_00000/3",
    "diff of a run": "diff WORK",
    "diff of trees": "diff WORK/raw WORK/sampled",
    "evaluate on tokens": "evaluate WORK/runs/moe WORK/tokens --split train --json",
    "evaluate on some tokens": "evaluate WORK/runs/moe WORK/tokens --split train --max-tokens 100",
    "evaluate on text": "evaluate WORK/runs/moe WORK/sampled --step best",
    "generate": "generate WORK/runs/moe --prompt Habari --max-tokens 8 --json",
    "generate with a language": "generate WORK/runs/moe/ --lang yo,sw --max-tokens 8 --step 2",
    "trace": "trace WORK/runs/moe --step 3",
    "trace with tokens named": "trace WORK/runs/moe --step 1 --sample 1 --tokens WORK/tokens --json",
}
REFUSED = {
    "generate WORK/runs/none": "WORK/runs/none/config.json: ",
    "generate WORK/runs/moe --step 3": "WORK/runs/moe/checkpoints: no whole checkpoint of step 3; there are: 2, 4",
    "evaluate WORK/runs/none WORK/tokens": "WORK/runs/none/config.json: ",
    "export WORK/runs/none OUT": "WORK/runs/none/config.json: ",
    "trace WORK/runs/moe --step 99": "--step 99: the run has the steps 1 to 4",
    "trace WORK/runs/none --step 1": "WORK/runs/none/config.json: ",
    "status WORK/none": "WORK/none: no work folder",
    "verify WORK/none": "WORK/none: no",
    "balance WORK/none": "WORK/none: ",
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete work folder."""
    work = tmp_path_factory.mktemp("local") / "w"
    run_corpus(parse_recipe(RECIPE, overrides=[f"workdir={json.dumps(str(work))}"]))
    return work


@pytest.fixture(scope="module")
def store(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The same on a store."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        with moto_store(monkeypatch) as found:
            for path in local.rglob("*"):
                if path.is_file():
                    found.filesystem.pipe_file(f"bucket/w/{path.relative_to(local).as_posix()}", path.read_bytes())
            yield found


def called(command: str, work: str, out: Path) -> tuple[int, str, str]:
    outcome = lola(*(word.replace("WORK", work).replace("OUT", str(out)) for word in command.split()))
    assert "Traceback" not in outcome.stderr
    assert SECRET not in outcome.stdout + outcome.stderr
    return outcome.code, outcome.stdout.replace(work, "WORK"), outcome.stderr.replace(work, "WORK")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_that_of_a_folder_on_a_disk(store: Store, local: Path, tmp_path: Path, name: str) -> None:
    here, there = (called(COMMANDS[name], work, tmp_path) for work in (str(local), REMOTE))
    assert here[0] == 0, here[2]
    assert there == here


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_not_there_is_told(store: Store, local: Path, tmp_path: Path, command: str) -> None:
    here, there = (called(command, work, tmp_path / "out") for work in (str(local), REMOTE))
    assert there[0] == here[0] > 0
    for _, out, told in (here, there):
        assert out == ""
        assert REFUSED[command] in told
    assert not (tmp_path / "out").exists()


def test_an_export_is_the_same(store: Store, local: Path, tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("here", "there")]
    for work, out in zip((str(local), REMOTE), made, strict=True):
        assert called("export WORK/runs/moe OUT --step 2", work, out)[0] == 0
    here, there = ({path.name: path.read_bytes() for path in out.iterdir()} for out in made)
    assert there == here


def test_figures_of_a_run_are_the_same(store: Store, local: Path, tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("here", "there")]
    here, there = (
        called("train plot WORK/runs/moe --out OUT --png", work, out)
        for work, out in zip((str(local), REMOTE), made, strict=True)
    )
    assert (there[0], there[1]) == (here[0], here[1]) == (0, here[1])
    one, other = ({path.name: path.read_bytes() for path in out.iterdir()} for out in made)
    assert other == one
    code, _, told = called("train plot WORK/runs/moe", REMOTE, tmp_path)
    assert code == 2
    assert "name a folder of this machine for the figures with --out" in told


def test_a_card_is_the_same(store: Store, local: Path, tmp_path: Path) -> None:
    shutil.copytree(local, tmp_path / "w")
    for work in (str(tmp_path / "w"), REMOTE):
        code, _, told = called("card WORK", work, tmp_path)
        assert code == 0, told
    for name in ("README.md", "croissant.json"):
        assert store.tree("w")[name] == (tmp_path / "w" / name).read_bytes()


def test_a_recipe_is_a_file_of_this_machine(store: Store) -> None:
    for command in ("run", "plan", "recipe check"):
        outcome = lola(*command.split(), "s3://bucket/my.yaml")
        assert outcome.code == 2
        assert "s3://bucket/my.yaml: a recipe is read from a file of this machine; copy it here first" in outcome.stderr
