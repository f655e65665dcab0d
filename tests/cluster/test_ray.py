"""The corpus graph on a Ray of two processes on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.cluster.runs import check_same, lola, run, trees, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

# A Ray that is there and cannot be imported is no reason to skip.
if find_spec("ray") is None:
    pytest.skip("Ray is not installed: make cluster", allow_module_level=True)

LANGUAGES = ["sw", "yo"]


def test_a_run_on_ray_ends_as_a_local_run(tmp_path: Path) -> None:
    calm = write_recipe(tmp_path / "calm", {"tasks": 2, "workers": 2}, languages=LANGUAGES)
    run(calm)
    recipe = write_recipe(
        tmp_path / "c", {"kind": "ray", "tasks": 2, "workers": 2, "memory_mb": 1000}, languages=LANGUAGES
    )
    said = run(recipe)
    check_same(trees(recipe), trees(calm))
    assert "Traceback" not in said
    # By tasks of Ray: each leaves its statistics, and no work folder a pickle.
    assert len([*(tmp_path / "c/work/logs/identify/main/stats").glob("*.json")]) == 2
    assert not [path for path in (tmp_path / "c/work").rglob("*") if path.suffix in (".pik", ".pkl", ".pickle")]


def test_units_that_fail_on_ray_are_told_and_done_again(tmp_path: Path) -> None:
    import shutil

    from lola_data.sample_corpus import sample_root

    for lang in ("sw", "yo"):
        shutil.copytree(sample_root() / lang, tmp_path / "source" / lang)
    shard = next((tmp_path / "source/yo").glob("*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    download = {"source": "local", "path": str(tmp_path / "source")}
    recipe = write_recipe(tmp_path, {"kind": "ray", "tasks": 2, "memory_mb": 1000}, download=download)
    done = lola("run", recipe, "--only", "download")
    assert done.returncode == 1
    assert str(shard) in done.stderr
    assert "Traceback" not in done.stderr
    shard.write_bytes(whole)
    assert "1 of 2 units to do" in run(recipe, "--only", "download")


def test_a_cluster_out_of_reach_is_told_in_a_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"kind": "ray", "address": "127.0.0.1:1"}, languages=["sw"])
    done = lola("run", recipe, "--only", "download")
    assert done.returncode == 1
    assert "Ray at 127.0.0.1:1: " in done.stderr
    assert "Traceback" not in done.stderr
