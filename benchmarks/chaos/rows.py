"""Whether every row of the source is accounted for once at every stage of a work folder, read from the shards alone."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def wrong_rows(source: Path, root: Path) -> list[str]:
    """What is not as it must be, in words; empty if no row is lost, doubled or altered.

    Args:
        source: tree ``<lang>/<shard>.parquet`` that was read.
        root: a local work folder in which all stages are complete.
    """
    import pyarrow.parquet as pq

    wrong: list[str] = []
    rows: Counter[str] = Counter()
    for path in sorted(source.glob("*/*.parquet")):
        relative = path.relative_to(source)
        table = pq.read_table(path)
        rows.update(f"{relative.parent}/{path.stem}/{row}" for row in range(table.num_rows))
        raw = root / "raw" / relative
        with suppress(OSError, ValueError):
            if pq.read_table(raw).equals(table):
                continue
        wrong.append(f"raw/{relative} is not what the source has")
    identified, deduped, sampled = (_ids(root / tree) for tree in ("identified", "deduped", "sampled"))
    for name, before, after in (("identify", rows, identified), ("dedup", identified, deduped)):
        wrong += _differences(name, before, after + _ids(root / "removed" / name))
    left_out = _left_out(root)
    if set(sampled.values()) - {1} or sampled - deduped or sampled.total() != deduped.total() - left_out:
        wrong.append(f"sample: {sampled.total()} of {deduped.total()} rows, {left_out} of them left out")
    wrong += _differences("tokenize", sampled, _ids(root / "tokens"))
    return wrong


def _ids(tree: Path) -> Counter[str]:
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for path in sorted(tree.glob("*/*.parquet")):
        # The rows of a file that cannot be read are lost.
        with suppress(OSError, ValueError):
            found.update(pq.read_table(path, columns=["id"])["id"].to_pylist())
    return found


def _left_out(root: Path) -> int:
    path = root / "sampled" / "manifest.json"
    if not path.exists():
        return 0
    removed = json.loads(path.read_text(encoding="utf-8"))["totals"]["removed"]
    return sum(counts["documents"] for counts in removed.values())


def _differences(stage: str, before: Counter[str], after: Counter[str]) -> list[str]:
    lost, more = before - after, after - before
    return [
        f"{stage}: {counted.total()} rows {what}, {next(iter(counted))} for one"
        for what, counted in (("lost", lost), ("doubled or made up", more))
        if counted
    ]
