"""Something that is done again and again while something else goes on: progress, a renewed lock, a sign of life."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def repeated(work: Callable[[], None], seconds: float) -> Iterator[None]:
    """A block during which ``work`` is called at once, and then every ``seconds``, in a thread of its own. It is not
    called any more when the block is over."""
    stop = threading.Event()

    def go_on() -> None:
        work()
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
