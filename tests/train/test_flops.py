"""Arithmetic of a token and peaks of devices."""

from __future__ import annotations

import pytest
import torch

from lola_data.train_config import PRESETS, ModelConfig
from train.flops import flops_per_token, peak_flops


def test_a_small_model_by_hand() -> None:
    config = ModelConfig(layers=2, d_model=8, heads=2, d_ff=16, experts=4, top_k=2, seq_len=10, vocab_multiple=1)
    # Attention: 4 d^2 a block. Block 0 dense: 2 d f. Block 1: two of the experts and the router. Output layer: V d.
    weights = 2 * 4 * 64 + 2 * 8 * 16 + (2 * 2 * 8 * 16 + 8 * 4) + 50 * 8
    assert flops_per_token(config, 50) == 6 * weights + 12 * 2 * 8 * 10


def test_lola_is_about_six_times_its_active_parameters() -> None:
    """1.418 B parameters are active; positions (4.2 M), biases and norms make the difference."""
    config = PRESETS["lola-1b"].model
    attention = 12 * 24 * 2048 * 2048
    assert flops_per_token(config, 100_096) - attention == pytest.approx(6 * 1_418_186_752, rel=0.005)


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989e12),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H200", torch.float16, 989e12),
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312e12),
        ("Tesla V100-SXM2-32GB", torch.float16, 125e12),
        ("Tesla V100-SXM2-32GB", torch.bfloat16, None),
        ("NVIDIA H100 80GB HBM3", None, None),
        ("", torch.bfloat16, None),
    ],
)
def test_peaks_are_those_of_the_maker(name: str, dtype: torch.dtype | None, peak: float | None) -> None:
    assert peak_flops(name, dtype) == peak
