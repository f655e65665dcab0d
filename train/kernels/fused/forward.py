# Kernels are in the language of Triton, which only looks like Python.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Experts forward: two grouped matrix products; rows are gathered as they are read and scattered as they are written.

    z_r = x[t(r)] w_up[e] + b_up[e],   h_r = gelu(z_r),   y[c(r)] = p[c(r)] (h_r w_down[e] + b_down[e])

r is a sorted row, c(r) its choice, t(r) = c(r) // K its token, e its expert. h lives until the second product is done;
z is kept for the backward pass.

Legend: T tokens, K experts a token is sent to, C = T * K choices, D model width, F hidden width, E experts, N tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from train.kernels.fused.configs import Tile, arch_of, config_of
from train.kernels.fused.route import inside, triton_type, wide

if TYPE_CHECKING:
    from train.kernels.fused.plan import Plan


@triton.jit
def gelu_parts(z):
    """gelu(z) = 0.5 z (1 + tanh(u)) = z s with s = sigmoid(2 u), u = sqrt(2 / pi) (z + 0.044715 z^3); and gelu'(z) =
    s + z s (1 - s) 2 u'."""
    # Beyond 12, where s is exactly 0 or 1 (the exponential may well be infinite), the cube would overflow.
    c = tl.minimum(tl.maximum(z, -12.0), 12.0)
    s = 1.0 / (1.0 + tl.exp(-1.5957691216057308 * (c + 0.044715 * c * c * c)))
    return z * s, s + c * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * c * c)


@triton.jit
def operand(tile, WIDEN: tl.constexpr, WIDE: tl.constexpr):
    """What goes into a product: as it is, or widened where the machine multiplies no such type (the interpreter takes
    bfloat16 for integers)."""
    return tile.to(WIDE) if WIDEN else tile


