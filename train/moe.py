"""Mixture-of-experts layer: router, balance loss, capacity, and the one function behind which experts are computed.

Legend: T tokens, D model width, F hidden width, E experts, K experts a token is sent to (top-k).
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from train.kernels import grouped, reference
from train.kernels.dispatch import choices_of_rows, make_plan, rows_of_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from lola_data.train_config import ModelConfig

Backend = Literal["auto", "reference", "grouped"]


class RouterStats(NamedTuple):
    """What one MoE layer did with one micro-batch.

    Attributes:
        counts_E: int64[E], tokens that chose each expert, before any was dropped.
        dropped: int64 scalar, choices dropped for want of capacity.
        importance_E: float[E], mean router probability of each expert, detached.
        balance: float scalar with gradient, E * sum_e f_e * P_e.
        z: float scalar with gradient, mean over tokens of logsumexp(logits)^2.
    """

    counts_E: Tensor
    dropped: Tensor
    importance_E: Tensor
    balance: Tensor
    z: Tensor


def moe_experts(
    x_TD: Tensor,
    w_up_EDF: Tensor,
    b_up_EF: Tensor,
    w_down_EFD: Tensor,
    b_down_ED: Tensor,
    expert_TK: Tensor,
    prob_TK: Tensor,
    *,
    backend: Backend = "auto",
    may_drop: bool = False,
) -> Tensor:
    """y_TD = sum over k of prob[t, k] * mlp_e(x[t]) with e = expert[t, k].

    Args:
        x_TD: float[T, D].
        w_up_EDF, b_up_EF, w_down_EFD, b_down_ED: weights of the experts' two linear layers.
        expert_TK: int64[T, K]; -1 is a choice that is dropped and adds nothing (only with ``may_drop``).
        prob_TK: float[T, K], weight of each choice.
        backend: ``reference`` (a loop), ``grouped`` (grouped matrix products; where these cannot take the tensors, it
            warns once and the loop runs), or ``auto``: grouped on CUDA, reference on the CPU.
        may_drop: whether ``expert_TK`` may hold -1.
    """
    kind = x_TD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_TD.dtype
    with torch.autocast(kind, enabled=False):
        plan = make_plan(expert_TK, w_up_EDF.shape[0], may_drop=may_drop)
        x_RD = rows_of_tokens(x_TD.to(dtype), plan)
        w_up, b_up, w_down, b_down = (tensor.to(dtype) for tensor in (w_up_EDF, b_up_EF, w_down_EFD, b_down_ED))
        experts = reference.expert_mlps
        if backend == "grouped" or (backend == "auto" and kind == "cuda"):
            reason = grouped.unsupported(x_RD, w_up, w_down)
            if reason is None:
                experts = grouped.expert_mlps
            elif backend == "grouped":
                warnings.warn(f"moe_backend: grouped falls back to reference: {reason}", stacklevel=2)
        y_TKD = choices_of_rows(experts(x_RD, w_up, b_up, w_down, b_down, plan), plan)
        return (y_TKD * prob_TK[..., None].to(dtype)).sum(1)


def balance_loss(importance_E: Tensor, load_E: Tensor) -> Tensor:
    """E * sum_e f_e * P_e (Switch Transformer, arXiv 2101.03961, equations 4 to 6; without its coefficient).

    ``load_E`` is f, the share of choices that went to each expert (sums to 1, no gradient); ``importance_E`` is P, the
    mean router probability. It is 1 at exactly uniform load. It is no distance: values below 1 exist.
    """
    return importance_E.shape[0] * (load_E.detach() * importance_E).sum()


def expert_capacity(tokens: int, experts: int, factor: float, minimum: int) -> int:
    """Choices one expert takes of ``tokens`` choices: max(minimum, ceil(tokens / experts * factor)), at most tokens."""
    return min(tokens, max(minimum, math.ceil(tokens / experts * factor)))


def drop_over_capacity(expert_TK: Tensor, experts: int, capacity: int) -> Tensor:
    """``expert_TK`` with -1 for each choice that comes after ``capacity`` others of its expert.

    The order is that of tokens, all first choices before all second ones, so it is the same in every run.
    """
    by_choice_KT = expert_TK.t()
    onehot = F.one_hot(by_choice_KT.reshape(-1), experts)
    position = (onehot.cumsum(0) * onehot).sum(1).view_as(by_choice_KT).t()
    return torch.where(position > capacity, -1, expert_TK)


class MixtureOfExperts(nn.Module):
    """Router and experts in the place of a feed-forward block."""

    def __init__(self, config: ModelConfig, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.backend: Backend = backend
        experts, width, hidden = config.experts, config.d_model, config.hidden
        self.router = nn.Linear(width, experts, bias=False)
        self.w_up = nn.Parameter(torch.empty(experts, width, hidden))
        self.b_up = nn.Parameter(torch.empty(experts, hidden))
        self.w_down = nn.Parameter(torch.empty(experts, hidden, width))
        self.b_down = nn.Parameter(torch.empty(experts, width))

    def forward(self, x_TD: Tensor, load_E: Tensor | None = None) -> tuple[Tensor, RouterStats]:
        """y_TD and what was routed where.

        Args:
            x_TD: float[T, D].
            load_E: float[E], the f of the balance loss; None takes the load of these very tokens.
        """
        config = self.config
        logits_TE, probs_TE = self.route(x_TD)
        prob_TK, expert_TK = probs_TE.topk(config.top_k, dim=-1)
        counts_E = (expert_TK.reshape(-1, 1) == torch.arange(config.experts, device=x_TD.device)).sum(0)

        kept_TK, may_drop = expert_TK, self.training and config.capacity_factor is not None
        if may_drop:
            assert config.capacity_factor is not None
            capacity = expert_capacity(expert_TK.numel(), config.experts, config.capacity_factor, config.min_capacity)
            kept_TK = drop_over_capacity(expert_TK, config.experts, capacity)
        y_TD = moe_experts(
            x_TD, self.w_up, self.b_up, self.w_down, self.b_down, kept_TK, prob_TK,
            backend=self.backend, may_drop=may_drop,
        )  # fmt: skip

        importance_E = probs_TE.mean(0)
        if load_E is None:
            load_E = counts_E / max(1, expert_TK.numel())
        return y_TD, RouterStats(
            counts_E=counts_E,
            dropped=(kept_TK < 0).sum(),
            importance_E=importance_E.detach(),
            balance=balance_loss(importance_E, load_E),
            z=logits_TE.logsumexp(-1).square().mean(),
        )

    def route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Router logits and probabilities, float32[T, E] each (float64 for a float64 model), whatever autocast says."""
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = F.linear(x_TD.to(dtype), self.router.weight.to(dtype))
        return logits_TE, logits_TE.softmax(-1)
