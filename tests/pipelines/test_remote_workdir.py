"""The whole graph with its work folder on an object store: the trees of a local run, in few and large requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.errors import RecipeError
from lola_data.recipe import parse_recipe
from pipelines.corpus import STAGES, run_corpus, status
from tests.moto_store import SECRET, Store, moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPE = """
languages: [sw, yo]
tokenizer: {vocab_size: 500}
executor: {tasks: 1, workers: 1}
balance: {html: false}
train:
  tokens: 512
  batch_size: 2
  checkpoint_every: 2
  eval_tokens: 64
  tensorboard: false
  model: {layers: 2, d_model: 16, heads: 2, seq_len: 64, experts: 2, vocab_multiple: 8}
"""
APART = ("logs/", "scratch/", "state/lock", "runs/moe/metrics.jsonl", "runs/moe/.lock")
"""Files that hold times, that are locks, or that are deleted at the end."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path / "cache"))
    with moto_store(monkeypatch) as found:
        yield found


def run(workdir: str, **how: Any) -> dict[str, Any]:
    return run_corpus(parse_recipe(RECIPE, overrides=[f"workdir={json.dumps(workdir)}"]), **how)


def content_of(trees: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in trees.items() if not path.startswith(APART)}


def test_each_stage_by_itself_makes_what_a_local_run_makes(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local = tmp_path / "local"
    run(str(local))
    reads: dict[str, list[int]] = {}
    for stage in STAGES:
        before = len(store.requests)
        run("s3://bucket/w", only=[stage])
        made = store.requests[before:]
        data = (".parquet", ".arrow", ".frames", ".bin", ".idx")
        reads[stage] = [one.bytes for one in made if one.is_read and one.path.endswith(data)]
        # Large parts are for large objects: all of these are sent in one request each.
        assert not [one for one in made if one.method == "POST" and "upload" in one.query]
        puts = [one.path for one in made if one.method == "PUT"]
        shown = [path for path in puts if path.endswith(data)]
        manifest = [number for number, path in enumerate(puts) if path.endswith("/manifest.json")]
        assert len(manifest) == 1
        assert all(puts.index(path) < manifest[0] for path in shown)
    there = store.tree("w")
    expected = {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    assert content_of(there) == content_of(expected)
    # A shard of a language in each tree; each small file is read whole, once each time it is opened.
    assert reads["download"] == []
    assert {stage: len(sizes) for stage, sizes in reads.items() if len(sizes) > 2 * 30} == {}
    for content in there.values():
        assert SECRET.encode() not in content
    out, err = capfd.readouterr()
    assert SECRET not in out + err

    rows = {row["stage"]: row for row in status_of("s3://bucket/w")}
    assert {row["state"] for row in rows.values()} == {"complete"}
    assert rows["dedup"]["totals"] == {row["stage"]: row for row in status_of(str(local))}["dedup"]["totals"]
    store.requests.clear()
    run("s3://bucket/w")
    trees = ("/raw/", "/identified/", "/deduped/", "/sampled/", "/tokenizer/", "/tokens/", "/runs/", "/report/")
    assert not [one.path for one in store.requests if one.method == "PUT" and any(tree in one.path for tree in trees)]
    assert not [one.path for one in store.reads() if one.path.endswith((".parquet", ".bin"))]


def status_of(workdir: str) -> list[dict[str, Any]]:
    from lola_data.layout import Layout

    layout = Layout.found_at(workdir)
    assert layout is not None
    return status(layout)


@pytest.mark.parametrize("key", ["workdir", "download.path", "tokenizer.model", "identify.model"])
def test_a_recipe_with_credentials_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"`{key}`: has credentials in it") as error:
        parse_recipe("", overrides=[f"{key}=s3://AKIAKEY:{SECRET}/x+y@bucket/w"])
    assert SECRET not in str(error.value)
    assert "AKIAKEY" not in str(error.value)


def test_a_work_folder_that_is_none_is_told_of(store: Store) -> None:
    from lola_data.layout import Layout

    assert Layout.found_at("s3://bucket/nothing") is None
    assert Layout.found_at("s3://nobody/nothing") is None
