"""Kernels run on the CPU here: Triton reads this once, when it is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from tests.train.kernels.watch import mended

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _mended_interpreter() -> Iterator[None]:
    with mended():
        yield
