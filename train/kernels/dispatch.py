"""Rows in the order of their experts, and back: the plan that every backend shares.

Legend: T tokens, D model width, E experts, K experts a token is sent to, R rows that an expert takes (R = T * K if none
is dropped). Row r of the sorted order belongs to token ``token_R[r]``; its place is ``slot_TK``. The backward pass of
each gather is the other gather, so no add runs in an order that could differ between two runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from train.kernels.shapes import check_range

if TYPE_CHECKING:
    from torch import Tensor


class DispatchPlan(NamedTuple):
    """Which rows go where.

    Attributes:
        token_R: int64[R], token of each row; rows are sorted by expert, inside an expert by token.
        expert_R: int64[R], expert of each row.
        slot_TK: int64[T, K], row of each choice of each token; R for a dropped one.
        counts_E: int64[E], rows of each expert.
    """

    token_R: Tensor
    expert_R: Tensor
    slot_TK: Tensor
    counts_E: Tensor


def make_plan(expert_TK: Tensor, experts: int, *, may_drop: bool) -> DispatchPlan:
    """Sort the choices ``expert_TK`` (int64[T, K], -1 = dropped) by expert with a stable sort.

    ``may_drop`` says whether -1 can occur: counting them makes the host wait for the device, which the dropless path
    must not. On the CPU a choice of an expert that there is not is refused (:func:`train.kernels.shapes.check_range`).
    """
    check_range(expert_TK, experts, may_drop=may_drop)
    choices = expert_TK.reshape(-1)
    order = choices.argsort(stable=True)
    dropped = int((choices < 0).sum()) if may_drop else 0
    rows = order[dropped:]
    slots = torch.empty_like(order)
    slots[order] = torch.arange(-dropped, choices.numel() - dropped, device=order.device)
    slots = torch.where(slots < 0, rows.numel(), slots)
    expert_R = choices[rows]
    counts = (expert_R[:, None] == torch.arange(experts, device=order.device)).sum(0)
    return DispatchPlan(rows // expert_TK.shape[1], expert_R, slots.view_as(expert_TK), counts)


def rows_of_tokens(x_TD: Tensor, plan: DispatchPlan) -> Tensor:
    """x_RD: the row of each token once for each expert that takes it, sorted by expert."""
    return _RowsOfTokens.apply(x_TD, plan.token_R, plan.slot_TK)  # type: ignore[return-value]


def choices_of_rows(y_RD: Tensor, plan: DispatchPlan) -> Tensor:
    """y_TKD: the row of each choice of each token; zeros for a dropped one."""
    return _ChoicesOfRows.apply(y_RD, plan.token_R, plan.slot_TK)  # type: ignore[return-value]


def _take(rows_RD: Tensor, slot_TK: Tensor, full: bool) -> Tensor:
    if not full:
        rows_RD = torch.cat([rows_RD, rows_RD.new_zeros(1, rows_RD.shape[1])])
    return rows_RD[slot_TK.reshape(-1)].view(*slot_TK.shape, rows_RD.shape[1])


class _RowsOfTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_R: Tensor, slot_TK: Tensor) -> Tensor:
        ctx.save_for_backward(slot_TK)
        return x_TD[token_R]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot_TK,) = ctx.saved_tensors
        (grad_RD,) = grads
        return _take(grad_RD, slot_TK, grad_RD.shape[0] == slot_TK.numel()).sum(1), None, None


class _ChoicesOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, token_R: Tensor, slot_TK: Tensor) -> Tensor:
        full = y_RD.shape[0] == slot_TK.numel()
        # Row r is choice slot^-1(r): with K = 1 that is the token itself, otherwise it is looked up.
        choice_R = torch.empty(slot_TK.numel() + 1, dtype=torch.int64, device=slot_TK.device)
        choice_R[slot_TK.reshape(-1)] = torch.arange(slot_TK.numel(), device=slot_TK.device)
        ctx.save_for_backward(choice_R[: y_RD.shape[0]])
        del token_R
        return _take(y_RD, slot_TK, full)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (choice_R,) = ctx.saved_tensors
        (grad_TKD,) = grads
        return grad_TKD.reshape(-1, grad_TKD.shape[-1])[choice_R], None, None
