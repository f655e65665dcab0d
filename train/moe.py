"""Mixture-of-experts layer: router, balance loss, capacity, and the one function behind which experts are computed.

Legend: T tokens, D model width, F hidden width, E experts, K experts a token is sent to (top-k).
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from train.kernels import grouped, reference
from train.kernels.dispatch import choices_of_rows, make_plan, rows_of_tokens
from train.kernels.exchange import from_owners, to_owners
from train.kernels.shapes import check_choices, check_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch.distributed as dist
    from torch import Tensor
    from torch.distributed.tensor import Shard

    from lola_data.train_config import ModelConfig
    from train.kernels.dispatch import DispatchPlan
    from train.kernels.fused.ops import Routed

try:
    from train.kernels.fused import ops as fused
except ImportError:  # Triton is not installed
    fused = None

Backend = Literal["auto", "reference", "grouped", "fused"]


class RouterStats(NamedTuple):
    """What one MoE layer did with one micro-batch.

    Attributes:
        counts_E: int64[E], tokens that chose each expert, before any was dropped.
        dropped: int64 scalar, choices dropped for want of capacity.
        importance_E: float[E], mean router probability of each expert, detached.
        balance: float scalar with gradient, E * sum_e f_e * P_e.
        z: float scalar with gradient, mean over tokens of logsumexp(logits)^2.
        expert_TK: int64[T, K], experts that each token chose.
    """

    counts_E: Tensor
    dropped: Tensor
    importance_E: Tensor
    balance: Tensor
    z: Tensor
    expert_TK: Tensor


class Routing(NamedTuple):
    """What the router says of tokens.

    Attributes:
        expert_TK: int64[T, K].
        prob_TK: float[T, K], with gradient.
        counts_E: int64[E].
        importance_E: float[E], mean probability, with gradient.
        z: float scalar, mean of logsumexp(logits)^2, with gradient.
    """

    expert_TK: Tensor
    prob_TK: Tensor
    counts_E: Tensor
    importance_E: Tensor
    z: Tensor


class Weights(NamedTuple):
    """Of the two linear layers of experts."""

    w_up_EDF: Tensor
    b_up_EF: Tensor
    w_down_EFD: Tensor
    b_down_ED: Tensor


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_part(whole: Tensor, like: Tensor) -> Tensor:
    """The part of ``whole`` that this process has of the parameter ``like``. Where two axes of processes cut the same
    dimension, the last one (experts) cuts first."""
    if isinstance(like, DTensor):
        mesh = like.device_mesh
        for axis, placement in reversed(list(enumerate(like.placements))):
            if not placement.is_replicate():
                # What torch puts where two axes cut one dimension is no Shard, and has a dim all the same.
                dim = cast("Shard", placement).dim
                size, parts = whole.shape[dim], whole.chunk(mesh.size(axis), dim)
                rank = mesh.get_local_rank(axis)
                # Fewer rows than processes: the last ones have none.
                whole = parts[rank] if rank < len(parts) else whole.narrow(dim, size, 0)
    return whole


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
    group: dist.ProcessGroup | None = None,
    routed: Routed | None = None,
) -> Tensor:
    """y_TD = sum over k of prob[t, k] * mlp_e(x[t]) with e = expert[t, k].

    Args:
        x_TD: float[T, D].
        w_up_EDF, b_up_EF, w_down_EFD, b_down_ED: weights of the experts' two linear layers.
        expert_TK: int64[T, K]; -1 is a choice that is dropped and adds nothing (only with ``may_drop``).
        prob_TK: float[T, K], weight of each choice.
        backend: ``reference`` (a loop), ``grouped`` (grouped matrix products; where these cannot take the tensors, it
            warns once and the loop runs), ``fused`` (Triton's kernels; where these cannot, it warns once and grouped
            runs), or ``auto``: grouped on CUDA, reference on the CPU.
        may_drop: whether ``expert_TK`` may hold -1.
        group: processes that hold the experts together, each as many, in the order of their ranks. The weights are then
            those of this process, and all processes of the group call this together.
        routed: what the fused router knows of these very choices.

    Raises:
        TrainingError: tensors that do not fit each other, or (on the CPU, where it can be seen) a choice of an expert
            that there is not.
    """
    check_weights(x_TD, w_up_EDF, b_up_EF, w_down_EFD, b_down_ED)
    check_choices(x_TD, expert_TK, prob_TK)
    dtype = computed_in(x_TD)
    weights, reason = Weights(w_up_EDF, b_up_EF, w_down_EFD, b_down_ED), None
    with torch.autocast(x_TD.device.type, enabled=False):
        if backend == "fused":
            reason = fused_unsupported(x_TD, w_up_EDF, dtype, expert_TK.numel())
        if backend == "fused" and reason is None:
            assert fused is not None
            # Wider ones are made narrower inside, where they are not kept.
            weights = Weights(*_of_types(weights, fused.types_of(dtype)))
            if group is None:
                (x_TD,) = _of_types([x_TD], fused.types_of(dtype))
                return fused.moe(
                    x_TD, *weights, expert_TK, prob_TK, dtype=dtype, may_drop=may_drop, routed=routed
                )  # fmt: skip
        else:
            weights = Weights(*_of_types(weights, (dtype,)))
        return _by_plan(x_TD.to(dtype), weights, expert_TK, prob_TK, backend, may_drop, group, reason)


def computed_in(x_TD: Tensor) -> torch.dtype:
    """What experts multiply: the type of autocast where that is on, else that of x."""
    kind = x_TD.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_TD.dtype


def _of_types(tensors: Sequence[Tensor], kinds: Sequence[torch.dtype]) -> list[Tensor]:
    """As they are if all are of one of ``kinds``, else all in the first."""
    given = {tensor.dtype for tensor in tensors}
    return list(tensors) if len(given) == 1 and given <= set(kinds) else [tensor.to(kinds[0]) for tensor in tensors]


def fused_unsupported(x_TD: Tensor, w_up_EDF: Tensor, dtype: torch.dtype | None = None, choices: int = 0) -> str | None:
    """Why the fused kernels cannot take these tensors, or None if they can. ``dtype`` is what is multiplied (None: the
    type of x), ``choices`` the number of T * K."""
    if fused is None:
        return "Triton is not installed"
    return fused.unsupported(x_TD, w_up_EDF, dtype=dtype, choices=choices)


# torch.compile leaves this out.
@torch.compiler.disable(reason="sizes hang on the data; of grouped_mm tracing knows bfloat16 alone")
def _by_plan(
    x_TD: Tensor,
    weights: Weights,
    expert_TK: Tensor,
    prob_TK: Tensor,
    backend: Backend,
    may_drop: bool,
    group: dist.ProcessGroup | None,
    not_fused: str | None,
) -> Tensor:
    """Rows in the order of their experts, to the experts, and back. ``not_fused`` is why the fused kernels are not
    what runs; it is told here, where nothing is traced."""
    if not_fused is not None:
        warnings.warn(f"moe_backend: fused falls back to grouped: {not_fused}", stacklevel=2)
        backend = "grouped"
    parts = 1 if group is None else group.size()
    plan = make_plan(expert_TK, weights.w_up_EDF.shape[0] * parts, may_drop=may_drop)
    x_RD = rows_of_tokens(x_TD, plan)
    if group is None:
        y_RD = _expert_mlps(x_RD, weights, plan, backend)
    else:
        arrived, own = to_owners(x_RD, plan.counts_E, group)
        if backend == "fused":
            assert fused is not None
            alone = arrived.new_ones(len(arrived), 1, dtype=torch.promote_types(arrived.dtype, torch.float32))
            y_ND = fused.moe(arrived, *weights, own.expert_N[:, None], alone)
        else:
            own_plan = make_plan(own.expert_N[:, None], weights.w_up_EDF.shape[0], may_drop=False)
            y_ND = _expert_mlps(rows_of_tokens(arrived, own_plan), weights, own_plan, backend)
            y_ND = choices_of_rows(y_ND, own_plan)[:, 0]
        y_RD = from_owners(y_ND, own, group)
    return (choices_of_rows(y_RD, plan) * prob_TK[..., None].to(x_TD.dtype)).sum(1)


def _expert_mlps(x_RD: Tensor, weights: Weights, plan: DispatchPlan, backend: Backend) -> Tensor:
    if backend == "grouped" or (backend == "auto" and x_RD.device.type == "cuda"):
        reason = grouped.unsupported(x_RD, weights.w_up_EDF, weights.w_down_EFD)
        if reason is None:
            return grouped.expert_mlps(x_RD, *weights, plan)
        if backend == "grouped":
            warnings.warn(f"moe_backend: grouped falls back to reference: {reason}", stacklevel=3)
    return reference.expert_mlps(x_RD, *weights, plan)


def balance_loss(importance_E: Tensor, load_E: Tensor) -> Tensor:
    """E * sum_e f_e * P_e (Switch Transformer, arXiv 2101.03961, equations 4 to 6; without its coefficient).

    ``load_E`` is f, the share of choices that went to each expert (sums to 1, no gradient); ``importance_E`` is P, the
    mean router probability. It is 1 at exactly uniform load. It is no distance: values below 1 exist.
    """
    return importance_E.shape[0] * (load_E.detach() * importance_E).sum()


def expert_capacity(tokens: int, experts: int, factor: float, minimum: int) -> int:
    """Choices one expert takes of ``tokens`` choices: max(minimum, ceil(tokens / experts * factor)), at most tokens."""
    return min(tokens, max(minimum, math.ceil(tokens / experts * factor)))


def drop_over_capacity(expert_TK: Tensor, experts: int, capacity: int, order: Tensor | None = None) -> Tensor:
    """``expert_TK`` with -1 for each choice that comes after ``capacity`` others of its expert.

    The order is that of tokens, all first choices before all second ones, or that of ``order`` (int64[K * T], a
    permutation of these), so it is the same in every run.
    """
    choices = expert_TK.t().reshape(-1)
    if order is not None:
        choices = choices[order]
    onehot = F.one_hot(choices, experts)
    position = (onehot.cumsum(0) * onehot).sum(1)
    if order is not None:
        position = torch.empty_like(position).scatter_(0, order, position)
    return torch.where(position.view(expert_TK.shape[1], -1).t() > capacity, -1, expert_TK)


_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def random_order(key: Tensor, shape: torch.Size) -> Tensor:
    """A random order of the choices of a layer, int64[T * K], that hangs on ``key`` and the shape alone: they are
    sorted by a hash of (key, number), the finaliser of SplitMix64 (Steele, Lea and Flood 2014). A second forward pass
    and a resumed run drop the same."""
    x = (torch.arange(shape.numel(), device=key.device) + key) * _MIX[0]
    for factor in _MIX:
        x = (x ^ (x >> 31)) * factor
    return (x ^ (x >> 31)).argsort(stable=True)


class Experts(nn.Module):
    """The experts of a layer. Those of a process that shares a layer with others (``group``) are some of them."""

    def __init__(self, config: ModelConfig, backend: Backend = "auto") -> None:
        super().__init__()
        self.backend: Backend = backend
        self.group: dist.ProcessGroup | None = None
        experts, width, hidden = config.experts, config.d_model, config.hidden
        self.w_up = nn.Parameter(torch.empty(experts, width, hidden))
        self.b_up = nn.Parameter(torch.empty(experts, hidden))
        self.w_down = nn.Parameter(torch.empty(experts, hidden, width))
        self.b_down = nn.Parameter(torch.empty(experts, width))

    def forward(
        self, x_TD: Tensor, expert_TK: Tensor, prob_TK: Tensor, may_drop: bool, routed: Routed | None = None
    ) -> Tensor:
        """As :func:`moe_experts`."""
        weights = Weights(*map(local, (self.w_up, self.b_up, self.w_down, self.b_down)))
        return moe_experts(
            x_TD, *weights, expert_TK, prob_TK, backend=self.backend, may_drop=may_drop, group=self.group, routed=routed
        )


class MixtureOfExperts(nn.Module):
    """Router and experts in the place of a feed-forward block."""

    def __init__(self, config: ModelConfig, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(config.d_model, config.experts, bias=False)
        self.experts = Experts(config, backend)
        self.recompute = False
        """Whether the experts' hidden states are made again in the backward pass; the routing never is."""
        # No gradient, changed once a step.
        self.bias_E: Tensor | None
        self.register_buffer("bias_E", torch.zeros(config.experts) if config.router_bias_rate else None)

    def forward(
        self, x_TD: Tensor, load_E: Tensor | None = None, key: Tensor | None = None
    ) -> tuple[Tensor, RouterStats]:
        """y_TD and what was routed where.

        Args:
            x_TD: float[T, D].
            load_E: float[E], the f of the balance loss; None takes the load of these very tokens.
            key: int64 scalar that the random order of ``capacity_order: random`` hangs on.
        """
        config = self.config
        routing, routed = self._routing(x_TD)
        expert_TK, counts_E = routing.expert_TK, routing.counts_E
        kept_TK, may_drop = expert_TK, self.training and config.capacity_factor is not None
        if may_drop:
            assert config.capacity_factor is not None
            capacity = expert_capacity(expert_TK.numel(), config.experts, config.capacity_factor, config.min_capacity)
            order = None if key is None or config.capacity_order == "position" else random_order(key, expert_TK.shape)
            kept_TK, routed = drop_over_capacity(expert_TK, config.experts, capacity, order), None
        given = (x_TD, kept_TK, routing.prob_TK, may_drop, routed)
        if self.recompute and torch.is_grad_enabled():
            # They draw no random numbers; to keep the state of those, the host would wait for the device.
            y_TD = checkpoint(self.experts, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            y_TD = self.experts(*given)

        if load_E is None:
            load_E = counts_E / max(1, expert_TK.numel())
        return y_TD, RouterStats(
            counts_E=counts_E,
            dropped=(kept_TK < 0).sum(),
            importance_E=routing.importance_E.detach(),
            balance=balance_loss(routing.importance_E, load_E),
            z=routing.z,
            expert_TK=expert_TK,
        )

    def _routing(self, x_TD: Tensor) -> tuple[Routing, Routed | None]:
        """The choices; with the fused kernels in one pass, and with what these then need not find out again."""
        given = (x_TD, local(self.experts.w_up), computed_in(x_TD), x_TD.shape[0] * self.config.top_k)
        if self.experts.backend == "fused" and fused_unsupported(*given) is None:
            assert fused is not None
            with torch.autocast(x_TD.device.type, enabled=False):
                # As they are: the kernel multiplies in float32 whatever they are kept in.
                found = fused.choose(x_TD, self.router.weight, self.bias_E, self.config.top_k)
            counts_E = found.counts_BP.sum(0)[: self.config.experts]
            return Routing(found.expert_TK.long(), found.prob_TK, counts_E, found.importance_E, found.z), found
        logits_TE, probs_TE = self.route(x_TD)
        expert_TK = self.choose(probs_TE)
        counts_E = (expert_TK.reshape(-1, 1) == torch.arange(self.config.experts, device=x_TD.device)).sum(0)
        z = logits_TE.logsumexp(-1).square().mean()
        return Routing(expert_TK, probs_TE.gather(1, expert_TK), counts_E, probs_TE.mean(0), z), None

    def route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Router logits and probabilities, float32[T, E] each (float64 for a float64 model), whatever autocast says."""
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = F.linear(x_TD.to(dtype), self.router.weight.to(dtype))
        return logits_TE, logits_TE.softmax(-1)

    def choose(self, probs_TE: Tensor) -> Tensor:
        """The experts of each token, int64[T, K]: those of the largest probability, plus the bias where there is one;
        of equal ones the lowest first, and what is no number counts as 0 (the fused kernels choose the same).
        The bias decides on the choice alone; the weight of an expert's output is its probability."""
        scores_TE = probs_TE if self.bias_E is None else probs_TE + self.bias_E
        scores_TE = torch.where(scores_TE.isnan(), 0.0, scores_TE)
        # topk does not say which of equal ones it takes; a stable sort leaves them in their order.
        return scores_TE.sort(dim=-1, descending=True, stable=True).indices[:, : self.config.top_k]

    @torch.no_grad()
    def move_bias(self, load_E: Tensor) -> None:
        """One step of balancing without a loss (arXiv 2408.15664, algorithm 1): the bias of an expert that took more
        than its share of the step's choices falls by ``router_bias_rate``, that of the others rises."""
        if self.bias_E is not None:
            self.bias_E += self.config.router_bias_rate * (load_E.mean() - load_E).sign().to(self.bias_E.dtype)
