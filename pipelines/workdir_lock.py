"""One run at a time in a work folder: a lock that names who holds it.

On a local disk the operating system keeps the lock, and lets go of it when its holder ends, however that was. A store
keeps none: there it is :mod:`lola_data.store_lock`.
"""

from __future__ import annotations

import _thread
import fcntl
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.errors import StageError
from lola_data.store_lock import store_lock, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from lola_data.layout import Layout

_TRIES = 10
_BETWEEN_SECONDS = 0.05
"""``status --follow`` looks at the lock by taking it for a moment, which must not keep a run from starting."""


@contextmanager
def workdir_lock(layout: Layout) -> Iterator[None]:
    """Hold a work folder for one run at a time.

    Raises:
        StageError: another process holds it, or jobs that were submitted; who did is named.
        ShardError: the work folder cannot be made or written to.
    """
    with _on_a_store(layout) if storage.is_remote(layout.workdir) else _on_disk(layout):
        _refuse_while_submitted(layout)
        yield


def _in_use(layout: Layout, holder: str) -> StageError:
    return StageError(f"{layout.workdir}: in use by {holder}. Wait for it, stop it, or set another `workdir`")


@contextmanager
def _on_disk(layout: Layout) -> Iterator[None]:
    with _open_lock(storage.local_path(layout.kept) / "state" / "lock") as handle:
        for tries_left in reversed(range(_TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not tries_left:
                    handle.seek(0)
                    holder = handle.read().decode(errors="replace").strip()
                    raise _in_use(layout, holder or "another process") from error
            time.sleep(_BETWEEN_SECONDS)
        handle.truncate(0)
        # The lock holds without its holder's name, for which a full disk has no room.
        with suppress(OSError):
            handle.write(this_process().encode())
        try:
            yield
        finally:
            handle.truncate(0)


def _open_lock(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+", buffering=0)
    except OSError as error:
        raise storage.disk_error(path, error) from error


@contextmanager
def _on_a_store(layout: Layout) -> Iterator[None]:
    """A run that was held up for so long that another has taken its lock is ended, before both write for long."""
    taken_by: list[str] = []

    def lost(holder: str) -> None:
        if not taken_by:
            taken_by.append(holder)
            _thread.interrupt_main()

    try:
        with store_lock(layout.state("lock"), lambda holder: _in_use(layout, holder), lost=lost):
            yield
    except KeyboardInterrupt:
        if not taken_by:
            raise
        raise StageError(
            f"{layout.workdir}: was taken over by {taken_by[0]} while this run gave no sign of life. What it has done "
            f"is kept; leave the folder to that one, or stop it and run again"
        ) from None


def _refuse_while_submitted(layout: Layout) -> None:
    if storage.exists(layout.state("slurm", "run.json")):
        from pipelines.slurm_run import refuse_while_active

        refuse_while_active(layout)
