"""One run at a time in a work folder: a lock that names who holds it.

On a local disk the operating system keeps the lock, and lets go of it when its holder ends, however that was. A store
keeps none: there an object says who holds the folder, which is written only if it is not there and renewed every few
seconds. One that is not renewed while it is watched belongs to nobody. No two machines' clocks are compared.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import LolaError, StageError
from lola_data.remote_trees import create_exclusive
from pipelines.background import repeated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from lola_data.layout import Layout

RENEW_SECONDS = 5.0
"""A lock on a store is renewed so often."""
GONE_SECONDS = 30.0
"""A lock on a store that is not renewed for so long has no holder any more."""
SETTLE_SECONDS = 1.0
"""Longer than it takes from finding that a lock is nobody's to writing one's own."""


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


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _in_use(layout: Layout, holder: str) -> StageError:
    return StageError(f"{layout.workdir}: in use by {holder}. Wait for it, stop it, or set another `workdir`")


@contextmanager
def _on_disk(layout: Layout) -> Iterator[None]:
    with _open_lock(storage.local_path(layout.kept) / "state" / "lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise _in_use(layout, handle.read().decode(errors="replace").strip() or "another process") from error
        handle.truncate(0)
        # The lock holds without its holder's name, for which a full disk has no room.
        with suppress(OSError):
            handle.write(_holder().encode())
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
    path = layout.state("lock")
    mine: dict[str, Any] = {"holder": _holder(), "token": os.urandom(8).hex()}
    if not create_exclusive(path, _told(mine, 0)):
        _wait_for_nobody(layout, path)
        storage.remove(path)
        create_exclusive(path, _told(mine, 0))
        # Whoever else found nobody has done the same; the last to write has it, and all see that.
        time.sleep(SETTLE_SECONDS)
        if (now := _read(path)).get("token") != mine["token"]:
            raise _in_use(layout, str(now.get("holder", "another process")))
    count = 0

    def renew() -> None:
        nonlocal count
        count += 1
        # What keeps it from being renewed keeps the run from writing too, and is told there.
        with suppress(LolaError, OSError), storage.atomic_output(path) as handle:
            handle.write(_told(mine, count))

    try:
        with repeated(renew, RENEW_SECONDS):
            yield
    finally:
        if _read(path).get("token") == mine["token"]:
            storage.remove(path)


def _told(mine: dict[str, Any], count: int) -> bytes:
    return json.dumps({**mine, "renewed": count}).encode()


def _read(path: str) -> dict[str, Any]:
    try:
        found = storage.read_json(path)
    except (LolaError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _wait_for_nobody(layout: Layout, path: str) -> None:
    """Return when the lock has not been renewed for a while; raise StageError as soon as it is."""
    before, since = _read(path), time.monotonic()
    holder = str(before.get("holder", "another process"))
    if _gone(holder):
        return
    while time.monotonic() - since < GONE_SECONDS:
        time.sleep(RENEW_SECONDS / 5)
        now = _read(path)
        if not now:
            return
        if now != before:
            raise _in_use(layout, str(now.get("holder", holder)))


def _gone(holder: str) -> bool:
    """Whether it was a process of this machine that is not there any more."""
    words = holder.split()
    if words[:1] != ["process"] or words[2:] != ["on", socket.gethostname()]:
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _refuse_while_submitted(layout: Layout) -> None:
    if storage.exists(layout.state("slurm", "run.json")):
        from pipelines.slurm_run import refuse_while_active

        refuse_while_active(layout)
