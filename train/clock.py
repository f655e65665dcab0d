"""Seconds between two records, without what is no training, and memory."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Runs from :meth:`restart` on; ``steps`` is counted by its owner, ``waited`` are seconds in :meth:`loading`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """From 0 again."""
        self.steps, self.waited = 0, 0.0
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Since the restart, pauses left out."""
        return max(time.perf_counter() - self._start, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    @contextmanager
    def loading(self) -> Iterator[None]:
        """What is done inside is waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start


def peak_memory(device: torch.device) -> int:
    """Most bytes ever taken: of a CUDA device by tensors, else of the machine by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
