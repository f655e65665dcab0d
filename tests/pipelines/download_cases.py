"""Shards, trees and a way to run the download stage in this process, for its tests."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lola_data.layout import Layout
from lola_data.recipe import parse_recipe
from pipelines.download import build

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.stage import Stage


def shard(lang: str, rows: int = 3, *, columns: dict[str, Any] | None = None) -> bytes:
    """A Parquet shard, as bytes. 2,000 hexadecimal digits a row that do not compress well."""
    texts = [hashlib.shake_256(f"{lang}/{row}".encode()).hexdigest(1000) for row in range(rows)]
    values = {"text": texts, "url": [f"https://{lang}.example/{row}" for row in range(rows)]}
    out = io.BytesIO()
    pq.write_table(pa.table(values if columns is None else columns), out)
    return out.getvalue()


def corpus(counts: dict[str, int]) -> dict[str, bytes]:
    return {
        f"{lang}/{lang}_part_{number:05d}.parquet": shard(f"{lang}{number}", rows=3 + number)
        for lang, count in counts.items()
        for number in range(count)
    }


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def stage_of(workdir: Path, *overrides: str) -> Stage:
    recipe = parse_recipe("", overrides=[f"workdir={json.dumps(str(workdir))}", *overrides])
    return build(recipe, Layout(recipe.workdir))


def fetch(stage: Stage) -> list[str]:
    """Plan and run the one phase in this process; messages of the units that failed."""
    step = stage.phases[0]
    step.state.begin({"settings": stage.settings})
    step.state.write_plan(step.phase, [work.to_json() for work in step.plan()])
    step.state.forget_failures(step.phase)
    list(step.run(rank=0, world_size=1))
    return [failure["message"] for failure in step.state.failures(step.phase)]


def manifest_of(stage: Stage) -> dict[str, Any]:
    return stage.write_manifest({"settings": stage.settings})
