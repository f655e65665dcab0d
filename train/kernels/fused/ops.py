"""The fused kernels as operators of torch, with gradients: what :mod:`train.moe` calls.

``lola_data::route`` and ``lola_data::experts`` are custom operators with fake and autograd, so torch.compile takes them
as they are (``fullgraph=True``), and nothing in them makes the host wait for the device. Each of them first looks at
what it is given (:mod:`train.kernels.fused.checks`).

x and weights may be wider than what is multiplied: float32 where that is bfloat16 or float16. They are made narrower
inside, for one product at a time, so that what is kept for the backward pass is x and the parameters themselves; the
gradients of weights are of the type of these, from the sums as they are.

Legend: T tokens, K experts a token is sent to, C = T * K choices, D model width, F hidden width, E experts.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from train.kernels.fused import backward, checks, forward, plan, route
from train.kernels.fused.checks import types_of
from train.kernels.fused.configs import CONFIGS, config_of
from train.kernels.shapes import check_choices, check_range

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


__all__ = ["Routed", "choose", "moe", "types_of", "unsupported"]


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


def unsupported(x_TD: Tensor, w_up_EDF: Tensor, *, dtype: torch.dtype | None = None, choices: int = 0) -> str | None:
    """Why the kernels cannot take these tensors, or None if they can.

    Args:
        x_TD: float[T, D].
        w_up_EDF: float[E, D, F].
        dtype: what is multiplied; None: the type of x.
        choices: C.
    """
    if x_TD.device.type != "cuda" and not _interpreted():
        return f"x is on {x_TD.device.type}; the fused kernels run on CUDA"
    value = x_TD.dtype if dtype is None else dtype
    for name, kind in (("x", x_TD.dtype), ("what is multiplied", value)):
        if kind not in CONFIGS or (kind == torch.float64 and not _interpreted()):
            return f"{name} is {kind}; the fused kernels take bfloat16, float16 and float32"
    experts, width, hidden = w_up_EDF.shape
    return checks.limits(width, hidden, experts, choices)


def _interpreted() -> bool:
    # Set before Triton is imported, it makes its kernels run on the CPU.
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(plan._scan, InterpretedFunction)


def _on_card_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """A block in which kernels are launched on the card of ``tensor``, whichever is the current one."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


