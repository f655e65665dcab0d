from __future__ import annotations

import math

import pytest

from lola_data.train_config import ModelConfig, TrainConfig
from train.optimizer import learning_rate_at

SHAPE = {"model": ModelConfig(seq_len=10), "batch_size": 10, "tokens": 100_000}


def rate(share: float, **settings: object) -> float:
    config = TrainConfig(**SHAPE, learning_rate=1.0, min_learning_rate=0.1, **settings)  # type: ignore[arg-type]
    return learning_rate_at(round(share * 100_000), config)


def test_cosine_by_tokens():
    settings = {"schedule": "cosine", "warmup_share": 0.1, "decay_share": 0.8}
    assert rate(0.05, **settings) == pytest.approx(0.5)
    assert rate(0.1, **settings) == pytest.approx(1.0)
    assert rate(0.45, **settings) == pytest.approx(0.55)  # half way between 0.1 and 0.8: the middle of 1.0 and 0.1
    assert rate(0.275, **settings) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(0.8, **settings) == pytest.approx(0.1)
    assert rate(1.0, **settings) == pytest.approx(0.1)


def test_lola_stopped_at_the_rate_that_was_published():
    # 1T tokens planned, 10 % warm-up, decay over 80 %; the released step 296,000 is derived to have run at 1.04e-4
    # where the decay's 800 B tokens count from the start: 465.6 B is (465.6 - 100) / 700 = 52 % through.
    config = TrainConfig(
        model=ModelConfig(seq_len=2048), batch_size=768, tokens=10**12, learning_rate=2e-4, min_learning_rate=2e-5,
        warmup_share=0.1, decay_share=0.8,
    )  # fmt: skip
    assert learning_rate_at(296_000 * 768 * 2048, config) == pytest.approx(1.04e-4, rel=0.01)


def test_wsd():
    settings = {"schedule": "wsd", "warmup_share": 0.1, "cooldown_share": 0.2}
    assert rate(0.02, **settings) == pytest.approx(0.2)
    assert rate(0.79, **settings) == pytest.approx(1.0)
    assert rate(0.9, **settings) == pytest.approx(0.55)
    assert rate(1.0, **settings) == pytest.approx(0.1)


def test_constant_and_no_warm_up():
    assert rate(0.001, schedule="constant", warmup_share=0.0) == 1.0
    assert rate(1.0, schedule="constant", warmup_share=0.0) == 1.0
    assert rate(1.0, schedule="wsd", warmup_share=0.0, cooldown_share=0.0) == 1.0
