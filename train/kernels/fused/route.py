# Kernels are in the language of Triton, which only looks like Python.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""The router in one pass over its input: logits, softmax, choice, and what the plan and the losses need of them.

logits = x w^T in float32; P = softmax(logits); the experts of a token are those of the largest P (+ bias), the lowest
index of equal ones, and their weights are P as it is.

The backward pass makes the logits again rather than keep them. With p_k the weight of choice k and g its gradient, i_e
that of the mean probability and z_t of the mean of lse^2 (lse = log sum exp of the logits):

    dlogit_j = sum_k g_k p_k (delta(j, e_k) - P_j)  +  P_j (i_j - sum_e i_e P_e) / T  +  2 lse P_j z / T

Legend: T tokens, D model width, K experts a token is sent to, C = T * K, E experts, P the next power of two (16 at
least), B blocks of tokens, M tokens of a block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from train.kernels.fused.configs import arch_of, config_of
from train.kernels.fused.plan import padded, rank_in_block


class Routing(NamedTuple):
    """What the router found.

    Attributes:
        expert_TK: int32[T, K].
        prob_TK: float32[T, K], softmax probability of each choice.
        lse_T: float32[T], log sum exp of the logits.
        rank_TK: int32[T, K], place of each choice among those of its expert in its block.
        counts_BP: int32[B, P], choices of each expert in each block.
        importance_BP: float32[B, P], sum of the probabilities of each block.
    """

    expert_TK: torch.Tensor
    prob_TK: torch.Tensor
    lse_T: torch.Tensor
    rank_TK: torch.Tensor
    counts_BP: torch.Tensor
    importance_BP: torch.Tensor


