"""The section `balance`: the tree it makes, what must agree, and how intervals are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.stages import balance
from benchmarks.stages.balance import EXACT, OURS, POLARS, covered, equal, make_tree, tell
from benchmarks.tiles import Raw, write
from lola_data.balance.measure import measure
from lola_data.schemas import RAW

if TYPE_CHECKING:
    from pathlib import Path


def language(bounds: tuple[float, float], characters: int = 90) -> dict[str, Any]:
    counts = {"documents": 10, "bytes": 100, "characters": characters, "p50_length": 8.0}
    return {**counts, "characters_bounds": list(bounds)}


def run(found: dict[str, Any], *, seconds: float = 1.0, peak: int = 10**8) -> dict[str, Any]:
    return {"found": {**found}, "seconds": seconds, "cpu": 2 * seconds, "peak": peak}


def test_the_tree_is_as_large_as_asked_and_no_row_group_has_a_text_twice(tmp_path: Path) -> None:
    for lang in ("de", "yo"):
        rows = (Raw(f"{lang} {number} " * (1 + number % 50), None, None, None) for number in range(3000))
        write(rows, tmp_path / "raw" / lang, f"{lang}_part_00000.parquet")
    for name in ("a", "b"):
        make_tree(tmp_path / "raw", tmp_path / name, 0.0004, lambda line: None)
    files = sorted((tmp_path / "a").rglob("*.parquet"))
    assert 0.0004e9 < sum(path.stat().st_size for path in files) < 0.0012e9
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        file = pq.ParquetFile(path)
        assert file.schema_arrow.equals(RAW)
        for group in range(file.num_row_groups):
            texts = file.read_row_group(group, columns=["text"])["text"].to_pylist()
            assert len(set(texts)) == len(texts)
    found = measure(tmp_path / "a")
    assert set(found.languages) == {"de", "yo"}
    assert found.years.height
    assert found.domains.height > 100
    ours = balance._ours(tmp_path / "a", exact=True)
    ours.pop("read_bytes")
    assert equal(ours, balance._polars(tmp_path / "a"))


def test_intervals_are_counted_by_whether_they_hold_the_truth() -> None:
    truth = {"de": language((0, 0)), "yo": language((0, 0), 1000)}
    ours = {"de": language((80, 100)), "yo": language((980, 990))}
    assert covered(truth, ours) == (1, 2, {"characters": (10 / 90 + 5 / 1000) / 2})


def test_what_is_told() -> None:
    truth = {"de": language((0, 0))}
    runs = {
        OURS: [run({"read_bytes": 30, **truth, "de": language((80, 100))}, seconds=2.0)],
        EXACT: [run({"read_bytes": 0, **truth})],
        POLARS: [run(truth)],
    }
    told = tell(runs, 4_000_000_000, 3.0)
    assert told.sound
    assert [(entry.measured, entry.verdict) for entry in told.entries[:2]] == [("2.00 GB/s", "met"), ("100 MB", "met")]
    runs = {
        OURS: [run({"read_bytes": 30, "de": language((80, 85))}, seconds=8.0, peak=2 * 10**9)],
        EXACT: [run({"read_bytes": 0, **truth})],
        POLARS: [run({"de": {**truth["de"], "bytes": 101}})],
    }
    told = tell(runs, 4_000_000_000, None)
    assert not told.sound
    assert [entry.verdict for entry in told.entries[:2]] == ["**missed**", "**missed**"]
