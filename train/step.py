"""One optimiser step: a batch in, changed weights and what was seen on the way out.

Legend: B sequences, S positions, L MoE layers, E experts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from lola_data.errors import TrainingError
from train.optimizer import learning_rate_at
from train.permutation import key_of

if TYPE_CHECKING:
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
    """

    loss: float
    balance: float
    z: float
    load_LE: Tensor
    dropped: float
    lr: float
    grad_norm: float


def train_step(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    tokens: Tensor,
    config: TrainConfig,
    *,
    step: int,
    autocast: bool,
) -> StepResult:
    """Do step number ``step`` (from 0).

    The gradient is that of mean nll + balance_loss * sum_l balance_l + z_loss * sum_l z_l, each a mean over the whole
    batch, whatever the size of the micro-batches.

    Args:
        model: in training mode.
        optimizer: over its parameters.
        tokens: int64[batch_size, seq_len + 1], on the model's device.
        config: settings.
        step: number of the step; dropout and the learning rate are functions of it.
        autocast: run the forward pass in bfloat16 where that is safe.

    Raises:
        TrainingError: loss or gradient is not finite; the weights are then as they were.
    """
    layers = len(config.model.moe_layers)
    parts = tokens.split(config.forward_rows)
    share = 1 / len(parts)
    device = tokens.device
    autocasting = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    step_load_LE = None
    if config.model.balance_over == "step" and config.model.balance_loss and layers and len(parts) > 1:
        with torch.no_grad(), autocasting:
            counts_LE = torch.zeros(layers, config.model.experts, dtype=torch.int64, device=device)
            for number, part in enumerate(parts):
                _seed_dropout(config, step, number)
                counts_LE += torch.stack([stats.counts_E for stats in model.trunk(part[:, :-1])[1]])
        step_load_LE = counts_LE / counts_LE.sum(1, keepdim=True)

    loss = torch.zeros((), device=device)
    seen = [torch.zeros(layers, config.model.experts, device=device) for _ in range(2)]  # counts and importance
    extra = torch.zeros(2, device=device)  # dropped choices, z
    for number, part in enumerate(parts):
        _seed_dropout(config, step, number)
        with autocasting:
            output = model(part[:, :-1], part[:, 1:], step_load_LE)
        (_objective(output, config.model.balance_loss, config.model.z_loss) * share).backward()
        loss += output.loss.detach() * share
        if output.routing:
            seen[0] += torch.stack([stats.counts_E for stats in output.routing])
            seen[1] += torch.stack([stats.importance_E for stats in output.routing]) * share
            extra[0] += torch.stack([stats.dropped for stats in output.routing]).sum()
            extra[1] += torch.stack([stats.z.detach() for stats in output.routing]).mean() * share

    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        optimizer.zero_grad(set_to_none=True)
        raise TrainingError(
            f"step {step + 1}: loss is {loss.item()}, gradient norm {norm.item()}; training stopped before the update. "
            "Lower learning_rate, raise warmup_share, or look at the documents of that batch"
        )
    if config.grad_clip:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.grad_clip, norm)
    lr = learning_rate_at((step + 1) * config.step_tokens, config)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    choices = tokens[:, 1:].numel() * config.model.top_k
    load = seen[0] / choices
    return StepResult(
        loss=loss.item(),
        balance=float((load * seen[1]).sum() * config.model.experts / layers) if layers else math.nan,
        z=extra[1].item() if layers else math.nan,
        load_LE=load,
        dropped=extra[0].item() / (choices * layers) if layers else 0.0,
        lr=lr,
        grad_norm=norm.item(),
    )


def _seed_dropout(config: TrainConfig, step: int, number: int) -> None:
    """Dropout of a micro-batch is a function of (seed, step, number), so a second forward pass drops the same."""
    torch.manual_seed(key_of("dropout", config.seed, step, number))


def _objective(output: DecoderOutput, balance_loss: float, z_loss: float) -> Tensor:
    """What a micro-batch adds to the objective."""
    assert output.loss is not None
    objective = output.loss
    for stats in output.routing:
        objective = objective + balance_loss * stats.balance
        if z_loss:
            objective = objective + z_loss * stats.z
    return objective