@triton.jit
def inside(index, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """index < SIZE; where BLOCK divides SIZE, known to be true before anything runs, so that nothing is compared."""
    if SIZE % BLOCK == 0:
        return tl.full(index.shape, True, tl.int1)
    else:  # noqa: RET505 (what is not taken must not be compiled)
        return index < SIZE


@triton.jit
def _logits(
    x_ptr, w_ptr, token, T, D: tl.constexpr, E: tl.constexpr, P: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr
):
    """WIDE[M, P], minus infinity beyond E."""
    column = tl.arange(0, P)
    inner = tl.arange(0, BK)
    acc = tl.zeros((token.shape[0], P), WIDE)
    for first in range(0, D, BK):
        d = first + inner
        x = tl.load(
            x_ptr + token.to(tl.int64)[:, None] * D + d[None, :],
            mask=(token < T)[:, None] & inside(d, D, BK)[None, :], other=0.0,
        ).to(WIDE)  # fmt: skip
        w = tl.load(
            w_ptr + column[None, :] * D + d[:, None],
            mask=inside(column, E, P)[None, :] & inside(d, D, BK)[:, None],
            other=0.0,
        ).to(WIDE)
        acc = tl.dot(x, w, acc, input_precision="ieee", out_dtype=WIDE)
    return tl.where(inside(column, E, P)[None, :], acc, float("-inf"))


@triton.jit
def _route_fwd(
    x_ptr,  # [T, D]
    w_ptr,  # [E, D]
    bias_ptr,  # float[E], or nothing
    expert_ptr,  # int32[T, K], out
    prob_ptr,  # WIDE[T, K], out
    lse_ptr,  # WIDE[T], out
    rank_ptr,  # int32[T, K], out
    counts_ptr,  # int32[B, P], out
    importance_ptr,  # WIDE[B, P], out
    T,
    D: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    P: tl.constexpr,
    M: tl.constexpr,
    BK: tl.constexpr,
    BIASED: tl.constexpr,
    WIDE: tl.constexpr,
):
    block = tl.program_id(0)
    token = block * M + tl.arange(0, M)
    column = tl.arange(0, P)
    there = token < T
    logits = _logits(x_ptr, w_ptr, token, T, D, E, P, BK, WIDE)
    top = tl.max(logits, axis=1)
    lse = top + tl.log(tl.sum(tl.exp(logits - top[:, None]), axis=1))
    probs = tl.exp(logits - lse[:, None])
    tl.store(lse_ptr + token, lse, mask=there)
    tl.store(importance_ptr + block * P + column, tl.sum(tl.where(there[:, None], probs, 0.0), axis=0))

    scores = probs
    if BIASED:
        scores += tl.load(bias_ptr + column, mask=column < E, other=0.0).to(WIDE)[None, :]
    # A token of NaN has experts all the same, each of them once: no plan can be made of others.
    scores = tl.where(scores == scores, scores, 0.0)
    # Never chosen: below any score, whatever the bias.
    scores = tl.where(inside(column, E, P)[None, :], scores, float("-inf"))
    left = scores
    chosen = tl.zeros((M, P), tl.int32)
    for k in tl.static_range(K):
        expert = tl.argmax(left, axis=1, tie_break_left=True)
        mark = expert[:, None] == column[None, :]
        tl.store(expert_ptr + token * K + k, expert, mask=there)
        tl.store(prob_ptr + token * K + k, tl.sum(tl.where(mark, probs, 0.0), axis=1), mask=there)
        chosen += (mark & there[:, None]).to(tl.int32)
        left = tl.where(mark, float("-inf"), left)
    # A token's choices are of different experts, so the rank of each is what tokens above have of it.
    rank = rank_in_block(chosen)
    left = scores
    for k in tl.static_range(K):
        expert = tl.argmax(left, axis=1, tie_break_left=True)
        mark = expert[:, None] == column[None, :]
        tl.store(rank_ptr + token * K + k, tl.sum(tl.where(mark, rank, 0), axis=1), mask=there)
        left = tl.where(mark, float("-inf"), left)
    tl.store(counts_ptr + block * P + column, tl.sum(chosen, axis=0))


@triton.jit
def _route_bwd(
    x_ptr,  # [T, D]
    w_ptr,  # [E, D]
    expert_ptr,  # int32[T, K]
    prob_ptr,  # WIDE[T, K]
    lse_ptr,  # WIDE[T]
    prob_grad_ptr,  # WIDE[T, K]
    importance_grad_ptr,  # WIDE[E]
    z_grad_ptr,  # WIDE[1]
    x_grad_ptr,  # [T, D], out
    w_grad_ptr,  # WIDE[B, P, D], out: to be summed over blocks
    T,
    D: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    P: tl.constexpr,
    M: tl.constexpr,
    BK: tl.constexpr,
    WIDE: tl.constexpr,
):
    block = tl.program_id(0)
    token = block * M + tl.arange(0, M)
    column = tl.arange(0, P)
    inner = tl.arange(0, BK)
    there = token < T
    lse = tl.load(lse_ptr + token, mask=there, other=0.0)
    logits = _logits(x_ptr, w_ptr, token, T, D, E, P, BK, WIDE)
    probs = tl.exp(logits - lse[:, None])
    importance = tl.load(importance_grad_ptr + column, mask=column < E, other=0.0)
    z = tl.load(z_grad_ptr)
    grad = probs * (importance[None, :] - tl.sum(probs * importance[None, :], axis=1)[:, None]) / T
    grad += 2.0 * z / T * lse[:, None] * probs
    for k in tl.static_range(K):
        expert = tl.load(expert_ptr + token * K + k, mask=there, other=-1)
        weight = tl.load(prob_ptr + token * K + k, mask=there, other=0.0)
        weight *= tl.load(prob_grad_ptr + token * K + k, mask=there, other=0.0)
        mark = (expert[:, None] == column[None, :]).to(WIDE)
        grad += weight[:, None] * (mark - probs)
    grad = tl.where(there[:, None], grad, 0.0)
    for first in range(0, D, BK):
        d = first + inner
        seen = inside(d, D, BK)[None, :]
        w = tl.load(w_ptr + column[:, None] * D + d[None, :], mask=inside(column, E, P)[:, None] & seen, other=0.0).to(
            WIDE
        )
        at = token.to(tl.int64)[:, None] * D + d[None, :]
        x = tl.load(x_ptr + at, mask=there[:, None] & seen, other=0.0).to(WIDE)
        # Three products of tf32 for one of float32: its own takes more registers than there are with many experts.
        x_grad = tl.dot(grad, w, input_precision="tf32x3", out_dtype=WIDE)
        tl.store(x_grad_ptr + at, x_grad.to(x_grad_ptr.dtype.element_ty), mask=there[:, None] & seen)
        w_grad = tl.dot(tl.trans(grad), x, input_precision="tf32x3", out_dtype=WIDE)
        tl.store(w_grad_ptr + (block.to(tl.int64) * P + column[:, None]) * D + d[None, :], w_grad, mask=seen)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of sums and of the router: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def triton_type(dtype: torch.dtype) -> tl.dtype:
    """float32 or float64 as Triton has it."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def route(x_TD: torch.Tensor, w_ED: torch.Tensor, bias_E: torch.Tensor | None, top_k: int) -> Routing:
    """Choose ``top_k`` experts for each token.

    Args:
        x_TD: float[T, D].
        w_ED: float[E, D].
        bias_E: float[E], added to the probabilities where the choice is made; it does not change the weights.
        top_k: K.
    """
    tokens, width = x_TD.shape
    experts, tile, dtype = w_ED.shape[0], config_of(x_TD.dtype, arch_of(x_TD.device)).route, wide(x_TD.dtype)
    blocks, columns = triton.cdiv(tokens, tile.m), padded(experts)
    # In the type of sums: few elements, and the kernel is one and the same for each type that they are kept in.
    w_ED = w_ED.to(dtype).contiguous()

    def empty(kind: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device=x_TD.device)

    found = Routing(
        empty(torch.int32, tokens, top_k), empty(dtype, tokens, top_k), empty(dtype, tokens),
        empty(torch.int32, tokens, top_k), empty(torch.int32, blocks, columns), empty(dtype, blocks, columns),
    )  # fmt: skip
    if tokens:
        _route_fwd[(blocks,)](
            x_TD.contiguous(), w_ED, w_ED if bias_E is None else bias_E.to(dtype).contiguous(), *found, tokens, D=width,
            K=top_k, E=experts, P=columns, M=tile.m, BK=tile.k, BIASED=bias_E is not None, WIDE=triton_type(dtype),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return found


def route_backward(
    x_TD: torch.Tensor,
    w_ED: torch.Tensor,
    expert_TK: torch.Tensor,
    prob_TK: torch.Tensor,
    lse_T: torch.Tensor,
    prob_grad_TK: torch.Tensor,
    importance_grad_E: torch.Tensor,
    z_grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and w, given those of the probabilities of the choices, of the mean probability of each expert,
    and of the mean of lse^2."""
    (tokens, width), (experts, _) = x_TD.shape, w_ED.shape
    tile, dtype = config_of(x_TD.dtype, arch_of(x_TD.device)).route, wide(x_TD.dtype)
    blocks, columns = triton.cdiv(tokens, tile.m), padded(experts)
    x_grad = x_TD.new_empty(x_TD.shape)
    w_grad_BPD = torch.empty(blocks, columns, width, dtype=dtype, device=x_TD.device)
    if tokens:
        _route_bwd[(blocks,)](
            x_TD.contiguous(), w_ED.to(dtype).contiguous(), expert_TK, prob_TK, lse_T, prob_grad_TK.contiguous(),
            importance_grad_E.contiguous(), z_grad.reshape(1), x_grad, w_grad_BPD, tokens, D=width,
            K=expert_TK.shape[1], E=experts, P=columns, M=tile.m, BK=tile.k, WIDE=triton_type(dtype),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    # Over blocks in a fixed order.
    return x_grad, w_grad_BPD.sum(0)[:experts].to(w_ED.dtype)
