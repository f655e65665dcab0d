"""The small files in which tasks tell what they used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lola_data.layout import Layout
from pipelines.usage import began, leave_usage, usage_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_a_loss_of_power_has_emptied_is_passed_over(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    leave_usage(layout, "identify", "main", 0, 1_000.0)
    used = usage_of(layout, "identify")
    (tmp_path / "logs/identify/main/usage/00001-7-7.json").touch()
    assert usage_of(layout, "identify") == used
    assert began(layout, "identify", 0.0) == 1_000.0