@custom_op("lola_data::route", mutates_args=())
def _route(x: Tensor, w: Tensor, bias: Tensor | None, top_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip  # noqa: E501
    checks.check_route(x, w, bias, top_k)
    with _on_card_of(x):
        found = route.route(x, w, bias, top_k)
    tokens = max(1, x.shape[0])
    importance = found.importance_BP.sum(0)[: w.shape[0]] / tokens
    z = found.lse_T.square().sum() / tokens
    return found.prob_TK, importance, z, found.lse_T, found.expert_TK, found.rank_TK, found.counts_BP


@_route.register_fake
def _(x: Tensor, w: Tensor, bias: Tensor | None, top_k: int) -> tuple[Tensor, ...]:
    checks.check_route(x, w, bias, top_k)
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
    given = (x, w, expert, prob, lse, prob_grad, importance_grad, z_grad)
    checks.check_route_backward(*given)
    with _on_card_of(x):
        return route.route_backward(*given)


@_route_backward.register_fake
def _(x: Tensor, w: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    expert, prob, lse, prob_grad, importance_grad, z_grad = others
    checks.check_route_backward(x, w, expert, prob, lse, prob_grad, importance_grad, z_grad)
    return x.new_empty(x.shape), w.new_empty(w.shape)


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
    expert: Tensor, experts: int, rows: int, rank: Tensor | None, counts: Tensor | None, block: int, may_drop: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    checks.check_plan(expert, experts, rows, rank, counts, block)
    ranked = (rank, counts, block) if rank is not None and counts is not None else None
    check_range(expert, experts, may_drop=may_drop)
    with _on_card_of(expert):
        return tuple(plan.make_plan(expert, experts, rows, ranked=ranked))  # type: ignore[return-value]


@_plan.register_fake
def _(expert: Tensor, experts: int, rows: int, rank: Tensor | None, counts: Tensor | None, block: int, *_: Any) -> Any:
    checks.check_plan(expert, experts, rows, rank, counts, block)
    tiles = plan.most_tiles(expert.numel(), experts, rows)
    return (
        expert.new_empty(expert.numel()), expert.new_empty(experts), expert.new_empty(tiles), expert.new_empty(tiles)
    )  # fmt: skip


@custom_op("lola_data::experts", mutates_args=())
def _experts(
    x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor, ends: Tensor,
    tile_expert: Tensor, tile_row: Tensor, dtype: torch.dtype, may_drop: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sorted_rows = plan.Plan(src, ends, tile_expert, tile_row)
    checks.check_experts(x, w_up, b_up, w_down, b_down, prob, *sorted_rows, dtype)
    with _on_card_of(x):
        weights, prob_C = (w_up, b_up, w_down, b_down), prob.contiguous().view(-1)
        y, z = forward.up_and_down(x, *weights, prob_C, sorted_rows, may_drop=may_drop, dtype=dtype)
        return _of_tokens(y, x, dtype), z


def _of_tokens(of_choices: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """[T, D] in ``dtype``: with K = 1 a choice is its token, else they are summed."""
    if of_choices.shape == x.shape:
        return of_choices
    return of_choices.view(x.shape[0], -1, x.shape[1]).sum(1, dtype=dtype)


@_experts.register_fake
def _(
    x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor, ends: Tensor,
    tile_expert: Tensor, tile_row: Tensor, dtype: torch.dtype, may_drop: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    checks.check_experts(x, w_up, b_up, w_down, b_down, prob, src, ends, tile_expert, tile_row, dtype)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(prob.numel(), w_up.shape[2], dtype=dtype)


@custom_op("lola_data::experts_backward", mutates_args=())
def _experts_backward(
    g: Tensor, x: Tensor, z: Tensor, w_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor,
    ends: Tensor, tile_expert: Tensor, tile_row: Tensor, may_drop: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sorted_rows = plan.Plan(src, ends, tile_expert, tile_row)
    checks.check_experts_backward(g, x, z, w_up, w_down, b_down, prob, *sorted_rows)
    with _on_card_of(x):
        given, prob_C = (g, x, z, w_up, w_down, b_down), prob.contiguous().view(-1)
        dx, *of_weights, dp = backward.gradients(*given, prob_C, sorted_rows, may_drop=may_drop)
        return _of_tokens(dx, x, x.dtype), *of_weights, dp.view(prob.shape)  # type: ignore[return-value]


@_experts_backward.register_fake
def _(
    g: Tensor, x: Tensor, z: Tensor, w_up: Tensor, w_down: Tensor, b_down: Tensor, prob: Tensor, src: Tensor,
    ends: Tensor, tile_expert: Tensor, tile_row: Tensor, may_drop: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    checks.check_experts_backward(g, x, z, w_up, w_down, b_down, prob, src, ends, tile_expert, tile_row)
    experts, width, hidden = w_up.shape
    return (
        x.new_empty(x.shape), w_up.new_empty(w_up.shape), w_up.new_empty(experts, hidden),
        w_down.new_empty(w_down.shape), w_down.new_empty(experts, width), prob.new_empty(prob.shape),
    )  # fmt: skip


def _keep_for_experts(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w_up, _, w_down, b_down, prob, src, ends, tile_expert, tile_row, _, ctx.may_drop = inputs
    ctx.save_for_backward(x, output[1], w_up, w_down, b_down, prob, src, ends, tile_expert, tile_row)
    ctx.mark_non_differentiable(output[1])


def _backward_of_experts(ctx: Any, y_grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, z, w_up, w_down, b_down, prob, *sorted_rows = ctx.saved_tensors
    grads = _experts_backward(y_grad.contiguous(), x, z, w_up, w_down, b_down, prob, *sorted_rows, ctx.may_drop)
    return *grads, None, None, None, None, None, None


_experts.register_autograd(_backward_of_experts, setup_context=_keep_for_experts)


def choose(x_TD: Tensor, w_ED: Tensor, bias_E: Tensor | None, top_k: int) -> Routed:
    """Route tokens, see :mod:`train.kernels.fused.route`. Gradients reach x and w through ``prob_TK``, ``importance_E``
    and ``z``.

    Raises:
        TrainingError: tensors that do not fit each other, or beyond the kernels' limits.
    """
    prob, importance, z, _, expert, rank, counts = _route(x_TD, w_ED, bias_E, top_k)
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
    dtype: torch.dtype | None = None,
    may_drop: bool = False,
    routed: Routed | None = None,
) -> Tensor:
    """y_TD as :func:`train.moe.moe_experts` defines it, of ``dtype``.

    Args:
        x_TD and weights: what :func:`unsupported` lets through, each in ``dtype`` or in the type of its sums (float32
            for half types), the weights all in one type.
        expert_TK: int[T, K]; -1 is dropped (only with ``may_drop``). What is no expert is refused on the CPU; a GPU
            takes it for dropped, and without ``may_drop`` the row of such a choice holds anything.
        prob_TK: float[T, K].
        dtype: what is multiplied; None: the type of x.
        may_drop: whether ``expert_TK`` may hold -1.
        routed: what the router already knows of these very choices.

    Raises:
        TrainingError: tensors that do not fit each other, or beyond the kernels' limits.
    """
    check_choices(x_TD, expert_TK, prob_TK)
    experts, value = w_up_EDF.shape[0], x_TD.dtype if dtype is None else dtype
    rows = config_of(value).up.m if value in CONFIGS else 1
    if routed is None:
        given = (expert_TK.reshape(-1).to(torch.int32), experts, rows, None, None, 0)
    else:
        check_choices(x_TD, routed.expert_TK, prob_TK)
        block = routed.block * expert_TK.shape[1]
        given = (
            routed.expert_TK.reshape(-1), experts, rows, routed.rank_TK.reshape(-1), routed.counts_BP, block
        )  # fmt: skip
    sorted_rows = _plan(*given, may_drop)
    y_TD, _ = _experts(
        x_TD, w_up_EDF, b_up_EF, w_down_EFD, b_down_ED, prob_TK.to(route.wide(value)), *sorted_rows, value,
        may_drop,
    )  # fmt: skip
    return y_TD
