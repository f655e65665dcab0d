"""Runs one phase on datatrove's executor.

datatrove's local pool loses the siblings of a task that raises and waits for ever for a worker that was killed, so
:class:`LocalExecutor` keeps its task handling (ranks, logs, statistics) and gives each rank a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import multiprocess.context
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats
from multiprocess import forkserver, resource_tracker

from lola_data import storage
from lola_data.background import repeated
from lola_data.errors import LolaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lola_data.sections import ExecutorSection
    from pipelines.phases import PhaseRunner
    from pipelines.stage import ShardStep

POLL_SECONDS = 0.2


def _leave_with_parent(parent: Any) -> None:
    """End this process when the driver is gone, however it went: two runs must never write at the same time."""

    def watch() -> None:
        try:
            parent.recv()
        except (EOFError, OSError):
            os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


class _TaskLog:
    """Where a task's log lines go: to one file after the other.

    It goes without the lines a full disk has no room for: the records and the driver tell the failure. A process needs
    one alone, for loguru takes longer to add a sink than a small phase takes.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._handlers = ""

    def open(self, handle: Any) -> None:
        """Send what is logged from now on to ``handle``."""
        self._handle = handle

    def take_over(self) -> None:
        """See to it that what is logged goes here and nowhere else."""
        if repr(logger) != self._handlers:
            logger.remove()
            line = "{time:YYYY-MM-DD HH:mm:ss} | {level: <8} | {message}"
            # `diagnose` would write the values of variables into tracebacks, and a token of the hub may be among them.
            logger.add(self, colorize=False, level="DEBUG", format=line, diagnose=False)
            self._handlers = repr(logger)

    def write(self, message: str) -> None:
        """Append a line."""
        if self._handle is not None:
            with suppress(OSError):
                self._handle.write(message)
                self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                handle.close()


_TASK_LOG = _TaskLog()


