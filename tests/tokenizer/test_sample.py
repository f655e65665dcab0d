"""The training sample: quotas by formula, a choice that depends on ids alone, trees with and without ids."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from lola_data.errors import ShardError, StageError
from tokenizer.sample import DOCUMENT, Size, choose, measure, quotas, tree_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def batch(rows: Sequence[tuple[str, str | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": name, "text": text} for name, text in rows], schema=DOCUMENT)


def test_quotas_follow_the_formula() -> None:
    sizes = {"a": 900_000, "b": 100_000}
    assert quotas(sizes, 10_000, 1.0) == {"a": 9_000, "b": 1_000}
    assert quotas(sizes, 10_000, 0.0) == {"a": 5_000, "b": 5_000}
    # 900^0.3 : 100^0.3 = 0.6591 : 0.3409
    assert quotas(sizes, 10_000, 0.3) == {"a": 6_591, "b": 3_409}


def test_what_a_small_language_cannot_fill_goes_to_the_others() -> None:
    given = quotas({"a": 1000, "b": 1000, "c": 10, "d": 0}, 1000, 0.0)
    assert given == {"a": 495, "b": 495, "c": 10, "d": 0}
    assert quotas({"a": 30, "b": 5}, 1000, 0.3) == {"a": 30, "b": 5}


def reference_choice(rows: list[tuple[str, str]], quota: int, seed: int) -> list[tuple[str, str]]:
    """Documents in the order of their hash, the last one cut, by the xxhash package."""
    key = xxhash.xxh64_intdigest(f"{seed}/tokenizer".encode())
    chosen: list[tuple[str, str]] = []
    left = quota
    for name, text in sorted(rows, key=lambda row: (xxhash.xxh64_intdigest(row[0].encode(), key), row[0])):
        if left <= 0:
            break
        chosen.append((name, text.encode()[:left].decode(errors="ignore")))
        left -= len(text.encode())
    return chosen


@pytest.mark.parametrize("quota", [1, 12_345, 300_000, 10**9])
def test_the_choice_is_by_hash_whatever_the_layout(quota: int) -> None:
    rng = random.Random(7)
    rows = [(f"de/s/{i}", "ä€x" * rng.randrange(1, 900)) for i in range(1_500)]
    expected = reference_choice(rows, quota, seed=5)
    for size, order in ((1_500, 0), (100, 1), (7, 2)):
        shuffled = rows.copy()
        random.Random(order).shuffle(shuffled)
        batches = [batch(shuffled[at : at + size]) for at in range(0, len(rows), size)]
        table = choose(batches, quota, seed=5)
        assert list(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)) == expected


def test_another_seed_is_another_choice() -> None:
    batches = [batch([(f"x/{i}", "text" * 20) for i in range(500)])]
    assert choose(batches, 800, 1)["id"].to_pylist() != choose(batches, 800, 2)["id"].to_pylist()


def test_no_documents_and_null_documents() -> None:
    assert choose([], 100, 0).num_rows == 0
    assert choose([batch([("a", None), ("b", "")])], 100, 0).num_rows == 2


def test_invalid_utf8_names_the_document() -> None:
    text = pa.array([b"fine", b"bro\xffken"], pa.binary()).view(pa.string())
    rows = pa.RecordBatch.from_arrays([pa.array(["de/s/0", "de/s/1"]), text], schema=DOCUMENT)
    with pytest.raises(ShardError, match=r"de/s/1: text is not valid UTF-8 \(byte 3\)"):
        choose([rows], 100, 0)


def write(path: Path, rows: dict[str, list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path, row_group_size=2)


def test_a_raw_tree_gets_the_ids_that_identify_would_give(tmp_path: Path) -> None:
    write(tmp_path / "de" / "de_part_00000.parquet", {"text": ["a", "bb", "ccc"], "url": ["x", "y", "z"]})
    write(tmp_path / "sw" / "s.parquet", {"id": ["p", "q"], "text": ["dd", "é"]})
    source = tree_source(str(tmp_path))
    rows = [row for read in source.values() for one in read() for row in one.to_pylist()]
    assert [row["id"] for row in rows] == [
        "de/de_part_00000/0",
        "de/de_part_00000/1",
        "de/de_part_00000/2",
        "p",
        "q",
    ]
    assert [row["text"] for row in rows] == ["a", "bb", "ccc", "dd", "é"]
    assert measure(source) == {"de": Size(3, 6), "sw": Size(2, 4)}
    assert list(tree_source(str(tmp_path), ["sw"])) == ["sw"]


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no <lang>/<shard>\.parquet"):
        tree_source(str(tmp_path / "absent"))
    write(tmp_path / "de" / "a.parquet", {"text": ["x"]})
    with pytest.raises(StageError, match="no documents in sw, yo"):
        tree_source(str(tmp_path), ["yo", "de", "sw"])
