"""What the tests of clusters share: recipes, runs as a user starts them, and trees to compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from lola_data.layout import TREES
from train.metrics import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_SECONDS = 600
RECIPE = {
    "unit_mb": 1,
    "sample": {"method": "temperature", "alpha": 0.5},
    "tokenizer": {"vocab_size": 3200, "train_bytes": 400_000},
    "tokenize": {"valid_share": 0.1},
    "train": {
        "tokens": 6144, "batch_size": 8, "eval_every": 0, "eval_tokens": 64, "log_every": 1, "checkpoint_every": 2,
        "threads": 1, "model": {"layers": 2, "d_model": 16, "heads": 2, "seq_len": 64, "experts": 4},
    },
}  # fmt: skip


def write_recipe(folder: Path, executor: dict[str, Any], **more: Any) -> Path:
    """A recipe with the work folder ``work`` beside it; what is given for a section is added to it."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"workdir": str(folder / "work"), **RECIPE, "executor": executor}
    for key, value in more.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(values))
    return recipe


def lola(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "lola_data.cli", *map(str, arguments)]
    clean = {**os.environ, **(env or {})}
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


def run(recipe: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """``lola-data run``, which must succeed; what it said."""
    done = lola("run", recipe, *arguments, env=env)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stderr + done.stdout


def follow(recipe: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Wait for what was submitted."""
    return lola("status", recipe.parent / "work", "--follow", env=env)


def until(seen: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := seen():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} has not come about")


def trees(recipe: Path) -> dict[str, Any]:
    """Every file of the trees of a work folder, and of the removed rows; of records, what tells no time."""
    root = recipe.parent / "work"
    found: dict[str, Any] = {}
    for name in (*TREES.values(), "removed"):
        for path in sorted((root / name).rglob("*")):
            relative = path.relative_to(root)
            if path.is_dir() or path.name == "lock" or "tensorboard" in relative.parts:
                continue
            found[str(relative)] = content(path)
    return found


def content(path: Path) -> Any:
    """The bytes of a file; of a training run's records, what does not hang on the machine."""
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    return [{**json.loads(line), **dict.fromkeys(MACHINE)} for line in path.read_text().splitlines()]


def check_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Every file is there, and none more, with the same bytes."""
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if found[name] != wanted[name]]
    assert not different
