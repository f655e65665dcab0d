"""What a download will take, before it begins: files, bytes, room on the disk, and time at a rate measured just now.

In: the source, and the shards that are left to fetch. Out: one line for people, or the same as plain values.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from pipelines.progress import human_bytes, human_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.sources import RawShard, Source

PROBE_BYTES = 8 * 2**20
"""At most this much is read to measure the rate."""
PROBE_SECONDS = 3.0
"""At most so long."""
WORTH_PROBING = 2**28
"""Less than this is there before the time it takes is of interest."""
_PIECE = 2**20


def measured_rate(source: Source, shards: list[RawShard]) -> float | None:
    """Bytes a second of one connection, from the beginning of the largest shard; None if that cannot be told."""
    if not shards:
        return None
    largest = max(shards, key=lambda shard: (shard.bytes, shard.path))
    begun, size = time.monotonic(), 0
    try:
        with source.open(largest) as handle:
            while size < PROBE_BYTES and time.monotonic() - begun < PROBE_SECONDS:
                piece = handle.read(_PIECE)
                if not piece:
                    break
                size += len(piece)
    except Exception:
        # The rate is a courtesy: what is wrong with the source is told when the shard itself is fetched.
        return None
    seconds = time.monotonic() - begun
    return size / seconds if size and seconds > 0 else None


def forecast(source: Source, shards: list[RawShard], folder: Path, workers: int, *, probe: bool) -> dict[str, Any]:
    """What it takes to fetch shards.

    Args:
        source: where they lie.
        shards: those to fetch.
        folder: on whose disk they are to lie.
        workers: how many are fetched at a time.
        probe: whether to read a piece of one, to measure the rate.

    Returns:
        ``shards``, ``bytes``, ``languages``, ``free`` (bytes on the disk), ``rate`` (bytes a second of one connection,
        or None), ``seconds`` (None, or a pair: every worker at that rate, and all of them sharing it).
    """
    while not folder.exists():
        folder = folder.parent
    size = sum(shard.bytes for shard in shards)
    rate = measured_rate(source, shards) if probe else None
    at_once = max(1, min(workers, len(shards)))
    return {
        "shards": len(shards),
        "bytes": size,
        "languages": len({shard.lang for shard in shards}),
        "free": shutil.disk_usage(folder).free,
        "rate": rate,
        "seconds": None if not rate else (size / rate / at_once, size / rate),
    }


def forecast_words(found: dict[str, Any]) -> str:
    """A forecast in words."""
    several = "s" if found["languages"] != 1 else ""
    line = (
        f"{found['shards']:,} shards of {found['languages']} language{several}, {human_bytes(found['bytes'])}; "
        f"{human_bytes(found['free'])} free"
    )
    if found["seconds"] is None:
        return line
    low, high = found["seconds"]
    span = human_seconds(high) if high - low < 1 else f"{human_seconds(low)} to {human_seconds(high)}"
    return f"{line}; about {span}, by {human_bytes(found['rate'])}/s measured on one connection"
