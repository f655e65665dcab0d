"""Where a probe looks, and that what it finds stands for the whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import ShardError
from pipelines.probe import LEAST_BYTES, MOST_BYTES, draw, probe_size, write_probe
from pipelines.shapes import Shape
from pipelines.sources import LocalSource

if TYPE_CHECKING:
    from pathlib import Path


def test_every_byte_is_as_likely() -> None:
    # 300 seeds x 8 places over shards of 10, 30 and 60 bytes: 240, 720 and 1,440 places are expected.
    counts = Counter(index for seed in range(300) for index, _ in draw([10, 30, 60], 8, seed))
    assert sum(counts.values()) == 2400
    for index, expected in enumerate((240, 720, 1440)):
        # Systematic drawing gives each shard its share to within one place a seed.
        assert abs(counts[index] - expected) <= 300 * 0.25
    places = [at for seed in range(300) for index, at in draw([10, 30, 60], 8, seed) if index == 2]
    assert abs(sum(places) / len(places) - 0.5) < 0.02
    assert all(0 <= at < 1 for at in places)


def test_places_are_spread_evenly() -> None:
    indices = [index for index, _ in draw([25, 25, 25, 25], 4, 7)]
    assert indices == [0, 1, 2, 3]


def test_size_is_one_per_cent_within_bounds() -> None:
    assert probe_size(10**9) == 10**7
    assert probe_size(10**6) == 10**6
    assert probe_size(10**7) == LEAST_BYTES
    assert probe_size(10**13) == MOST_BYTES


def _tree(root: Path, rows: dict[str, int]) -> Path:
    for path, count in rows.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{path} {number} " + "wort " * (number % 50) for number in range(count)]
        pq.write_table(pa.table({"text": texts}), root / path, row_group_size=200)
    return root


def _texts(root: Path) -> list[str]:
    return [text for path in sorted(root.rglob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]


def test_rows_are_those_of_the_corpus_and_none_twice(tmp_path: Path) -> None:
    source = LocalSource(str(_tree(tmp_path / "source", {"de/a.parquet": 3000, "sw/b.parquet": 500})))
    folders = [tmp_path / "g0", tmp_path / "g1"]
    pieces = write_probe(source, Shape(), source.shards(None), folders, seed=3)
    texts: list[str] = []
    for group, folder in zip(pieces, folders, strict=True):
        found = [
            row
            for path in sorted((folder / "raw").rglob("*.parquet"))
            for row in pq.read_table(path)["text"].to_pylist()
        ]
        assert len(found) == sum(piece.rows for piece in group)
        texts += found
    assert len(set(texts)) == len(texts)
    everything = {
        text for path in (tmp_path / "source").rglob("*.parquet") for text in pq.read_table(path)["text"].to_pylist()
    }
    assert set(texts) <= everything
    # The bytes that the rows stand for are those they take in the file, so the ratio gives the rows of the whole.
    rows = sum(piece.rows for group in pieces for piece in group)
    share = sum(piece.file_bytes for group in pieces for piece in group) / sum(s.bytes for s in source.shards(None))
    assert rows / share == pytest.approx(3500, rel=0.25)


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    source = LocalSource(str(_tree(tmp_path / "source", {"de/a.parquet": 3000})))
    one = write_probe(source, Shape(), source.shards(None), [tmp_path / "1"], seed=3)
    assert one == write_probe(source, Shape(), source.shards(None), [tmp_path / "2"], seed=3)


def test_a_place_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = _tree(tmp_path / "source", {"de/a.parquet": 300})
    (root / "de/a.parquet").write_bytes((root / "de/a.parquet").read_bytes()[:-50])
    source = LocalSource(str(root))
    with pytest.raises(ShardError, match=r"de/a\.parquet: cannot be read"):
        write_probe(source, Shape(), source.shards(None), [tmp_path / "g"], seed=1)


@pytest.mark.parametrize("drop", [False, True])
def test_further_columns_are_drawn_too(tmp_path: Path, drop: bool) -> None:
    path = tmp_path / "source" / "de" / "a.parquet"
    path.parent.mkdir(parents=True)
    notes = [{"n": number} for number in range(300)]
    pq.write_table(pa.table({"note": notes, "text": [f"text {number}" for number in range(300)]}), path)
    source = LocalSource(str(path.parents[1]))
    write_probe(source, Shape(drop_extra=drop), source.shards(None), [tmp_path / "g"], seed=1)
    rows = [row for shard in (tmp_path / "g").rglob("*.parquet") for row in pq.read_table(shard).to_pylist()]
    assert rows
    for row in rows:
        assert row.get("note") == (None if drop else {"n": int(row["text"].split()[1])})
        assert ("note" in row) is not drop