def _log_to_files_only() -> None:
    """Make datatrove's task logger write to its file and not to the console: the engine reports progress itself."""
    import datatrove.executor.base as base
    import datatrove.utils.logging as logging

    def add_file_logger(logging_dir: Any, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        # A message names files and languages in all scripts, whatever the locale.
        _TASK_LOG.open(logging_dir.open(f"logs/task_{rank:05d}.log", "w", encoding="utf-8"))
        return _TASK_LOG

    _TASK_LOG.take_over()
    base.add_task_logger = add_file_logger
    logging.setup_default_logger = lambda: None


@contextmanager
def task_log_alone() -> Iterator[None]:
    """Run a rank in this process with its lines in the log of the task, and the logger as it was afterwards."""
    import datatrove.executor.base as base
    import datatrove.utils.logging as logging

    kept = base.add_task_logger, logging.setup_default_logger
    _log_to_files_only()
    try:
        yield
    finally:
        base.add_task_logger, logging.setup_default_logger = kept


def _start_fork_server() -> None:
    """Start the process that the ranks are forked from, deaf to Ctrl-C, as they then are: the driver ends them.

    Unlike ignoring the signal, blocking it loses none that comes to the driver meanwhile.
    """
    # First, because its start unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_rank(executor: LocalExecutor, rank: int, parent: Any) -> None:
    _leave_with_parent(parent)
    _log_to_files_only()
    try:
        executor._run_for_rank(rank, local_rank=rank)
    except (LolaError, OSError) as error:
        parent.send(_stopped(executor, error))
        sys.exit(1)


def _stopped(executor: LocalExecutor, error: Exception) -> str:
    """Why a rank could not go on: records, logs or statistics that cannot be written. Any other error is raised."""
    if isinstance(error, OSError):
        told = storage.disk_error(str(executor.logging_dir.path), error)
        if not isinstance(told, LolaError):
            raise error
        error = told
    return f"stopped: {error}"


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's local executor with one supervised process per rank.

    A rank that raises or is killed is told of in ``self.lost`` and leaves the others alone.
    """

    lost: dict[int, str]
    on_poll: Callable[[], None] | None = None

    def run(self) -> PipelineStats:
        """Run all ranks, at most ``workers`` at a time."""
        self.lost = {}
        on_poll, self.on_poll = self.on_poll, None
        ranks = range(self.local_rank_offset, self.local_rank_offset + self.local_tasks)
        if len(ranks) == 1:
            self._run_here(ranks[0])
            return PipelineStats()
        context: Any = multiprocess.context.ForkServerContext()
        context.set_forkserver_preload(["pipelines.preload"])
        _start_fork_server()
        waiting = list(ranks)
        running: dict[Any, tuple[int, Any, Any]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    rank = waiting.pop(0)
                    child_end, driver_end = context.Pipe()
                    process = context.Process(target=_run_rank, args=(self, rank, child_end), name=f"rank-{rank}")
                    try:
                        process.start()
                    except (EOFError, OSError):
                        self.lost[rank] = _NOT_STARTED
                        driver_end.close()
                        continue
                    finally:
                        child_end.close()
                    running[process.sentinel] = (rank, process, driver_end)
                for sentinel in wait(list(running), timeout=POLL_SECONDS):
                    rank, process, driver_end = running.pop(sentinel)
                    process.join()
                    if process.exitcode:
                        self.lost[rank] = _last_word(driver_end) or _ended(process.exitcode)
                    driver_end.close()
                if on_poll:
                    on_poll()
        finally:
            for _, process, driver_end in running.values():
                process.kill()
                process.join()
                driver_end.close()
        return PipelineStats()

    def _run_here(self, rank: int) -> None:
        # One task needs no second process: the start of an interpreter costs more than a small stage.
        with task_log_alone():
            try:
                self._run_for_rank(rank, local_rank=0)
            except (LolaError, OSError) as error:
                self.lost[rank] = _stopped(self, error)


def _last_word(driver_end: Any) -> str | None:
    """What a rank that has ended said, if it could."""
    with suppress(EOFError, OSError):
        return driver_end.recv() if driver_end.poll() else None
    return None


_NOT_STARTED = (
    "could not be started, for the process that tasks are forked from was killed: the machine may be out of memory; "
    "set fewer `executor.workers`"
)


def _ended(exitcode: int) -> str:
    if exitcode == -9:
        return "was killed (SIGKILL): the machine may be out of memory; set fewer `executor.workers`"
    return f"was ended by signal {-exitcode}" if exitcode < 0 else f"ended with exit code {exitcode}"


def runner_of(executor: ExecutorSection) -> PhaseRunner:
    """What does a phase where the recipe wants it done, and waits for it.

    Raises:
        StageError: the package of the executor is not installed.
    """
    if executor.kind == "ray":
        from pipelines.ray_executor import ray_runner

        return ray_runner(executor)

    def run(step: ShardStep, units: int, logging_dir: str, on_poll: Callable[[], None]) -> dict[int, str]:
        tasks = min(executor.tasks, units)
        return run_phase(step, tasks=tasks, workers=executor.workers, logging_dir=logging_dir, on_poll=on_poll)

    return run


def run_phase(
    step: ShardStep, *, tasks: int, workers: int, logging_dir: str, on_poll: Callable[[], None] | None = None,
    ranks: range | None = None,
) -> dict[int, str]:  # fmt: skip
    """Run a phase to its end on this machine.

    Args:
        step: the phase; its plan must be recorded already.
        tasks: datatrove's world size.
        workers: tasks that run at the same time.
        logging_dir: datatrove's logs and statistics of the phase.
        on_poll: called about five times a second.
        ranks: the tasks that are this machine's (None: all).

    Returns:
        Tasks that were lost (killed from outside, out of memory) with the reason; empty when all came back.
    """
    executor = LocalExecutor(
        pipeline=[step],
        tasks=tasks,
        workers=min(workers, tasks if ranks is None else len(ranks)),
        local_tasks=-1 if ranks is None else len(ranks),
        local_rank_offset=0 if ranks is None else ranks.start,
        logging_dir=logging_dir,
        # Units, not ranks, are what is finished or not.
        skip_completed=False,
    )
    executor.on_poll = on_poll
    # With more than one task the executor waits for its processes here, and polls meanwhile.
    with repeated(on_poll, POLL_SECONDS) if on_poll and executor.local_tasks == 1 else nullcontext():
        executor.run()
    return executor.lost
