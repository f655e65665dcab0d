# Kernels are in the language of Triton, which only looks like Python.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Experts backward, from x, z and integer maps alone.

With g[t] the gradient of y (that of choice c is g of its token), p the weight of a choice, a_r = g[t(r)] w_down[e]^T:

    dz_r = p a_r gelu'(z_r)          h_r = gelu(z_r), made again          dp[c(r)] = a_r . h_r + g[t(r)] . b_down[e]
    dx[c(r)] = dz_r w_up[e]^T
    dw_down[e] = sum_r (p h_r)^T g[t(r)]    db_down[e] = sum_r p g[t(r)]
    dw_up[e] = sum_r x[t(r)]^T dz_r         db_up[e] = sum_r dz_r

The output y is never kept: a_r . h_r in the epilogue of the first product gives the gradient of the router's
probability (as SonicMoE, arXiv 2512.14080, has it). Every tile of a weight's gradient is written, so an expert without
a row gets zeros. Sums over rows run in one program each, in the order of the rows: two runs have the same bits.

Legend: T tokens, K experts a token is sent to, C = T * K choices, D model width, F hidden width, E experts, N tiles,
S tiles of columns of F.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from train.kernels.fused.configs import arch_of, config_of
from train.kernels.fused.forward import (
    GROUP_TILES,
    gelu_parts,
    grouped_tile,
    launch_options,
    operand,
    taken,
    widens,
)
from train.kernels.fused.route import inside, triton_type, wide

if TYPE_CHECKING:
    import torch

    from train.kernels.fused.plan import Plan


