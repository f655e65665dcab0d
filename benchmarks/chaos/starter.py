"""Starts runs of the command line in milliseconds: a process that has everything ready, and forks one for each.

What is forked runs ``lola_data.cli.main`` to the end of the interpreter. Its tasks are forked, in turn, from a fork
server of multiprocess as those of any run are; only that the server is there already, with all imported, and serves
several runs one after the other.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.chaos.within import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Started:
    """A run under way. ``log``: all that it says."""

    pid: int
    log: Path
    began: float
    code: int | None = None
    """Exit code; that of a process ended by a signal is negative."""

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class Starter:
    """The process, from this side.

    Args:
        folder: for its log, and those of the runs.
        environment: variables that are set besides this process's own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = 0
        self._running: dict[int, Started] = {}
        with (folder / "starter.log").open("wb") as log:
            self._process = subprocess.Popen(
                # A module by its name would be imported again by every task.
                [sys.executable, "-c", "from benchmarks.chaos.starter import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **environment},
                bufsize=0,
            )
        self._told = b""
        if not (told := self._line(timeout=300)):
            self._process.kill()
            raise RuntimeError(f"the process that starts runs is not ready; see {folder}/starter.log")
        self._server = int(told["server"])

    def start(self, arguments: Sequence[str], faults: Faults) -> Started:
        """Begin ``lola-data`` with these arguments."""
        self._count += 1
        log = self._folder / f"run-{self._count}.log"
        # It may be killed before it has made it.
        log.touch()
        order = {"arguments": [*arguments], "faults": asdict(faults), "log": str(log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        began = time.monotonic()
        while "pid" not in (told := self._line()):
            # Another's end was told first.
            if time.monotonic() - began > 60:
                raise RuntimeError(f"a run was not started; see {self._folder}/starter.log")
        started = Started(int(told["pid"]), log, began)
        self._running[started.pid] = started
        return started

    def wait(self, started: Started, seconds: float) -> bool:
        """Wait until it has ended, or so long: whether it has."""
        end = time.monotonic() + seconds
        while started.code is None and (left := end - time.monotonic()) > 0:
            self._line(timeout=left)
        return started.code is not None

    def tasks(self) -> list[int]:
        """The processes of tasks there are, of whatever run."""
        text = Path(f"/proc/{self._server}/task/{self._server}/children").read_text(encoding="ascii")
        return [int(word) for word in text.split()]

    def kill(self, started: Started, *, tasks: bool) -> None:
        """SIGKILL it, and its tasks (if no other run is under way) or not."""
        pids = [started.pid, *(self.tasks() if tasks else [])]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(started, 30)

    def signal(self, started: Started, number: signal.Signals) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(started.pid, number)

    def dump(self, started: Started) -> None:
        """Have it write to its log where it is."""
        for pid in (started.pid, *self.tasks()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(0.5)

    def close(self) -> None:
        """End everything."""
        for started in [*self._running.values()]:
            if started.code is None:
                self.kill(started, tasks=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in self.tasks():
                os.kill(pid, signal.SIGKILL)

    def _line(self, timeout: float = 60) -> dict[str, Any]:
        """The next thing the process says that is not of an end; ends are noted. Empty if nothing comes."""
        end = time.monotonic() + timeout
        assert self._process.stdout is not None
        while True:
            while b"\n" not in self._told:
                ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
                if not ready:
                    return {}
                chunk = os.read(self._process.stdout.fileno(), 65_536)
                if not chunk:
                    raise RuntimeError(f"the process that starts runs has ended; see {self._folder}/starter.log")
                self._told += chunk
            line, _, self._told = self._told.partition(b"\n")
            told = json.loads(line)
            if "ended" not in told:
                return told
            self._running.pop(told["ended"]).code = told["code"]
            return {}


def serve() -> None:
    """Take orders from stdin, one a line, and tell on stdout what was started and what has ended."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    from benchmarks.chaos import preload  # noqa: F401

    server = _start_fork_server()
    answers.write(json.dumps({"server": server}).encode() + b"\n")
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write)
    pending = b""
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            with suppress(BlockingIOError):
                os.read(read, 4096)
            _tell_ends(answers, server)
        if 0 in ready:
            chunk = os.read(0, 65_536)
            if not chunk:
                return
            pending += chunk
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                order = json.loads(line)
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    answers.close()
                    _run(order)
                answers.write(json.dumps({"pid": child}).encode() + b"\n")


def _tell_ends(answers: IO[bytes], server: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid != server:
            code = os.waitstatus_to_exitcode(status)
            answers.write(json.dumps({"ended": pid, "code": code}).encode() + b"\n")


def _start_fork_server() -> int:
    """The process that tasks will be forked from; its number."""
    from multiprocess import forkserver, resource_tracker

    forkserver.set_forkserver_preload(["benchmarks.chaos.preload"])
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    inner: Any = forkserver._forkserver  # pyright: ignore[reportAttributeAccessIssue]
    # The runs are not its parents and need not look whether it is alive.
    inner.ensure_running = forkserver.ensure_running = lambda: None
    return inner._forkserver_pid


def _run(order: dict[str, Any]) -> None:
    """Be ``lola-data``."""
    from benchmarks.chaos import within
    from lola_data.cli import main

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)
    faults = Faults(**order["faults"])
    within.hand_on(faults)
    within.apply(faults, driver=os.getpid(), changes=faults.driver, clock="driver")
    main(order["arguments"])
    sys.exit(0)
