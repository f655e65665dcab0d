"""What docs/clusters.md tells a user to do, done: its commands and its recipe, in its order.

Changed are the place of the work folder, the hub (one on this machine, with the embedded corpus), and sizes: the
cluster has one node without GPUs, and nobody wants to wait.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lola_data.sample_corpus import sample_root
from tests.cluster.runs import RECIPE, WAIT_SECONDS
from tests.pipelines.fake_hub import REPO, FakeHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"
HEADING = "## From a Slurm account to a corpus and a model"
SMALL: dict[str, Any] = {
    "unit_mb": 1,
    "download": {"repo": REPO},
    "executor": {
        "tasks": 2, "lanes": 1, "memory_mb": 1000, "time": "10",
        "stages": {
            "tokenizer": {"cpus_per_task": 1, "time": "10"},
            "train": {"nodes": 1, "gpus_per_node": None, "cpus_per_task": 1, "time": "10"},
        },
    },
    "tokenizer": {**RECIPE["tokenizer"], "threads": 1, "memory_limit_mb": 2000},
    "tokenize": RECIPE["tokenize"],
}  # fmt: skip


def blocks() -> Iterator[tuple[str, str]]:
    """Language and content of the code blocks of the walkthrough."""
    section = PAGE.read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    for found in re.finditer(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with those of ``changes``, section by section."""
    new = dict(values)
    for key, value in changes.items():
        new[key] = changed(new.get(key) or {}, value) if isinstance(value, dict) else value
    return new


def test_the_walkthrough_leads_to_a_corpus_of_20_languages_and_a_model(
    tmp_path: Path, slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shell(command: str) -> str:
        words = command.replace("/scratch/me", str(tmp_path)).replace(
            ".venv/bin/lola-data", f"{shlex.quote(sys.executable)} -m lola_data.cli"
        )
        done = subprocess.run(
            words, shell=True, cwd=tmp_path, env=os.environ | slurm, capture_output=True, text=True, check=False,
            timeout=WAIT_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    (_, begin), (kind, recipe), (_, run), (_, after) = blocks()
    assert kind == "yaml"
    values = yaml.safe_load(recipe.replace("/scratch/me", str(tmp_path)))
    languages = values["languages"]
    assert len(languages) == 20
    shards = [path for lang in languages for path in (sample_root() / lang).iterdir()]
    files = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in shards}
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    install, *rest = begin.splitlines()
    assert "pip install" in install
    for command in rest:
        shell(command)
    with FakeHub(files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        corpus = tmp_path / "corpus.yaml"
        written = yaml.safe_load(corpus.read_text(encoding="utf-8"))
        # The recipe of the page is one: with nothing but the folder and the hub changed it is accepted.
        corpus.write_text(yaml.safe_dump(changed(changed(written, values), {"download": {"repo": REPO}})))
        shell(".venv/bin/lola-data recipe check corpus.yaml")
        corpus.write_text(yaml.safe_dump({**changed(changed(written, values), SMALL), "train": RECIPE["train"]}))
        plan, submitted, followed = (shell(command) for command in run.splitlines())
    assert "core-hours" in plan
    assert re.search(r"submitted \d+ jobs to Slurm", submitted)
    assert "train" in submitted
    assert re.search(r"^train +complete", followed, re.MULTILINE), followed
    assert (tmp_path / "corpus/tokens/manifest.json").is_file()
    assert {path.name for path in (tmp_path / "corpus/raw").iterdir() if path.is_dir()} == {*languages}
    assert {path.name.split("_")[0] for path in (tmp_path / "corpus/tokens/train").glob("*.bin")} == {*languages}
    assert (tmp_path / "corpus/report/balance.html").is_file()
    trained, text = (shell(command) for command in after.splitlines())
    assert "next: lola-data generate" in trained
    assert text.startswith("Habari ya asubuhi")
