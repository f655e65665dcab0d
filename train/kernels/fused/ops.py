"""The fused kernels as operators of torch, with gradients: what :mod:`train.moe` calls.

``lola_data::route`` and ``lola_data::experts`` are custom operators with fake and autograd, so torch.compile takes them
as they are (``fullgraph=True``), and nothing in them makes the host wait for the device.

Legend: T tokens, K experts a token is sent to, C = T * K choices, D model width, F hidden width, E experts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from train.kernels.fused import backward, forward, plan, route
from train.kernels.fused.configs import CONFIGS, config_of

MOST_EXPERTS = 64
MOST_OFFSET = 2**31 - 1
"""Elements of one expert's matrix: inside it offsets have 32 bits (rows, tokens and experts have 64)."""


class Routed(NamedTuple):
    """What the router says of tokens.

    Attributes:
        expert_TK: int32[T, K].
        prob_TK: float32[T, K], with gradient.
        importance_E: float32[E], mean probability, with gradient.
        z: float32 scalar, mean of lse^2, with gradient.
        rank_TK, counts_BP: of each choice in its block, and of each block, for the plan.
        block: tokens of a block.
    """

    expert_TK: Tensor
    prob_TK: Tensor
    importance_E: Tensor
    z: Tensor
    rank_TK: Tensor
    counts_BP: Tensor
    block: int


def unsupported(x_TD: Tensor, w_up_EDF: Tensor) -> str | None:
    """Why the kernels cannot take these tensors, or None if they can."""
    if x_TD.device.type != "cuda" and not _interpreted():
        return f"x is on {x_TD.device.type}; the fused kernels run on CUDA"
    if x_TD.dtype not in CONFIGS or (x_TD.dtype == torch.float64 and not _interpreted()):
        return f"x is {x_TD.dtype}; the fused kernels take bfloat16, float16 and float32"
    experts, width, hidden = w_up_EDF.shape
    if width % 16 or hidden % 16:
        return f"the width is {width} and the hidden width {hidden}; the fused kernels take multiples of 16"
    if width * hidden > MOST_OFFSET:
        return f"an expert has {width} x {hidden} weights; the fused kernels take {MOST_OFFSET}"
    if experts > MOST_EXPERTS:
        return f"there are {experts} experts; the fused kernels take {MOST_EXPERTS}"
    return None


def _interpreted() -> bool:
    # Set before Triton is imported, it makes its kernels run on the CPU.
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(plan._scan, InterpretedFunction)


