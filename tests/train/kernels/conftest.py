"""Kernels run on the CPU here: Triton reads this once, when it is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from tests.train.kernels.programs import MOST, counted
from tests.train.kernels.watch import mended

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _mended_interpreter() -> Iterator[None]:
    with mended():
        yield


@pytest.fixture(autouse=True)
def _few_programs() -> Iterator[None]:
    """No test runs :data:`MOST` programs: what takes longer is too large for what it shows."""
    with counted() as programs:
        yield
    assert programs.count < MOST, f"{programs.count} programs of kernels ran; give the test smaller sizes"
