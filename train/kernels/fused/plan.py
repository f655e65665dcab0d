# Kernels are in the language of Triton, which only looks like Python.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Counting sort of choices by expert, without the host ever waiting for the device.

In: the expert of each choice. Out: which choice each sorted row is, and which tile of rows belongs to which expert. The
order is that of a stable sort, so it is the same in every run. Sums of integers alone; no atomics.

Legend: T tokens, K experts a token is sent to, C = T * K choices, E experts, P the next power of two (16 at least), B
blocks of choices, M rows of a tile, N tiles at most: ceil(C / M) + E.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

SCAN_BLOCKS = 64
"""Blocks whose counts the scan looks at in a step."""
SCAN_TILES = 128
"""Tiles that the scan writes in a step."""
SCAN_WARPS = 8
"""Of its one program; with 4 it spills registers."""
COUNT_CHOICES = 256
"""Choices of a block, where they do not come from the router."""
COUNT_WARPS = 8
"""Of each of its programs; with 4 it spills registers where there are 64 experts."""


class Plan(NamedTuple):
    """Rows sorted by expert, in tiles.

    Attributes:
        src_C: int32[C], choice of each sorted row; beyond the last row undefined.
        ends_E: int32[E], end of each expert's rows.
        tile_expert_N: int32[N], expert of each tile; -1 for those that are not needed.
        tile_row_N: int32[N], first row of each tile.
    """

    src_C: torch.Tensor
    ends_E: torch.Tensor
    tile_expert_N: torch.Tensor
    tile_row_N: torch.Tensor


def padded(experts: int) -> int:
    """E as the kernels see it: a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(experts))


def most_tiles(choices: int, experts: int, rows: int) -> int:
    """Tiles of ``rows`` rows that ``choices`` sorted rows can need, each of one expert alone."""
    return triton.cdiv(choices, rows) + experts


@triton.jit
def rank_in_block(onehot_TP):
    """How many rows above have the same mark, int32[T, P]."""
    return tl.cumsum(onehot_TP, axis=0) - onehot_TP


@triton.jit
def _count(
    expert_ptr,  # int32[C]
    rank_ptr,  # int32[C], out
    counts_ptr,  # int32[B, P], out
    C,
    E: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0)
    choice = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(expert_ptr + choice, mask=choice < C, other=-1)
    column = tl.arange(0, P)
    onehot = ((expert[:, None] == column[None, :]) & (expert < E)[:, None]).to(tl.int32)
    rank = tl.sum(rank_in_block(onehot) * onehot, axis=1)
    tl.store(rank_ptr + choice, rank, mask=choice < C)
    tl.store(counts_ptr + block * P + column, tl.sum(onehot, axis=0))


@triton.jit
def _scan(
    counts_ptr,  # int32[B, P]
    base_ptr,  # int32[B, P], out: first row of each block's choices of each expert
    ends_ptr,  # int32[E], out
    tile_expert_ptr,  # int32[N], out
    tile_row_ptr,  # int32[N], out
    B,
    N,
    E: tl.constexpr,
    P: tl.constexpr,
    M: tl.constexpr,
    BLOCKS: tl.constexpr,
    TILES: tl.constexpr,
):
    column = tl.arange(0, P)
    total = tl.zeros((P,), tl.int32)
    for first in range(0, B, BLOCKS):
        block = first + tl.arange(0, BLOCKS)
        counts = tl.load(counts_ptr + block[:, None] * P + column[None, :], mask=block[:, None] < B, other=0)
        total += tl.sum(counts, axis=0)
    ends = tl.cumsum(total, axis=0)
    tl.store(ends_ptr + column, ends, mask=column < E)
    running = ends - total
    for first in range(0, B, BLOCKS):
        block = first + tl.arange(0, BLOCKS)
        at = block[:, None] * P + column[None, :]
        counts = tl.load(counts_ptr + at, mask=block[:, None] < B, other=0)
        tl.store(base_ptr + at, running[None, :] + tl.cumsum(counts, axis=0) - counts, mask=block[:, None] < B)
        running += tl.sum(counts, axis=0)
    tiles = (total + M - 1) // M
    tile_ends = tl.cumsum(tiles, axis=0)
    last = tl.sum(tiles, axis=0)
    for first in range(0, N, TILES):
        tile = first + tl.arange(0, TILES)
        # Its expert: as many as end before it, or with it.
        expert = tl.sum((tile_ends[None, :] <= tile[:, None]).to(tl.int32), axis=1)
        mine = (expert[:, None] == column[None, :]).to(tl.int32)
        row = tl.sum(mine * (ends - total)[None, :], axis=1)
        row += (tile - tl.sum(mine * (tile_ends - tiles)[None, :], axis=1)) * M
        needed = tile < last
        tl.store(tile_expert_ptr + tile, tl.where(needed, expert, -1), mask=tile < N)
        tl.store(tile_row_ptr + tile, tl.where(needed, row, 0), mask=tile < N)


@triton.jit
def _place(
    expert_ptr,  # int32[C]
    rank_ptr,  # int32[C]
    base_ptr,  # int32[B, P]
    src_ptr,  # int32[C], out
    C,
    E: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0)
    # With K = 3 a block of the router has no power of two of choices.
    inner = tl.arange(0, triton.next_power_of_2(BLOCK))
    choice = block * BLOCK + inner
    expert = tl.load(expert_ptr + choice, mask=(inner < BLOCK) & (choice < C), other=-1)
    kept = (expert >= 0) & (expert < E)
    rank = tl.load(rank_ptr + choice, mask=kept, other=0)
    base = tl.load(base_ptr + block * P + expert, mask=kept, other=0)
    tl.store(src_ptr + base + rank, choice, mask=kept)


def make_plan(
    expert_C: torch.Tensor,
    experts: int,
    rows: int,
    *,
    ranked: tuple[torch.Tensor, torch.Tensor, int] | None = None,
) -> Plan:
    """Sort choices by expert.

    Args:
        expert_C: int32[C]; what is none of [0, E) is dropped and has no row.
        experts: E.
        rows: M.
        ranked: what the router knows of them already: int32[C] rank of each inside its block, int32[B, P] counts of
            each block, and choices of a block.
    """
    choices, width, device = expert_C.numel(), padded(experts), expert_C.device
    block = COUNT_CHOICES if ranked is None else ranked[2]
    blocks = triton.cdiv(choices, block)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int32, device=device)

    if ranked is None:
        rank_C, counts_BP = empty(choices), empty(blocks, width)
        if choices:
            _launch(
                _count,
                blocks,
                expert_C,
                rank_C,
                counts_BP,
                choices,
                E=experts,
                P=width,
                BLOCK=block,
                num_warps=COUNT_WARPS,
            )
    else:
        rank_C, counts_BP, _ = ranked
    tiles = most_tiles(choices, experts, rows)
    plan = Plan(empty(choices), empty(experts), empty(tiles), empty(tiles))
    base_BP = empty(blocks, width)
    _launch(
        _scan, 1, counts_BP, base_BP, plan.ends_E, plan.tile_expert_N, plan.tile_row_N, blocks, tiles,
        E=experts, P=width, M=rows, BLOCKS=SCAN_BLOCKS, TILES=SCAN_TILES,
        num_warps=SCAN_WARPS,
    )  # fmt: skip
    if choices:
        _launch(_place, blocks, expert_C, rank_C, base_BP, plan.src_C, choices, E=experts, P=width, BLOCK=block)
    return plan


def _launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    kernel[(programs,)](*arguments, **constants)
