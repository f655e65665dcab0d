from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lola_data.cli import main
from lola_data.errors import RecipeError
from lola_data.train_config import PRESETS
from train.cli import make_config, summary_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig


def lola_data(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and errors of the console script."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def settings(tmp_path: Path, tiny: Callable[..., TrainConfig]) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(tiny().to_dict()))
    return path


def test_train_stop_and_go_on(tree: Path, tmp_path: Path, settings: Path, capsys: pytest.CaptureFixture[str]):
    command = ("train", tree, tmp_path / "run", "--config", settings)
    code, _, errors = lola_data(capsys, *command, "--max-steps", "4")
    assert code == 0
    assert "stopped at step 4 of 10, with a checkpoint" in errors
    code, output, errors = lola_data(capsys, *command)
    assert code == 0
    assert "resumed at step 4 of 10" in errors
    assert "aa" in output
    assert "next: lola-data generate" in output
    code, output, _ = lola_data(capsys, *command, "--json")
    assert json.loads(output) == json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--sed", "3"), 2, "--seed"),
        (("--layers", "none"), 2, "'none' is not a valid integer"),
        (("--layers", "0"), 2, "model.layers: 0 is not >= 1"),
        (("--top-k", "17"), 2, "top_k: 17 is more than the 16 experts"),
        (("--weights", "de"), 2, "'de' is not key=value"),
        (("--weights", "de=much"), 2, "'much' is not a number"),
        (("--schedule", "cosin"), 2, "'cosine'"),
        (("--config", "nowhere.json"), 2, "nowhere.json"),
        (("--preset", "dem"), 2, "'demo'"),
        ((), 1, "make token shards first"),
    ],
)
def test_errors_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
):
    found, _, errors = lola_data(capsys, "train", tmp_path / "none", tmp_path / "run", *arguments)
    assert found == code
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_errors_of_generate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, _, errors = lola_data(capsys, "generate", tmp_path / "none", "--prompt", "x")
    assert code == 1
    assert "config.json" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", "nan"), "--temperature"),
        (("--temperature", "inf"), "--temperature"),
        (("--temperature", "-1"), "--temperature"),
        (("--seed", "99999999999999999999"), "--seed"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_numbers_out_of_range_are_refused_by_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
):
    code, _, errors = lola_data(capsys, "generate", tmp_path, *arguments)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["train", "generate"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str):
    code, output, _ = lola_data(capsys, command, "--help")
    assert code == 0
    assert re.search(r"Examples?: lola-data", " ".join(output.split()))


def test_settings_are_laid_over_each_other(tmp_path: Path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"config": {"seed": 4, "model": {"layers": 6}}}))
    small = PRESETS["small"]
    given = {"seed": 5, "model": {"experts": 8}, "weights": {"de": 0.5}, "schedule": "wsd"}
    config = make_config(small, path, given)
    assert (config.seed, config.model.layers, config.model.experts) == (5, 6, 8)
    assert (config.weights, config.schedule) == ({"de": 0.5}, "wsd")
    assert (config.batch_size, config.model.d_model) == (small.batch_size, small.model.d_model)
    path.write_text("[1]")
    with pytest.raises(RecipeError, match=r"c\.json: expected an object"):
        make_config(small, path, {})


def test_every_setting_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a user may write in the recipe's section can be given on the command line, and arrives."""
    seen: list[TrainConfig] = []
    monkeypatch.setattr("train.cli.make_config", lambda *given: seen.append(make_config(*given)) or sys.exit(0))
    wanted = PRESETS["small"].replace(
        {
            "tokens": 7_000, "weights": {"de": 0.5, "zh": 2.0}, "schedule": "wsd", "grad_clip": 0.5,
            "tensorboard": False, "model": {"d_ff": 96, "capacity_factor": 1.25, "reset_at_eod": False, "top_k": 2},
        }
    )  # fmt: skip
    flat = {**wanted.to_dict(), **wanted.to_dict()["model"]}
    arguments = ["train", str(tmp_path), str(tmp_path / "run"), "--preset", "demo"]
    for name, value in flat.items():
        flag = "--" + name.replace("_", "-")
        if name == "weights":
            arguments += [part for lang, weight in value.items() for part in (flag, f"{lang}={weight}")]
        elif isinstance(value, bool):
            arguments += [flag if value else f"--no-{flag[2:]}"]
        elif name != "model" and value not in (None, {}):
            arguments += [flag, str(value)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert seen == [wanted]


def test_recipe_names_tree_run_and_settings(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "tokens").symlink_to(tree)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"workdir": str(work), "train": tiny().to_dict()}))
    code, output, _ = lola_data(capsys, "train", "--recipe", recipe, "--json")
    assert code == 0
    summary = json.loads((work / "runs" / "moe" / "summary.json").read_text())
    assert json.loads(output) == summary
    assert summary["steps"] == tiny().steps
    code, _, errors = lola_data(capsys, "train", "--recipe", recipe, "--preset", "demo")
    assert (code, "not both" in errors) == (2, True)
    code, _, errors = lola_data(capsys, "train", "--preset", "demo")
    assert (code, "or a recipe" in errors) == (2, True)


