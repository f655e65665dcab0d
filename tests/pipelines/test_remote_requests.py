"""How many requests each stage makes to an object store, and for how many bytes: docs/object-storage.md states it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lola_data.recipe import parse_recipe
from pipelines.corpus import run_corpus
from tests.console import lola
from tests.moto_store import Store, moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs" / "object-storage.md"
SHARDS = 8
RECIPE = """
workdir: s3://bucket/w
languages: [bg, hy, kk, lt, mk, sk, sw, yo]
tokenizer: {vocab_size: 600}
executor: {tasks: 1, workers: 1}
balance: {html: false}
"""
TREES = {"identify": "raw", "dedup": "identified", "sample": "deduped", "tokenizer": "sampled", "tokenize": "sampled"}
CONTENT = (".parquet", ".arrow", ".frames", ".bin", ".idx", ".model")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path / "cache"))
    with moto_store(monkeypatch) as found:
        yield found


def stated() -> dict[str, tuple[float, float]]:
    """Most requests a shard, and most bytes for each byte of a shard, as the manual has them."""
    table = DOCS.read_text("utf-8").partition("| stage | requests a shard |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: (float(row[1]), float(row[2])) for row in rows}


def test_no_stage_makes_more_requests_than_the_manual_says(store: Store) -> None:
    made: dict[str, tuple[float, float]] = {}

    def note(name: str, tree: str) -> None:
        reads = [one for one in store.requests if one.is_read and one.path.endswith(CONTENT)]
        sizes = [len(content) for path, content in store.tree(f"w/{tree}").items() if path.endswith(".parquet")]
        assert len(sizes) == SHARDS
        made[name] = len(reads) / SHARDS, sum(one.bytes for one in reads) / sum(sizes)

    for stage in ("download", "identify", "dedup", "sample", "tokenizer", "tokenize"):
        store.requests.clear()
        run_corpus(parse_recipe(RECIPE), only=[stage])
        note(stage, TREES.get(stage, "raw"))
    for tree in ("raw", "sampled"):
        store.requests.clear()
        assert lola("balance", f"s3://bucket/w/{tree}").code == 0
        note(f"balance {tree}", tree)
    for how in ("verify", "verify --quick"):
        store.requests.clear()
        assert lola(*how.split(), "s3://bucket/w/raw").code == 0
        note(how, "raw")
    limits = stated()
    assert limits.keys() == made.keys()
    assert {
        name: found for name, found in made.items() if found[0] > limits[name][0] or found[1] > limits[name][1]
    } == {}
    # What the manual states is near what is so.
    assert {name for name, found in made.items() if limits[name][0] - found[0] > 1} == set()
