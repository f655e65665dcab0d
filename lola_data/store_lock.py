"""A lock on an object store, which keeps none of its own: an object that says who holds it, and is kept fresh.

The object is written only if it is not there, and renewed every few seconds. One that is not renewed while it is
watched belongs to nobody. No two machines' clocks are compared.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.background import repeated
from lola_data.errors import LolaError
from lola_data.remote_trees import create_exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RENEW_SECONDS = 5.0
"""A lock is renewed so often."""
GONE_SECONDS = 30.0
"""A lock that is not renewed for so long has no holder any more."""
SETTLE_SECONDS = 1.0
"""Longer than it takes from finding that a lock is nobody's to writing one's own. Every holder waits for so long."""


def this_process() -> str:
    """Who holds a lock, in words: the process and its machine."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class HeldLock:
    """A lock that this process has taken, or is about to.

    Attributes:
        path: URL of its object.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._mine: dict[str, Any] = {"holder": this_process(), "token": os.urandom(8).hex()}
        self._count = 0

    def taken_by(self) -> str | None:
        """Who has taken the lock over, as happens to a process that was held up for longer than :data:`GONE_SECONDS`;
        None while it is this one's. A store that does not answer tells nothing, which counts as None."""
        with suppress(LolaError, OSError):
            found = _found(self.path)
            if found is not None and not self._is_mine(found):
                return _holder_in(found)
        return None

    def acquire(self, in_use: Callable[[str], Exception]) -> None:
        """Take the lock; see :func:`store_lock`."""
        while not self._create():
            stale = _watched(self.path, in_use)
            now = _found(self.path)
            if stale is None or now is None:
                # Let go of meanwhile: the first to write has it.
                time.sleep(RENEW_SECONDS / 50)
                continue
            if now != stale:
                raise in_use(_holder_in(now))
            storage.remove(self.path)
            create_exclusive(self.path, self._content())
            break
        # Whoever else found nobody has done the same, and a store that does not heed the condition lets two write it at
        # once: the last to write has it, and all see that.
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine(now := _found(self.path) or {}):
            raise in_use(_holder_in(now))

    def _create(self) -> bool:
        """Whether there was no lock, and this one has been written."""
        if _found(self.path) is None and create_exclusive(self.path, self._content()):
            return True
        # Where the answer to the first try was lost, a second one finds what was written.
        return self._is_mine(_found(self.path) or {})

    def renew(self) -> str | None:
        """Write it anew, unless somebody has taken it over, who is told."""
        if (other := self.taken_by()) is not None:
            return other
        self._count += 1
        # What keeps it from being renewed keeps its holder from writing too, and is told there.
        with suppress(LolaError, OSError), storage.atomic_output(self.path) as handle:
            handle.write(self._content())
        return None

    def release(self) -> None:
        """Let go of it, if it is still this process's."""
        with suppress(LolaError, OSError):
            if self._is_mine(_found(self.path) or {}):
                storage.remove(self.path)

    def _is_mine(self, found: dict[str, Any]) -> bool:
        return found.get("token") == self._mine["token"]

    def _content(self) -> bytes:
        return json.dumps({**self._mine, "renewed": self._count}).encode()


class LockWatch:
    """Whether a lock is held, by whomever, asked again and again. ``path``: URL of its object."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: dict[str, Any] | None = None
        self._since = 0.0

    def held(self) -> bool:
        """Whether it is there, and was renewed since it was last asked for, or may yet be. Raises ShardError."""
        found = _found(self._path)
        if found is None or _gone(_holder_in(found)):
            return False
        if found != self._seen:
            self._seen, self._since = found, time.monotonic()
        return time.monotonic() - self._since < GONE_SECONDS


@contextmanager
def store_lock(
    path: str, in_use: Callable[[str], Exception], *, lost: Callable[[str], None] = lambda holder: None
) -> Iterator[HeldLock]:
    """Hold a lock during the block. One whose holder is gone is taken over, after a wait if it was another machine's.

    Args:
        path: URL of its object.
        in_use: makes the error to raise of the words for who holds it.
        lost: called, from another thread, with the words for who has taken it over.

    Raises:
        ShardError: the store cannot be reached, or refuses.
    """
    lock = HeldLock(path)
    lock.acquire(in_use)

    def renew() -> None:
        if (other := lock.renew()) is not None:
            lost(other)

    try:
        with repeated(renew, RENEW_SECONDS):
            yield lock
    finally:
        lock.release()


def _found(path: str) -> dict[str, Any] | None:
    """What a lock says; None if there is none, nothing if it is no lock's content. Raises ShardError."""
    try:
        found = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder_in(found: dict[str, Any]) -> str:
    return str(found.get("holder", "another process"))


def _watched(path: str, in_use: Callable[[str], Exception]) -> dict[str, Any] | None:
    """What a lock says that has not been renewed for a while; None if it was let go of. Raises as soon as it is renewed
    (or another's)."""
    before, since = _found(path), time.monotonic()
    if before is None or _gone(_holder_in(before)):
        return before
    while time.monotonic() - since < GONE_SECONDS:
        time.sleep(RENEW_SECONDS / 5)
        now = _found(path)
        if now is None:
            return None
        if now != before:
            raise in_use(_holder_in(now))
    return before


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
