"""AdamW with its two parameter groups, and the learning rate as a function of the tokens seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

from train.model import decays

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lola_data.train_config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); weight decay for matrices and embeddings alone, see :func:`train.model.decays`."""
    groups: dict[tuple[bool, object], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # One fused update takes parameters of one mesh.
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault((decays(name), mesh), []).append(parameter)
    parts = [
        {"params": parameters, "weight_decay": config.weight_decay if decayed else 0.0}
        for (decayed, _), parameters in groups.items()
    ]
    return torch.optim.AdamW(
        parts, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def run_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that a run changes, by name: ``model.<parameter or buffer>``, and of each parameter
    ``optimizer.<parameter>.exp_avg``, ``exp_avg_sq`` and ``step``. Those of an optimiser that has not stepped are 0."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter] or {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
        state |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
    return state


def set_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Give the optimiser what :func:`run_state` found, filled from a checkpoint meanwhile."""
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][key] = state[f"optimizer.{name}.{key}"]


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
