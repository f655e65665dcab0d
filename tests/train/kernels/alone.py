"""One test in a process of its own, for instance one that a tool watches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_alone(
    node: str, *, options: tuple[str, ...] = (), under: tuple[str, ...] = (), variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the test ``node`` (``tests/test_x.py::test_y``).

    Args:
        node: from the root of the project.
        options: of pytest.
        under: command before that of Python.
        variables: of the environment, beside those of this process.
    """
    # The project's own options make pytest so quiet that it leaves the line of counts out.
    command = [*under, sys.executable, "-m", "pytest", "-o", "addopts=--strict-markers", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options, node],
        cwd=ROOT, env={**os.environ, **(variables or {})}, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def passed_alone(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether one test ran, and passed; one that was skipped did not."""
    return done.returncode == 0 and re.search(r"^=+ 1 passed(, \d+ warnings?)? in ", done.stdout, re.M) is not None
