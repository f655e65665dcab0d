"""AdamW with its two parameter groups, and the learning rate as a function of the tokens seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from train.model import decays

if TYPE_CHECKING:
    from torch import nn

    from lola_data.train_config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); weight decay for matrices and embeddings alone, see :func:`train.model.decays`."""
    parameters = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in parameters if decays(name)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in parameters if not decays(name)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def learning_rate_at(tokens: int, config: TrainConfig) -> float:
    """Learning rate of the step that ends at ``tokens`` tokens.

    With peak p, end e and x = tokens / total: p * x / warmup_share while warming up; then
    cosine: e + (p - e) * (1 + cos(pi * (x - w) / (d - w))) / 2 until x = d = decay_share, and e from there on;
    wsd: p until x = 1 - cooldown_share, then linear to e at x = 1; constant: p.
    """
    peak, end = config.learning_rate, config.min_learning_rate
    share = tokens / (config.steps * config.step_tokens)
    if share < config.warmup_share:
        return peak * share / config.warmup_share
    if config.schedule == "cosine":
        span = config.decay_share - config.warmup_share
        progress = min(1.0, (share - config.warmup_share) / span) if span > 0 else 1.0
        return end + (peak - end) * (1 + math.cos(math.pi * progress)) / 2
    if config.schedule == "wsd" and share > 1 - config.cooldown_share:
        return end + (peak - end) * max(0.0, 1 - share) / config.cooldown_share
    return peak