@triton.jit
def halves(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Left and right half of the columns."""
    return tl.split(tile.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))


@triton.jit
def _down_bwd(
    g_ptr,  # [T, D]
    w_ptr,  # [E, F, D]
    b_ptr,  # [E, D]
    prob_ptr,  # WIDE[C]
    z_ptr,  # [C, F]
    dz_ptr,  # [C, F], out
    hp_ptr,  # [C, F], out: p h
    dp_ptr,  # WIDE[C, S], out, by choice: to be summed over S
    src_ptr,  # int32[C]
    ends_ptr,  # int32[E]
    tile_expert_ptr,  # int32[N]
    tile_row_ptr,  # int32[N]
    N,
    D: tl.constexpr,
    F: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    WIDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    S: tl.constexpr = tl.cdiv(F, BN)
    tile, column_tile = grouped_tile(tl.program_id(0), N, S, GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert >= 0:
        end = tl.load(ends_ptr + expert)
        row = tl.load(tile_row_ptr + tile) + tl.arange(0, BM)
        there = row < end
        choice = tl.load(src_ptr + row, mask=there, other=0)
        f = column_tile * BN + tl.arange(0, BN)
        seen = inside(f, F, BN)
        inner = tl.arange(0, BK)
        g_row = g_ptr + (choice // K).to(tl.int64)[:, None] * D
        w_base = w_ptr + expert.to(tl.int64) * D * F
        from_bias = tl.zeros((BM,), WIDE)
        # A loop of its own, once for each row: in that of the product it would hold registers in every program.
        if column_tile == 0:
            for first in range(0, D, BK):
                d = first + inner
                g = tl.load(g_row + d[None, :], mask=there[:, None] & inside(d, D, BK)[None, :], other=0.0)
                b = tl.load(b_ptr + expert.to(tl.int64) * D + d, mask=inside(d, D, BK), other=0.0)
                from_bias += tl.sum(g.to(WIDE) * b.to(WIDE)[None, :], axis=1)
        acc = tl.zeros((BM, BN), WIDE)
        for first in range(0, D, BK):
            d = first + inner
            g = tl.load(g_row + d[None, :], mask=there[:, None] & inside(d, D, BK)[None, :], other=0.0)
            w = tl.load(w_base + f[None, :] * D + d[:, None], mask=inside(d, D, BK)[:, None] & seen[None, :], other=0.0)
            acc = tl.dot(operand(g, WIDEN, WIDE), operand(w, WIDEN, WIDE), acc, input_precision="ieee", out_dtype=WIDE)
        prob = tl.load(prob_ptr + choice, mask=there, other=0.0).to(WIDE)
        part = from_bias
        # A quarter of the columns at a time: all at once they would need more registers than a thread has.
        left, right = halves(acc, BM, BN)
        quarters = halves(left, BM, BN // 2) + halves(right, BM, BN // 2)
        for quarter in tl.static_range(4):
            a = quarters[quarter]
            f = column_tile * BN + quarter * (BN // 4) + tl.arange(0, BN // 4)
            at = row.to(tl.int64)[:, None] * F + f[None, :]
            mask = there[:, None] & inside(f, F, BN)[None, :]
            h, slope = gelu_parts(tl.load(z_ptr + at, mask=mask, other=0.0).to(WIDE))
            tl.store(dz_ptr + at, (prob[:, None] * a * slope).to(dz_ptr.dtype.element_ty), mask=mask)
            # What the forward pass multiplied is h in its own type.
            h = h.to(hp_ptr.dtype.element_ty).to(WIDE)
            tl.store(hp_ptr + at, (prob[:, None] * h).to(hp_ptr.dtype.element_ty), mask=mask)
            part += tl.sum(a * h, axis=1)
        tl.store(dp_ptr + choice.to(tl.int64) * S + column_tile, part, mask=there)


@triton.jit
def _up_bwd(
    dz_ptr,  # [C, F]
    w_ptr,  # [E, D, F]
    dx_ptr,  # [C, D], out, by choice
    src_ptr,  # int32[C]
    ends_ptr,  # int32[E]
    tile_expert_ptr,  # int32[N]
    tile_row_ptr,  # int32[N]
    N,
    D: tl.constexpr,
    F: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    WIDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    tile, column_tile = grouped_tile(tl.program_id(0), N, tl.cdiv(D, BN), GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert >= 0:
        end = tl.load(ends_ptr + expert)
        row = tl.load(tile_row_ptr + tile) + tl.arange(0, BM)
        there = row < end
        choice = tl.load(src_ptr + row, mask=there, other=0)
        d = column_tile * BN + tl.arange(0, BN)
        seen = inside(d, D, BN)
        inner = tl.arange(0, BK)
        dz_row = dz_ptr + row.to(tl.int64)[:, None] * F
        w_base = w_ptr + expert.to(tl.int64) * D * F
        acc = tl.zeros((BM, BN), WIDE)
        for first in range(0, F, BK):
            f = first + inner
            dz = tl.load(dz_row + f[None, :], mask=there[:, None] & inside(f, F, BK)[None, :], other=0.0)
            w = tl.load(w_base + d[None, :] * F + f[:, None], mask=inside(f, F, BK)[:, None] & seen[None, :], other=0.0)
            acc = tl.dot(operand(dz, WIDEN, WIDE), operand(w, WIDEN, WIDE), acc, input_precision="ieee", out_dtype=WIDE)
        at = choice.to(tl.int64)[:, None] * D + d[None, :]
        tl.store(dx_ptr + at, acc.to(dx_ptr.dtype.element_ty), mask=there[:, None] & seen[None, :])


@triton.jit
def _weight_grad(
    left_ptr,  # [C, U] by sorted row, or [T, U] by token
    right_ptr,  # [C, V] by sorted row, or [T, V] by token
    prob_ptr,  # WIDE[C]: weight of a row in the bias's gradient
    dw_ptr,  # [E, U, V], out
    db_ptr,  # [E, V], out
    src_ptr,  # int32[C]
    ends_ptr,  # int32[E]
    U: tl.constexpr,
    V: tl.constexpr,
    K: tl.constexpr,
    LEFT_BY_TOKEN: tl.constexpr,
    GROUP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """dw[e] = sum of left_r^T right_r and db[e] = sum of right_r, times p where right is by token."""
    U_TILES: tl.constexpr = tl.cdiv(U, BM)
    V_TILES: tl.constexpr = tl.cdiv(V, BN)
    expert = tl.program_id(0) // (U_TILES * V_TILES)
    u_tile, v_tile = grouped_tile(tl.program_id(0) % (U_TILES * V_TILES), U_TILES, V_TILES, GROUP)
    u = u_tile * BM + tl.arange(0, BM)
    v = v_tile * BN + tl.arange(0, BN)
    seen_u = inside(u, U, BM)
    seen_v = inside(v, V, BN)
    begin = tl.load(ends_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends_ptr + expert)
    inner = tl.arange(0, BK)
    if u_tile == 0:
        bias = tl.zeros((BN,), WIDE)
        # A loop of its own, once for each column: in that of the product it would hold registers in every program.
        for first in range(begin, end, BK):
            row = first + inner
            there = row < end
            choice = tl.load(src_ptr + row, mask=there, other=0)
            right_row = row.to(tl.int64) if LEFT_BY_TOKEN else (choice // K).to(tl.int64)
            at = right_row[:, None] * V + v[None, :]
            right = tl.load(right_ptr + at, mask=there[:, None] & seen_v[None, :], other=0.0).to(WIDE)
            if not LEFT_BY_TOKEN:
                right *= tl.load(prob_ptr + choice, mask=there, other=0.0).to(WIDE)[:, None]
            bias += tl.sum(right, axis=0)
        tl.store(db_ptr + expert.to(tl.int64) * V + v, bias.to(db_ptr.dtype.element_ty), mask=seen_v)
    acc = tl.zeros((BM, BN), WIDE)
    choice = tl.load(src_ptr + begin + inner, mask=begin + inner < end, other=0)
    for first in range(begin, end, BK):
        row = first + inner
        there = row < end
        token = (choice // K).to(tl.int64)
        left_row = token if LEFT_BY_TOKEN else row.to(tl.int64)
        right_row = row.to(tl.int64) if LEFT_BY_TOKEN else token
        at = left_row[None, :] * U + u[:, None]
        left = tl.load(left_ptr + at, mask=there[None, :] & seen_u[:, None], other=0.0)
        at = right_row[:, None] * V + v[None, :]
        right = tl.load(right_ptr + at, mask=there[:, None] & seen_v[None, :], other=0.0)
        acc = tl.dot(
            operand(left, WIDEN, WIDE), operand(right, WIDEN, WIDE), acc, input_precision="ieee", out_dtype=WIDE
        )
        # Of the next step, so that the rows of it need not wait for the numbers of its rows.
        choice = tl.load(src_ptr + row + BK, mask=row + BK < end, other=0)
    at = (expert.to(tl.int64) * U + u[:, None]) * V + v[None, :]
    tl.store(dw_ptr + at, acc.to(dw_ptr.dtype.element_ty), mask=seen_u[:, None] & seen_v[None, :])


def gradients(
    g_TD: torch.Tensor,
    x_TD: torch.Tensor,
    z_CF: torch.Tensor,
    w_up_EDF: torch.Tensor,
    w_down_EFD: torch.Tensor,
    b_down_ED: torch.Tensor,
    prob_C: torch.Tensor,
    plan: Plan,
    *,
    may_drop: bool,
) -> tuple[torch.Tensor, ...]:
    """Gradients of x (by choice, [C, D]), w_up, b_up, w_down, b_down and of the weights of the choices ([C]).

    Products are of the type of z. Gradients of weights and biases are of the type of these, from the sums as they are;
    that of x is of its type where a token has one choice, else of that of z, since they are to be summed.
    """
    (tokens, width), (experts, _, hidden) = x_TD.shape, w_up_EDF.shape
    value = z_CF.dtype
    choices, config, kind = prob_C.numel(), config_of(value, arch_of(x_TD.device)), wide(value)
    parts = triton.cdiv(hidden, config.down_grad.n)
    new = x_TD.new_zeros if may_drop else x_TD.new_empty
    dz_CF, hp_CF = z_CF.new_empty(choices, hidden), z_CF.new_empty(choices, hidden)
    dp_CS = new(choices, parts, dtype=kind)
    dx_CD = new(choices, width, dtype=x_TD.dtype if choices == tokens else value)
    dw_up, dw_down = w_up_EDF.new_empty(w_up_EDF.shape), w_down_EFD.new_empty(w_down_EFD.shape)
    db_up, db_down = w_up_EDF.new_empty(experts, hidden), w_down_EFD.new_empty(experts, width)
    g_TD = taken(g_TD, value)
    common = {"D": width, "F": hidden, "GROUP": GROUP_TILES, "WIDEN": widens(z_CF), "WIDE": triton_type(kind)}
    per_token = choices // max(1, tokens)
    if choices:
        tiles = plan.tile_expert_N.numel()
        _down_bwd[(tiles * parts,)](
            g_TD, taken(w_down_EFD, value), taken(b_down_ED, value), prob_C, z_CF, dz_CF, hp_CF, dp_CS, *plan, tiles,
            K=per_token, **common, **launch_options(config.down_grad),
        )  # fmt: skip
        _up_bwd[(tiles * triton.cdiv(width, config.up_grad.n),)](
            dz_CF, taken(w_up_EDF, value), dx_CD, *plan, tiles, **common, **launch_options(config.up_grad)
        )
    tile = config.weight_grad
    last = {
        "K": max(1, per_token),
        "GROUP": GROUP_TILES,
        "WIDEN": widens(z_CF),
        "WIDE": triton_type(kind),
        **launch_options(tile),
    }
    programs = experts * triton.cdiv(width, tile.m) * triton.cdiv(hidden, tile.n)
    _weight_grad[(programs,)](
        taken(x_TD, value), dz_CF, prob_C, dw_up, db_up, plan.src_C, plan.ends_E, U=width, V=hidden,
        LEFT_BY_TOKEN=True, **last,
    )  # fmt: skip
    programs = experts * triton.cdiv(hidden, tile.m) * triton.cdiv(width, tile.n)
    _weight_grad[(programs,)](
        hp_CF, g_TD, prob_C, dw_down, db_down, plan.src_C, plan.ends_E, U=hidden, V=width, LEFT_BY_TOKEN=False, **last
    )
    return dx_CD, dw_up, db_up, dw_down, db_down, dp_CS.sum(1)
