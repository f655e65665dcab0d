"""What goes wrong inside the processes of a run, and a journal of what they put in place: they are killed at their n-th
change of a file, their clocks are wrong, their files may not grow.

A driver gets its faults when it is started, and hands them to its tasks with datatrove's executor.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lola_data import object_store, store_lock
from pipelines import executors, shared_run

HOUR, DAY = 3_600.0, 86_400.0


@dataclass(frozen=True)
class Faults:
    """Of one start.

    Attributes:
        workdir: only what lies below it counts as a change.
        journal: file that gets a line for each file put in place.
        driver: the driver is killed before its so many-th change.
        task: (phase, rank, changes): from the so many-th phase on, this task is killed before that change.
        clock: seed of a clock that is wrong by hours or days, and jumps.
        largest: bytes that no file may grow beyond.
    """

    workdir: str = ""
    journal: str = ""
    driver: int | None = None
    task: tuple[int, int, int] | None = None
    clock: int | None = None
    largest: int | None = None


class _Clock:
    """Tells a time that is wrong, and now and then by something else."""

    def __init__(self, seed: str) -> None:
        self._drawn = random.Random(seed)
        self._real = time.time_ns
        self._wrong_by = self._draw()

    def _draw(self) -> int:
        most = self._drawn.choice([HOUR, DAY, 400 * DAY])
        return int(self._drawn.uniform(-most, most) * 1e9)

    def time_ns(self) -> int:
        if self._drawn.random() < 0.02:
            self._wrong_by = self._draw()
        return self._real() + self._wrong_by

    def time(self) -> float:
        return self.time_ns() / 1e9


class _Changes:
    """Counts changes, and kills this process before the last one that it is allowed to begin."""

    def __init__(self, workdir: str, until: int) -> None:
        self._workdir, self._left = workdir, until

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For :func:`sys.addaudithook`."""
        changes = event in ("os.rename", "os.remove", "os.mkdir")
        if event == "open":
            flags = arguments[2]
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        if changes and isinstance(arguments[0], str) and arguments[0].startswith(self._workdir):
            self.count()

    def count(self) -> None:
        """One more."""
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def apply(faults: Faults, *, driver: int, changes: int | None, clock: str = "") -> None:
    """Let these faults come over this process.

    Args:
        faults: which.
        driver: process of the driver.
        changes: this process is killed before its so many-th change; None: it is not.
        clock: what makes this process's clock another than its siblings'.
    """
    ended: list[Any] = []
    if changes is not None:
        counted = _Changes(faults.workdir, changes)
        sys.addaudithook(counted.hook)
        ended.append(counted.count)
    if faults.journal:
        _keep_journal(faults, driver, ended)
    if faults.clock is not None:
        wrong = _Clock(f"{faults.clock} {clock}")
        time.time, time.time_ns = wrong.time, wrong.time_ns
    if faults.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (faults.largest, faults.largest))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _keep_journal(faults: Faults, driver: int, ended: list[Any]) -> None:
    """Note what is put in place, by whom, and whether it would outlive a loss of power."""
    durable: set[str] = set()
    replace, fsync, finish = os.replace, os.fsync, object_store.Upload.finish

    def note(path: str, outlives: bool) -> None:
        line = json.dumps({"driver": driver, "path": path, "durable": outlives}) + "\n"
        handle = os.open(faults.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(handle, line.encode())
        os.close(handle)

    def fsync_noted(descriptor: Any) -> None:
        fsync(descriptor)
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        durable.add(str(Path(f"/proc/self/fd/{number}").readlink()))

    def replace_noted(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        if str(target).startswith(faults.workdir):
            note(str(target), str(source) in durable)

    def finish_noted(upload: Any) -> None:
        for call in ended:
            call()
        finish(upload)
        note(upload._place, True)
        for call in ended:
            call()

    os.replace, os.fsync = replace_noted, fsync_noted
    object_store.Upload.finish = finish_noted  # pyright: ignore[reportAttributeAccessIssue]


def hurry() -> None:
    """Shorten what a run waits for signs of life, in proportion: these runs take seconds, not days."""
    store_lock.RENEW_SECONDS, store_lock.GONE_SECONDS, store_lock.SETTLE_SECONDS = 1.0, 8.0, 0.6
    shared_run.BEAT_SECONDS, shared_run.GONE_SECONDS = 0.2, 5.0


def hand_on(faults: Faults) -> None:
    """Let the tasks that this driver starts from now on have their share."""
    run = executors.LocalExecutor.run
    driver, phases = os.getpid(), [0]

    def run_handed(self: Any) -> Any:
        number, phases[0] = phases[0], phases[0] + 1
        self.chaos = {**asdict(faults), "driver": driver, "phase": number}
        return run(self)

    executors.LocalExecutor.run = run_handed


def receive() -> None:
    """Let tasks that are started in this process, or forked from it, take what their driver has handed on."""
    run_rank = executors._run_rank

    @functools.wraps(run_rank)
    def run_rank_hit(executor: Any, rank: int, parent: Any) -> None:
        handed = dict(getattr(executor, "chaos", None) or {})
        if handed:
            driver, phase = handed.pop("driver"), handed.pop("phase")
            faults = Faults(**{**handed, "driver": None})
            first, hit, changes = faults.task or (0, None, 0)
            changes = changes if phase >= first and rank == hit else None
            apply(faults, driver=driver, changes=changes, clock=f"{phase} {rank}")
        run_rank(executor, rank, parent)

    executors._run_rank = run_rank_hit