@triton.jit
def grouped_tile(number, N_TILES, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """Tile of rows and tile of columns of program ``number``: GROUP row tiles go through the columns together, so that
    what they read of the weights is still in the cache."""
    per_group = GROUP * COLUMNS
    group = number // per_group
    first = group * GROUP
    size = min(N_TILES - first, GROUP)
    inside = number % per_group
    return first + inside % size, inside // size


@triton.jit
def _up_fwd(
    x_ptr,  # [T, D]
    w_ptr,  # [E, D, F]
    b_ptr,  # [E, F]
    z_ptr,  # [C, F], out
    h_ptr,  # [C, F], out
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
    tile, column_tile = grouped_tile(tl.program_id(0), N, tl.cdiv(F, BN), GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert >= 0:
        end = tl.load(ends_ptr + expert)
        row = tl.load(tile_row_ptr + tile) + tl.arange(0, BM)
        there = row < end
        token = tl.load(src_ptr + row, mask=there, other=0) // K
        f = column_tile * BN + tl.arange(0, BN)
        seen = inside(f, F, BN)
        inner = tl.arange(0, BK)
        x_row = x_ptr + token.to(tl.int64)[:, None] * D
        w_base = w_ptr + expert.to(tl.int64) * D * F
        acc = tl.zeros((BM, BN), WIDE)
        for first in range(0, D, BK):
            d = first + inner
            x = tl.load(x_row + d[None, :], mask=there[:, None] & inside(d, D, BK)[None, :], other=0.0)
            w = tl.load(w_base + d[:, None] * F + f[None, :], mask=inside(d, D, BK)[:, None] & seen[None, :], other=0.0)
            acc = tl.dot(operand(x, WIDEN, WIDE), operand(w, WIDEN, WIDE), acc, input_precision="ieee", out_dtype=WIDE)
        acc += tl.load(b_ptr + expert.to(tl.int64) * F + f, mask=seen, other=0.0).to(WIDE)[None, :]
        z = acc.to(z_ptr.dtype.element_ty)
        # Of z as it is kept, so that the backward pass finds the same h.
        h, _ = gelu_parts(z.to(WIDE))
        at = row.to(tl.int64)[:, None] * F + f[None, :]
        mask = there[:, None] & seen[None, :]
        tl.store(z_ptr + at, z, mask=mask)
        tl.store(h_ptr + at, h.to(h_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _down_fwd(
    h_ptr,  # [C, F]
    w_ptr,  # [E, F, D]
    b_ptr,  # [E, D]
    prob_ptr,  # WIDE[C]
    y_ptr,  # [C, D], out, by choice
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
        h_row = h_ptr + row.to(tl.int64)[:, None] * F
        w_base = w_ptr + expert.to(tl.int64) * D * F
        acc = tl.zeros((BM, BN), WIDE)
        for first in range(0, F, BK):
            f = first + inner
            h = tl.load(h_row + f[None, :], mask=there[:, None] & inside(f, F, BK)[None, :], other=0.0)
            w = tl.load(w_base + f[:, None] * D + d[None, :], mask=inside(f, F, BK)[:, None] & seen[None, :], other=0.0)
            acc = tl.dot(operand(h, WIDEN, WIDE), operand(w, WIDEN, WIDE), acc, input_precision="ieee", out_dtype=WIDE)
        acc += tl.load(b_ptr + expert.to(tl.int64) * D + d, mask=seen, other=0.0).to(WIDE)[None, :]
        acc *= tl.load(prob_ptr + choice, mask=there, other=0.0).to(WIDE)[:, None]
        at = choice.to(tl.int64)[:, None] * D + d[None, :]
        tl.store(y_ptr + at, acc.to(y_ptr.dtype.element_ty), mask=there[:, None] & seen[None, :])


GROUP_TILES = 8
"""Row tiles that go through the columns together."""


def widens(tensor: torch.Tensor) -> bool:
    """Whether operands are widened: on the CPU, where the interpreter runs."""
    return tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"


def taken(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor as a kernel reads it: in ``dtype`` and contiguous; itself where it is both already."""
    return tensor.to(dtype).contiguous()


def launch_options(tile: Tile) -> dict[str, int]:
    """Tile sizes and the machine's share, as a kernel's arguments."""
    return {"BM": tile.m, "BN": tile.n, "BK": tile.k, "num_warps": tile.warps, "num_stages": tile.stages}


def up_and_down(
    x_TD: torch.Tensor,
    w_up_EDF: torch.Tensor,
    b_up_EF: torch.Tensor,
    w_down_EFD: torch.Tensor,
    b_down_ED: torch.Tensor,
    prob_C: torch.Tensor,
    plan: Plan,
    *,
    may_drop: bool,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y_CD by choice, and z_CF by sorted row (beyond the last row undefined). A dropped choice has zeros in y.

    ``dtype`` is what is multiplied and what y and z are of; None: that of x. What is wider is made narrower for one
    product at a time, and not kept.
    """
    (tokens, width), hidden = x_TD.shape, w_up_EDF.shape[2]
    value = x_TD.dtype if dtype is None else dtype
    choices, config, kind = prob_C.numel(), config_of(value, arch_of(x_TD.device)), wide(value)
    z_CF = x_TD.new_empty(choices, hidden, dtype=value)
    h_CF = x_TD.new_empty(choices, hidden, dtype=value)
    y_CD = (x_TD.new_zeros if may_drop else x_TD.new_empty)(choices, width, dtype=value)
    if choices:
        tiles = plan.tile_expert_N.numel()
        common = {"D": width, "F": hidden, "GROUP": GROUP_TILES, "WIDEN": widens(z_CF), "WIDE": triton_type(kind)}
        _up_fwd[(tiles * triton.cdiv(hidden, config.up.n),)](
            taken(x_TD, value), taken(w_up_EDF, value), taken(b_up_EF, value), z_CF, h_CF, *plan, tiles,
            K=choices // tokens, **common, **launch_options(config.up),
        )  # fmt: skip
        _down_fwd[(tiles * triton.cdiv(width, config.down.n),)](
            h_CF, taken(w_down_EFD, value), taken(b_down_ED, value), prob_C, y_CD, *plan, tiles, **common,
            **launch_options(config.down),
        )  # fmt: skip
    return y_CD, z_CF