@custom_op("lola_data::route", mutates_args=())
def _route(x: Tensor, w: Tensor, bias: Tensor | None, top_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip  # noqa: E501
    found = route.route(x, w, bias, top_k)
    tokens = max(1, x.shape[0])
    importance = found.importance_BP.sum(0)[: w.shape[0]] / tokens
    z = found.lse_T.square().sum() / tokens
    return found.prob_TK, importance, z, found.lse_T, found.expert_TK, found.rank_TK, found.counts_BP


@_route.register_fake
def _(x: Tensor, w: Tensor, bias: Tensor | None, top_k: int) -> tuple[Tensor, ...]:
    tokens, kind = x.shape[0], route.wide(x.dtype)
    blocks, columns = -(-tokens // config_of(x.dtype).route.m), plan.padded(w.shape[0])
    return (
        x.new_empty(tokens, top_k, dtype=kind), x.new_empty(w.shape[0], dtype=kind), x.new_empty((), dtype=kind),
        x.new_empty(tokens, dtype=kind), x.new_empty(tokens, top_k, dtype=torch.int32),
        x.new_empty(tokens, top_k, dtype=torch.int32), x.new_empty(blocks, columns, dtype=torch.int32),
    )  # fmt: skip


@custom_op("lola_data::route_backward", mutates_args=())
def _route_backward(
    x: Tensor, w: Tensor, expert: Tensor, prob: Tensor, lse: Tensor, prob_grad: Tensor, importance_grad: Tensor,
    z_grad: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return route.route_backward(x, w, expert, prob, lse, prob_grad, importance_grad, z_grad)


@_route_backward.register_fake
def _(x: Tensor, w: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(w)


def _keep_for_route(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, w, _, _ = inputs
    prob, _, _, lse, expert, rank, counts = output
    ctx.save_for_backward(x, w, expert, prob, lse)
    ctx.mark_non_differentiable(expert, lse, rank, counts)


def _backward_of_route(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
    x, w, expert, prob, lse = ctx.saved_tensors
    prob_grad, importance_grad, z_grad = grads[:3]
    x_grad, w_grad = _route_backward(x, w, expert, prob, lse, prob_grad, importance_grad, z_grad)
    return x_grad, w_grad, None, None


_route.register_autograd(_backward_of_route, setup_context=_keep_for_route)


@custom_op("lola_data::plan", mutates_args=())
def _plan(
    expert: Tensor, experts: int, rows: int, rank: Tensor | None, counts: Tensor | None, block: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    ranked = (rank, counts, block) if rank is not None and counts is not None else None
    return tuple(plan.make_plan(expert, experts, rows, ranked=ranked))  # type: ignore[return-value]


@_plan.register_fake
def _(expert: Tensor, experts: int, rows: int, rank: Tensor | None, counts: Tensor | None, block: int) -> Any:
    tiles = plan.most_tiles(expert.numel(), experts, rows)
    return (
        expert.new_empty(expert.numel()), expert.new_empty(experts), expert.new_empty(tiles), expert.new_empty(tiles)
    )  # fmt: skip


@custom_op("lola_data::experts", mutates_args=())
def _experts(
    x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor, ends: Tensor,
    tile_expert: Tensor, tile_row: Tensor, may_drop: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sorted_rows = plan.Plan(src, ends, tile_expert, tile_row)
    y, z = forward.up_and_down(x, w_up, b_up, w_down, b_down, prob, sorted_rows, may_drop=may_drop)
    return _of_tokens(y, x), z


def _of_tokens(of_choices: Tensor, x: Tensor) -> Tensor:
    """[T, D]: with K = 1 a choice is its token, else they are summed."""
    return of_choices if of_choices.shape == x.shape else of_choices.view(x.shape[0], -1, x.shape[1]).sum(1)


@_experts.register_fake
def _(x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, *_: Any) -> Any:
    return torch.empty_like(x), x.new_empty(prob.numel(), w_up.shape[2])


@custom_op("lola_data::experts_backward", mutates_args=())
def _experts_backward(
    g: Tensor, x: Tensor, z: Tensor, w_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor,
    ends: Tensor, tile_expert: Tensor, tile_row: Tensor, may_drop: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sorted_rows = plan.Plan(src, ends, tile_expert, tile_row)
    dx, *others = backward.gradients(g, x, z, w_up, w_down, b_down, prob, sorted_rows, may_drop=may_drop)
    return _of_tokens(dx, x), *others  # type: ignore[return-value]


@_experts_backward.register_fake
def _(
    g: Tensor, x: Tensor, z: Tensor, w_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    experts, width, hidden = w_up.shape
    return (
        torch.empty_like(x), torch.empty_like(w_up), x.new_empty(experts, hidden),
        torch.empty_like(w_down), x.new_empty(experts, width), torch.empty_like(prob),
    )  # fmt: skip


def _keep_for_experts(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w_up, _, w_down, b_down, prob, src, ends, tile_expert, tile_row, ctx.may_drop = inputs
    ctx.save_for_backward(x, output[1], w_up, w_down, b_down, prob, src, ends, tile_expert, tile_row)
    ctx.mark_non_differentiable(output[1])


def _backward_of_experts(ctx: Any, y_grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, z, w_up, w_down, b_down, prob, *sorted_rows = ctx.saved_tensors
    grads = _experts_backward(y_grad.contiguous(), x, z, w_up, w_down, b_down, prob, *sorted_rows, ctx.may_drop)
    return *grads, None, None, None, None, None


_experts.register_autograd(_backward_of_experts, setup_context=_keep_for_experts)


def choose(x_TD: Tensor, w_ED: Tensor, bias_E: Tensor | None, top_k: int) -> Routed:
    """Route tokens, see :mod:`train.kernels.fused.route`. Gradients reach x and w through ``prob_TK``, ``importance_E``
    and ``z``."""
    prob, importance, z, _, expert, rank, counts = _route(x_TD.contiguous(), w_ED.contiguous(), bias_E, top_k)
    return Routed(expert, prob, importance, z, rank, counts, config_of(x_TD.dtype).route.m)


def moe(
    x_TD: Tensor,
    w_up_EDF: Tensor,
    b_up_EF: Tensor,
    w_down_EFD: Tensor,
    b_down_ED: Tensor,
    expert_TK: Tensor,
    prob_TK: Tensor,
    *,
    may_drop: bool = False,
    routed: Routed | None = None,
) -> Tensor:
    """y_TD as :func:`train.moe.moe_experts` defines it.

    Args:
        x_TD and weights: of one type that :func:`unsupported` lets through.
        expert_TK: int[T, K]; -1 is dropped (only with ``may_drop``).
        prob_TK: float[T, K].
        may_drop: whether ``expert_TK`` may hold -1.
        routed: what the router already knows of these very choices.
    """
    experts = w_up_EDF.shape[0]
    rows = config_of(x_TD.dtype).up.m
    if routed is None:
        sorted_rows = _plan(expert_TK.reshape(-1).to(torch.int32), experts, rows, None, None, 0)
    else:
        block = routed.block * expert_TK.shape[1]
        sorted_rows = _plan(
            routed.expert_TK.reshape(-1), experts, rows, routed.rank_TK.reshape(-1), routed.counts_BP, block
        )
    y_TD, _ = _experts(
        x_TD.contiguous(), w_up_EDF.contiguous(), b_up_EF.contiguous(), w_down_EFD.contiguous(),
        b_down_ED.contiguous(), prob_TK.reshape(-1).to(route.wide(x_TD.dtype)), *sorted_rows, may_drop,
    )  # fmt: skip
    return y_TD
