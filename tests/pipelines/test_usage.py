"""The small files in which tasks tell what they used."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from lola_data.layout import Layout
from pipelines import usage
from pipelines.usage import began, leave_usage, usage_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_that_a_loss_of_power_has_emptied_is_passed_over(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    leave_usage(layout, "identify", "main", 0, 1_000.0)
    used = usage_of(layout, "identify")
    (tmp_path / "logs/identify/main/usage/00001-7-7.json").touch()
    assert usage_of(layout, "identify") == used
    assert began(layout, "identify", 0.0) == 1_000.0


def test_a_fork_of_a_process_that_has_told_tells_its_own_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    # All that this process has used since it began, whatever was told of it before.
    monkeypatch.setattr(usage._Told, "process", 0)
    leave_usage(layout, "identify", "main", 0, 0.0)
    before = usage_of(layout, "identify").core_seconds
    assert before > 0
    child = multiprocessing.get_context("fork").Process(target=leave_usage, args=(layout, "dedup", "match", 0, 0.0))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert 0 <= usage_of(layout, "dedup").core_seconds < before
