"""How many programs a test lets the interpreter run. A program is one instance of a kernel's grid: a launch of grid
(n,) is n of them, whether they find work or not."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from triton.runtime import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 200
"""A test of a kernel stays below."""


@dataclass
class Programs:
    """Those that ran so far."""

    count: int = 0


@contextmanager
def counted() -> Iterator[Programs]:
    """A block whose programs are counted."""
    programs, place = Programs(), interpreter.InterpreterBuilder.set_grid_idx

    def at(self: Any, x: int, y: int, z: int) -> None:
        programs.count += 1
        place(self, x, y, z)

    with mock.patch.object(interpreter.InterpreterBuilder, "set_grid_idx", at):
        yield programs
