"""What was foretold of a run, and what it took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cost import Case, Cost, foretold, holds, taken, tell, whole

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_run_took_is_read_from_its_logs_and_trees(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "dedup"
    for name in ("match/usage/00000-1-2.json", "match/usage/00001-1-2.json", "driver/usage/00000-1-2.json"):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text("{}")
    (logs / "timing.json").write_text(json.dumps({"seconds": 9.0, "core_seconds": 5.5, "peak_bytes": 123}))
    (tmp_path / "deduped" / "sw").mkdir(parents=True)
    (tmp_path / "deduped" / "sw" / "a.parquet").write_bytes(bytes(10_000))
    found = taken(tmp_path, ["dedup"])["dedup"]
    assert (found.tasks, found.core_seconds, found.peak_bytes) == (2, 5.5, 123)
    # Blocks: of 10,000 bytes and four small files.
    assert found.disk_bytes == sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.is_file())


def test_a_run_holds_if_all_of_it_was_near() -> None:
    told = {"a": Cost(2, 6.0, 100, 60), "b": Cost(4, 4.0, 80, 40)}
    assert whole(told) == Cost(4, 10.0, 100, 100)
    assert holds([1.0, 1.29, 0.71, 1.0])
    for wrong in ([1.5, 1.0, 1.0, 1.0], [1.0, 1.31, 1.0, 1.0], [1.0, 1.0, 0.69, 1.0], [1.0, 1.0, 1.0, 1.4]):
        assert not holds(wrong)
    took = {"a": Cost(2, 12.0, 100, 60), "b": Cost(4, 2.0, 80, 40)}
    section = tell([(Case("x", 4, ()), told, took)])
    assert not section.sound
    assert section.values == {"x": [1.0, 1.4, 1.0, 1.0]}
    assert section.entries[0].measured == "core-hours 1.40, memory 1.00, disk 1.00 of foretold"
    assert "| x   | a     | 12.0         | 2.00" in section.body


def test_the_plan_of_a_dry_run_is_read() -> None:
    row = {"stage": "dedup", "tasks": 3, "core_seconds": 1.5, "peak_bytes": 7, "disk_bytes": 8}
    assert foretold({"stages": [row]}) == {"dedup": Cost(3, 1.5, 7, 8)}
    with pytest.raises(KeyError):
        foretold({"stages": [{"stage": "dedup"}]})
