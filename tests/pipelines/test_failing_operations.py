"""Whichever operation on a file fails, a stage says so in a sentence, and the next start ends with the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.source import STAGES

PROGRAM = "tests.pipelines.fail_each_operation"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the program tells of all stages, in a folder in memory if there is one: no disk to wait for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        done = subprocess.run(
            [sys.executable, "-m", PROGRAM, folder], check=False, capture_output=True, text=True, timeout=1_200
        )
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_each_operation_of_a_stage_may_fail(told: dict[str, Any], stage: str) -> None:
    found = told["stages"][stage]
    assert not found["wrong"]
    assert found["operations"] > 20
    assert found["codes"] == [0, 1]


@pytest.mark.slow
def test_in_the_end_all_files_are_those_of_a_calm_run(told: dict[str, Any]) -> None:
    assert told["same"]
