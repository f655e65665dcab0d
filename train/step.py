"""One optimiser step: this process's rows of a batch in, changed weights and what was seen on the way out.

Legend: B sequences, S positions, L MoE layers, E experts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from train.moe import MixtureOfExperts
from train.optimizer import learning_rate_at
from train.parallel import gradient_norm, hold_gradients, scale_gradients, settle_gradients
from train.permutation import key_of
from train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lola_data.train_config import TrainConfig
    from train.model import Decoder, DecoderOutput


class StepResult(NamedTuple):
    """What a step saw.

    Attributes:
        loss: nats per token of the language-model loss alone, before the update.
        balance: E * sum_e f_e * P_e over the whole step, mean over MoE layers; 1 at uniform load. NaN if dense.
        z: mean over layers of the router z-loss, without its coefficient. NaN if dense.
        load_LE: float32[L, E], share of the choices that went to each expert.
        dropped: share of the choices dropped for want of capacity.
        lr: learning rate of the update.
        grad_norm: norm of the gradient before it was clipped.
        fault: why the update was left out; empty if it was made.
    """

    loss: float
    balance: float
    z: float
    load_LE: Tensor
    dropped: float
    lr: float
    grad_norm: float
    fault: str = ""


class LossScale:
    """Scale of the loss in float16, whose small gradients would be 0: halved when a gradient is not finite, doubled
    after ``patience`` steps without that (Micikevicius et al., arXiv 1710.03740, section 3.2)."""

    def __init__(self, scale: float = 65536.0, steps: int = 0, patience: int = 2000) -> None:
        self.scale, self.steps, self.patience = scale, steps, patience

    def update(self, finite: bool) -> None:
        """After each step."""
        self.steps = self.steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.steps == self.patience:
            self.scale, self.steps = self.scale * 2, 0


def train_step(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    tokens: Tensor,
    config: TrainConfig,
    *,
    step: int,
    autocast: torch.dtype | None,
    ranks: Ranks = ALONE,
    scale: LossScale | None = None,
    judge: Callable[[float, float], str] | None = None,
) -> StepResult:
    """Do step number ``step`` (from 0).

    The gradient is that of mean nll + balance_loss * sum_l balance_l + z_loss * sum_l z_l, each a mean over the whole
    batch of all processes, whatever the size of the micro-batches.

    Args:
        model: in training mode.
        optimizer: over its parameters.
        tokens: int64[batch_size / world, seq_len + 1], on the model's device.
        config: settings.
        step: number of the step; dropout and the learning rate are functions of it.
        autocast: type that the forward pass computes in where that is safe; None: that of the weights.
        ranks: processes of the run.
        scale: of the loss, with float16.
        judge: told loss and gradient norm; what it says, if anything, is why the update is left out. By default it is
            what is not finite.
    """
    layers = len(config.model.moe_layers)
    parts = tokens.split(min(len(tokens), config.forward_rows))
    share = 1 / len(parts)
    device = tokens.device
    autocasting = torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None)
    keys = [key_of("step", config.seed, step, ranks.rank * len(parts) + number) for number in range(len(parts))]
    step_load_LE = None
    several = len(parts) * ranks.world > 1
    if config.model.balance_over == "step" and config.model.balance_loss and layers and several:
        with torch.no_grad(), autocasting:
            counts_LE = torch.zeros(layers, config.model.experts, dtype=torch.int64, device=device)
            for part, key in zip(parts, keys, strict=True):
                torch.manual_seed(key)
                routing = model(part[:, :-1], key=key, routing_only=True).routing
                counts_LE += torch.stack([stats.counts_E for stats in routing])
        ranks.sum(counts_LE)
        step_load_LE = counts_LE / counts_LE.sum(1, keepdim=True)

    seen = torch.zeros(2, layers, config.model.experts, dtype=torch.float64, device=device)  # counts and importance
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, dropped choices, z
    for number, (part, key) in enumerate(zip(parts, keys, strict=True)):
        # Dropout is a function of (seed, step, number), so a second forward pass drops the same.
        torch.manual_seed(key)
        hold_gradients(model, config.shard == 1 and number < len(parts) - 1)
        with autocasting:
            output = model(part[:, :-1], part[:, 1:], step_load_LE, key=key)
        objective = _objective(output, config.model.balance_loss, config.model.z_loss) * share
        (objective * (scale.scale if scale is not None else 1.0)).backward()
        sums[0] += output.loss.detach() * share
        if output.routing:
            seen[0] += torch.stack([stats.counts_E for stats in output.routing])
            seen[1] += torch.stack([stats.importance_E for stats in output.routing]) * share
            sums[1] += torch.stack([stats.dropped for stats in output.routing]).sum()
            sums[2] += torch.stack([stats.z.detach() for stats in output.routing]).mean() * share

    settle_gradients(model, config)
    told = ranks.sum(torch.cat([seen.reshape(-1), sums]))
    seen, sums = told[:-3].view_as(seen), told[-3:]
    seen[1] /= ranks.world
    loss, z = sums[0].item() / ranks.world, sums[2].item() / ranks.world
    if scale is not None:
        scale_gradients(model.parameters(), 1 / scale.scale)
    norm = gradient_norm(model.parameters())
    choices = tokens[:, 1:].numel() * ranks.world * config.model.top_k
    load_LE = (seen[0] / choices).float()
    fault = ""
    if scale is not None:
        scale.update(math.isfinite(norm))
        if math.isfinite(loss) and not math.isfinite(norm):
            fault = f"loss scale halved to {scale.scale:g}"
    fault = fault or (judge or not_finite)(loss, norm)
    lr = learning_rate_at((step + 1) * config.step_tokens, config)
    if not fault:
        if config.grad_clip and norm > config.grad_clip:
            scale_gradients(model.parameters(), config.grad_clip / (norm + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        for layer, block in zip(load_LE, _moe_blocks(model), strict=True):
            block.move_bias(layer)
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        loss=loss,
        balance=float((seen[0] / choices * seen[1]).sum() * config.model.experts / layers) if layers else math.nan,
        z=z if layers else math.nan,
        load_LE=load_LE.cpu(),
        dropped=sums[1].item() / (choices * layers) if layers else 0.0,
        lr=lr,
        grad_norm=norm,
        fault=fault,
    )


def not_finite(loss: float, norm: float) -> str:
    """The least that a judge says: a loss or a gradient that is not finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return ""
    return f"loss is {loss}, gradient norm {norm}"


def _moe_blocks(model: Decoder) -> list[MixtureOfExperts]:
    return [block.feed_forward for block in model.blocks if isinstance(block.feed_forward, MixtureOfExperts)]


def _objective(output: DecoderOutput, balance_loss: float, z_loss: float) -> Tensor:
    """What a micro-batch adds to the objective."""
    assert output.loss is not None
    objective = output.loss
    for stats in output.routing:
        objective = objective + balance_loss * stats.balance
        if z_loss:
            objective = objective + z_loss * stats.z
    return objective