@pytest.fixture
def recipe(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]) -> Path:
    """A recipe whose work folder holds ``tree``; 10 steps."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "tokens").symlink_to(tree)
    path = tmp_path / "my.yaml"
    path.write_text(json.dumps({"workdir": str(tmp_path / "work"), "train": tiny().to_dict()}))
    return path


@pytest.mark.parametrize("name", ["my.yaml", "my.YML", "settings"])
def test_a_file_in_the_place_of_the_tree_is_a_recipe(
    recipe: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    path = recipe.rename(tmp_path / name)
    code, _, errors = lola_data(capsys, "train", path, "--max-steps", "2")
    assert (code, "at step 2 of 10" in errors) == (0, True)
    assert (tmp_path / "work" / "runs" / "moe" / "config.json").is_file()
    code, _, errors = lola_data(capsys, "train", path, tmp_path / "second", "--seed", "9", "--max-steps", "1")
    assert (code, "at step 1 of 10" in errors) == (0, True)
    written = json.loads((tmp_path / "second" / "config.json").read_text())
    assert (written["config"]["seed"], written["config"]["model"]["d_model"]) == (9, 16)


def test_a_folder_called_like_a_recipe_is_a_tree(
    tree: Path, tmp_path: Path, settings: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tree.rename(tmp_path / "tokens.yaml")
    command = ("train", folder, tmp_path / "run", "--config", settings, "--max-steps", "1")
    assert lola_data(capsys, *command)[0] == 0
    assert (tmp_path / "run" / "config.json").is_file()


def test_errors_of_a_recipe_in_the_place_of_the_tree(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, message in (
        ((tmp_path / "none.yaml",), "none.yaml: no such recipe; `lola-data init` writes one"),
        ((recipe, "--preset", "demo"), "give a recipe or --preset, not both"),
        ((recipe, "--recipe", recipe), "are two recipes; give one"),
    ):
        code, _, errors = lola_data(capsys, "train", *arguments)
        assert (code, message in errors) == (2, True)
        assert "Traceback" not in errors
    recipe.write_text("train: {sed: 1}")
    code, _, errors = lola_data(capsys, "train", recipe)
    assert (code, "my.yaml" in errors, "did you mean `seed`" in errors) == (2, True, True)
    assert not (tmp_path / "work" / "runs").exists()


def test_summary_table():
    row = {
        "train_documents": 1200, "train_tokens": 9, "epochs": 1.5, "held_out_tokens": 3, "held_out_loss": 4.25,
        "unigram_loss": 5.0, "bits_per_byte": None,
    }  # fmt: skip
    summary = {
        "steps": 10, "tokens": 640, "parameters": 1_000_000, "active_parameters": 400_000, "held_out_loss": 4.25,
        "unigram_loss": 5.0, "languages": {"aa": {**row, "train_documents": 3}, "de": row},
    }  # fmt: skip
    lines = summary_table(summary).splitlines()
    assert lines[0] == "1,000,000 parameters, 400,000 active on a token; 640 tokens in 10 steps"
    assert lines[2].split() == ["de", "1,200", "1.50", "4.250", "5.000", "-"]
    assert lines[3].split()[0] == "aa"
    assert lines[4].split() == ["mean", "4.250", "5.000"]


def test_a_signal_while_training_is_being_got_ready_ends_it_cleanly(tree: Path, tmp_path: Path, settings: Path):
    arguments = ["train", str(tree), str(tmp_path / "run"), "--config", str(settings)]
    script = (
        "import os, signal, sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Signal(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n"
        "sys.meta_path.insert(0, Signal())\n"
        "from lola_data.cli import main\n"
        f"main({arguments!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "stopped by SIGUSR1 at step 0 of 10, before its first step; the same command goes on" in ended.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))
