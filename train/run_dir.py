"""A run's directory: one process at a time, and the words to stop it at a clean place."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


@contextmanager
def sole_writer(run_dir: Path) -> Iterator[None]:
    """Hold the run directory, making it if need be; the system lets go of it when the process ends, however it ends.

    Raises:
        TrainingError: another process trains there, or the directory cannot be made.
    """
    import fcntl

    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / ".lock").open("w")
    except OSError as error:
        raise TrainingError(f"{run_dir}: cannot be written: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(f"{run_dir}: another process is training there; wait for it or stop it") from error
        yield


class StopSignal:
    """Whether a signal to stop came, as a context manager: SIGTERM, SIGINT, or SIGUSR1 and SIGUSR2, which Slurm sends
    some time before the limit if asked to. The second one acts as it would have without this.

    Python delivers signals to the main thread alone, so elsewhere this listens to nothing.
    """

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _came(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON; the file is there whole or as it was before.

    Raises:
        TrainingError: the disk cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written: {error.strerror or error}; free space and run again"
        ) from error
