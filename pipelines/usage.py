"""What the tasks of a stage used: seconds of processor time, and the largest resident memory of one of them.

A task leaves one small file below ``logs/<stage>/<phase>/usage`` when it ends, on any executor; a task that was killed
leaves none. Times differ from run to run, so none of this is in a manifest.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lola_data import storage

if TYPE_CHECKING:
    from lola_data.layout import Layout

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
FOLDER = "usage"


@dataclass(frozen=True, slots=True)
class Usage:
    """``core_seconds`` of all tasks together; ``peak_bytes`` of the largest (0 where the system does not tell)."""

    core_seconds: float
    peak_bytes: int


def reset_peak() -> None:
    """Let :func:`peak_bytes` count from here, where the system can."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Largest resident size of this process since it began, or the last reset; 0 where the system does not tell."""
    try:
        text = _STATUS.read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("VmHWM")), "")
    return int(line.split()[1]) * 1024 if line else 0


def leave_usage(layout: Layout, stage: str, phase: str, rank: int, core_seconds: float, began: float) -> None:
    """Write what this task used, and the time when it began. The name is new each time: what an earlier run used still
    counts."""
    name = f"{rank:05d}-{time.time_ns()}-{os.getpid()}.json"
    told = {"core_seconds": round(core_seconds, 3), "peak_bytes": peak_bytes(), "began": round(began, 3)}
    storage.write_record(layout.logs(stage, phase, FOLDER, name), told)


def usage_of(layout: Layout, stage: str) -> Usage:
    """The sum over all tasks of all phases, of all runs since the stage was begun."""
    root = layout.logs(stage)
    files = [path for path, _ in storage.list_files(root, ".json") if f"/{FOLDER}/" in f"/{path}"]
    found = [storage.read_json(storage.join(root, path)) for path in files]
    return Usage(
        round(sum(one["core_seconds"] for one in found), 2), max((one["peak_bytes"] for one in found), default=0)
    )


def began(layout: Layout, stage: str, since: float) -> float | None:
    """When the first task of a stage began that began after ``since`` (seconds since 1970); None: none did."""
    root = layout.logs(stage)
    files = [path for path, _ in storage.list_files(root, ".json") if f"/{FOLDER}/" in f"/{path}"]
    times = [storage.read_json(storage.join(root, path)).get("began", 0.0) for path in files]
    return min((one for one in times if one >= since), default=None)
