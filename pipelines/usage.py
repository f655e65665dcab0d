"""What the tasks of a stage used: seconds of processor time, and the largest resident memory of one of them.

A task leaves one small file below ``logs/<stage>/<phase>/usage`` when it ends, on any executor; a task that was killed
leaves none. So does the driver, or the job that plans and counts, in the place of a phase. A process tells all the time
it has used, its start included, and no second twice. Times differ from run to run, so none of this is in a manifest.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import LolaError

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


def _processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class _Told:
    """Seconds that the process with this id has told; a fork of it has told none."""

    seconds = 0.0
    process = 0


def _untold() -> float:
    told = _Told.seconds if _Told.process == os.getpid() else 0.0
    _Told.seconds, _Told.process = _processor_seconds(), os.getpid()
    return _Told.seconds - told


def leave_usage(layout: Layout, stage: str, phase: str, rank: int, began: float, *, memory: bool = True) -> None:
    """Write what this process used since it last did, and the time when that began. The name is new each time: what an
    earlier run used still counts. Told for the curious: that it cannot be written is no reason to fail.

    Args:
        layout, stage, phase, rank: of the task.
        began: seconds since 1970.
        memory: whether this is a task, whose memory counts.
    """
    told = {"core_seconds": round(_untold(), 3), "peak_bytes": peak_bytes() if memory else 0, "began": round(began, 3)}
    name = f"{rank:05d}-{time.time_ns()}-{os.getpid()}.json"
    with suppress(LolaError, OSError):
        storage.write_record(layout.logs(stage, phase, FOLDER, name), told)


def usage_of(layout: Layout, stage: str) -> Usage:
    """The sum over all tasks of all phases, of all runs since the stage was begun."""
    found = _records(layout, stage)
    return Usage(
        round(sum(one["core_seconds"] for one in found), 2), max((one["peak_bytes"] for one in found), default=0)
    )


def began(layout: Layout, stage: str, since: float) -> float | None:
    """When the first task of a stage began that began after ``since`` (seconds since 1970); None: none did."""
    times = [one.get("began", 0.0) for one in _records(layout, stage)]
    return min((one for one in times if one >= since), default=None)


def _records(layout: Layout, stage: str) -> list[dict[str, Any]]:
    root = layout.logs(stage)
    # A loss of power may leave the name of a file without its content.
    files = [path for path, size in storage.list_files(root, ".json") if size and f"/{FOLDER}/" in f"/{path}"]
    return [storage.read_json(storage.join(root, path)) for path in files]
