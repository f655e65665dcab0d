"""``lola-data status --follow``: what a work folder is doing, until nothing works on it any more."""

from __future__ import annotations

import fcntl
import sys
import time
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import LolaError
from lola_data.store_lock import LockWatch
from pipelines.corpus import status
from pipelines.progress import human_seconds
from pipelines.status_table import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.layout import Layout

EVERY_SECONDS = 2.0
_SHOWN = {"RUNNING": "running", "PENDING": "waiting", "CONFIGURING": "starting", "REQUEUED": "waiting"}


def jobs_left(layout: Layout) -> dict[str, int] | None:
    """Tasks of the submitted jobs by what they are doing; None where nothing was submitted.

    Raises:
        LolaError: Slurm cannot be asked here.
    """
    from pipelines import slurm_cluster
    from pipelines.slurm_run import submitted

    run = submitted(layout)
    if run is None:
        return None
    counts: dict[str, int] = {}
    for states in slurm_cluster.active(one for ids in run.ids.values() for one in ids).values():
        for state, count in states.items():
            name = _SHOWN.get(state, state.lower())
            counts[name] = counts.get(name, 0) + count
    return counts


def lock_watch(layout: Layout) -> Callable[[], bool]:
    """What tells whether a process holds the lock of a work folder."""
    if storage.is_remote(layout.workdir):
        return LockWatch(layout.state("lock")).held
    path = storage.local_path(layout.kept) / "state" / "lock"
    return lambda: path.exists() and _is_locked(path)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def snapshot(layout: Layout, held: Callable[[], bool]) -> tuple[list[dict[str, Any]], str, bool]:
    """Rows of the status, a line on the jobs, and whether anything is at work. ``held``: of :func:`lock_watch`."""
    rows = status(layout)
    try:
        jobs = jobs_left(layout)
    except LolaError as error:
        return rows, f"jobs: {error}", False
    if jobs is None:
        at_work = held()
        return rows, "a run is under way" if at_work else "", at_work
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(jobs.items())) or "none left"
    return rows, f"jobs: {told}", bool(jobs)


def follow(layout: Layout, *, every: float = EVERY_SECONDS) -> bool:
    """Show the status until nothing is at work; whether every stage that was begun is complete.

    On a terminal the table is drawn over and over; elsewhere a stage is told of in a line whenever it has got on.
    """
    if sys.stdout.isatty():
        rows = _drawn(layout, every)
    else:
        rows = _told(layout, every)
    return all(row["state"] in ("complete", "not started") for row in rows)


def _drawn(layout: Layout, every: float) -> list[dict[str, Any]]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    started, held = time.monotonic(), lock_watch(layout)
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            rows, jobs, at_work = snapshot(layout, held)
            since = human_seconds(time.monotonic() - started)
            live.update(Text(f"{render(rows)}\n\n{jobs}; watched for {since}".strip()), refresh=True)
            if not at_work:
                return rows
            time.sleep(every)


def _told(layout: Layout, every: float) -> list[dict[str, Any]]:
    before: dict[str, str] = {}
    held = lock_watch(layout)
    while True:
        rows, jobs, at_work = snapshot(layout, held)
        for row in rows:
            done, units = (sum(phase[key] for phase in row["phases"]) for key in ("done", "units"))
            line = f"{row['stage']}: {row['state']}" + (f", {done}/{units} units" if units else "")
            if before.get(row["stage"]) != line and row["state"] != "not started":
                print(line, flush=True)
            before[row["stage"]] = line
        if before.get("jobs") != jobs and jobs:
            print(jobs, flush=True)
        before["jobs"] = jobs
        if not at_work:
            print(f"\n{render(rows)}", flush=True)
            return rows
        time.sleep(every)
