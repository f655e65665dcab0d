"""Progress of a phase, for people: a rich bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def say(line: str) -> None:
    """One line of plain text on stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def phase_bar(label: str, total: int, completed: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """A bar for ``total`` bytes of work; the function it gives is called now and then and asks ``completed``.

    Without a terminal nothing is drawn: the caller says a line when the phase is over.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=max(1, total))
        last = 0.0

        def update() -> None:
            nonlocal last
            # Counting finished units lists a folder: twice a second is enough for eyes.
            if time.monotonic() - last > 0.5:
                last = time.monotonic()
                progress.update(task, completed=completed())

        yield update


def human_bytes(number: float) -> str:
    """``1_500_000`` -> ``1.5 MB`` (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
