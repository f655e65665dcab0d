"""A run killed again and again ends with the very trees of a run that was left alone, for any number of tasks."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.sample_corpus import sample_root
from tests.cluster.runs import content

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = ("sw", "th", "yo", "cy")
KILLS = {1: 1, 2: 10, 5: 1}
"""Kills by number of tasks."""

RECIPE = """
workdir: {workdir}
unit_mb: 1
download: {{source: local, path: {source}}}
sample: {{method: temperature, alpha: 0.5}}
tokenizer: {{vocab_size: 1600, train_bytes: 400000}}
tokenize: {{valid_share: 0.1}}
train:
  tokens: 6144
  batch_size: 8
  eval_every: 0
  eval_tokens: 64
  log_every: 1
  checkpoint_every: 2
  model: {{layers: 2, d_model: 16, heads: 2, seq_len: 64, experts: 4}}
executor: {{tasks: {tasks}, workers: 2}}
"""


def write_recipe(folder: Path, source: Path, tasks: int) -> Path:
    folder.mkdir(parents=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(workdir=folder / "work", source=source, tasks=tasks))
    return recipe


def start(recipe: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lola_data.cli", "run", str(recipe)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tree(root: Path) -> dict[str, Any]:
    """Everything below a work folder but the lock, the logs and what tells the time."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_dir() or relative.parts[0] == "logs" or path.name == "lock" or "tensorboard" in relative.parts:
            continue
        found[str(relative)] = content(path)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for lang in LANGUAGES:
        shutil.copytree(sample_root() / lang, folder / lang)
    return folder


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, source: Path) -> tuple[dict[str, Any], float]:
    recipe = write_recipe(tmp_path_factory.mktemp("calm") / "c", source, 2)
    began = time.monotonic()
    process = start(recipe)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return tree(recipe.parent / "work"), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_killed_runs_end_as_calm_ones(
    tmp_path: Path, source: Path, calm: tuple[dict[str, Any], float], tasks: int
) -> None:
    wanted, seconds = calm
    recipe = write_recipe(tmp_path / "c", source, tasks)
    moments = random.Random(tasks)
    for _ in range(KILLS[tasks]):
        process = start(recipe)
        try:
            process.communicate(timeout=moments.uniform(0.05, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    process = start(recipe)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    found = tree(tmp_path / "c" / "work")
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if found[name] != wanted[name]]
    assert not different
