from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
import torch._dynamo.config

from lola_data.errors import TrainingError
from train import loop
from train.device import autocasts, torch_settings
from train.loop import train
from train.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig


@pytest.mark.parametrize(
    ("device", "able", "precision", "expected"),
    [
        ("cuda", True, "auto", torch.bfloat16),
        ("cuda", True, "bf16", torch.bfloat16),
        ("cuda", True, "fp32", None),
        ("cuda", False, "auto", None),
        ("cuda", False, "fp32", None),
        ("cpu", False, "auto", None),
        ("cpu", False, "bf16", torch.bfloat16),
    ],
)
def test_bfloat16_is_taken_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., TrainConfig],
    device: str,
    able: bool,
    precision: str,
    expected: torch.dtype | None,
):
    # A device before compute capability 8.0 emulates bfloat16, slower than fp32: torch says yes unless asked strictly.
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: able or including_emulation)
    assert autocasts(tiny(precision=precision), torch.device(device)) is expected


def test_bfloat16_on_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., TrainConfig]):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla T4")
    with pytest.raises(TrainingError, match="bf16, but Tesla T4 has no bfloat16 arithmetic; set precision to fp32"):
        autocasts(tiny(precision="bf16"), torch.device("cuda"))


def test_a_deterministic_run_asks_torch_for_it_and_gives_the_setting_back(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
):
    seen = []
    real = loop.train_step

    def step(*given, **more):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return real(*given, **more)

    monkeypatch.setattr(loop, "train_step", step)
    for deterministic in (True, False):
        train(tiny(deterministic=deterministic), tree, tmp_path / str(deterministic), max_steps_this_run=2)
        assert not torch.are_deterministic_algorithms_enabled()
    assert seen == [True, True, False, False]


@pytest.mark.parametrize(("already", "expected"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_what_cublas_needs_to_be_deterministic_is_set(
    tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, already: str | None, expected: str
):
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if already is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", already)
    limit = torch._dynamo.config.recompile_limit
    with torch_settings(tiny(deterministic=True), "cuda", ALONE) as device:
        assert device == torch.device("cuda", 0)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected
        assert torch._dynamo.config.recompile_limit >= 64
    assert torch._dynamo.config.recompile_limit == limit
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
