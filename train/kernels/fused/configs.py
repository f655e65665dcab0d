"""Tile sizes of the fused kernels: tables, chosen from outside of the kernels, so that all that is shipped can be
compiled and looked at without a GPU (:mod:`train.kernels.fused.aot`)."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """Of a matrix product with rows M, columns N and inner length K, in elements.

    Attributes:
        m, n, k: of a step of a program.
        warps: of a program.
        stages: steps whose loads are under way at a time.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int


class Config(NamedTuple):
    """Of all kernels of a layer.

    Attributes:
        up: hidden states of sorted rows; its ``m`` is that of ``down``, ``down_grad`` and ``up_grad``, too.
        down: outputs.
        down_grad: gradient of the hidden states.
        up_grad: gradient of the inputs.
        weight_grad: gradients of both weights; ``k`` is rows.
        route: ``m`` tokens of a program, ``k`` columns of x in a step; ``n`` is not used.
    """

    up: Tile
    down: Tile
    down_grad: Tile
    up_grad: Tile
    weight_grad: Tile
    route: Tile


_HALF = Config(
    up=Tile(128, 256, 64, 8, 3), down=Tile(128, 256, 64, 8, 3),
    # Its epilogue spills registers with 256 columns.
    down_grad=Tile(128, 128, 64, 8, 3),
    up_grad=Tile(128, 256, 64, 8, 3), weight_grad=Tile(128, 256, 64, 8, 3), route=Tile(64, 0, 64, 8, 3),
)  # fmt: skip
_HALF_COMPACT = Config(
    up=Tile(128, 128, 64, 8, 3),
    # Steps of 64 spill registers where the tile does not divide the widths.
    down=Tile(128, 128, 32, 8, 4),
    down_grad=Tile(128, 128, 64, 8, 3),
    # The same where its gradient is of float32.
    up_grad=Tile(128, 128, 32, 8, 4),
    weight_grad=Tile(128, 128, 64, 8, 3), route=Tile(64, 0, 32, 8, 2),
)  # fmt: skip
_SINGLE = Config(
    up=Tile(64, 64, 32, 4, 2), down=Tile(64, 64, 32, 4, 2), down_grad=Tile(64, 64, 32, 4, 2),
    up_grad=Tile(64, 64, 32, 4, 2), weight_grad=Tile(64, 64, 32, 4, 2), route=Tile(64, 0, 32, 8, 2),
)  # fmt: skip
# Before compute capability 9.0 steps of 32 spill registers.
_SINGLE_COMPACT = Config(
    up=Tile(64, 64, 16, 4, 3), down=Tile(64, 64, 16, 4, 3), down_grad=Tile(64, 64, 16, 4, 3),
    up_grad=Tile(64, 64, 16, 4, 3), weight_grad=Tile(64, 64, 16, 4, 3), route=Tile(64, 0, 32, 8, 2),
)  # fmt: skip

CONFIGS: dict[torch.dtype, Config] = {
    torch.bfloat16: _HALF,
    torch.float16: _HALF,
    torch.float32: _SINGLE,
    # Under the interpreter alone, for tests against the truth.
    torch.float64: _SINGLE,
}
"""By type of the activations, for compute capability 9.0 to 11.x (227 KB of shared memory for a program). Chosen by
reasoning and by what the compiler says, on no card: of the tiles that spill no register the widest, since a program of
128 x 256 reads three quarters of the bytes for a product that one of 128 x 128 reads."""

COMPACT: dict[torch.dtype, Config] = {
    torch.bfloat16: _HALF_COMPACT,
    torch.float16: _HALF_COMPACT,
    torch.float32: _SINGLE_COMPACT,
}
"""For all others, some of which have 99 KB. Rows of a tile and tokens of a router's program are as in :data:`CONFIGS`,
since a plan is made without asking for the card."""


def config_of(dtype: torch.dtype, arch: int = 90) -> Config:
    """The configuration for activations of ``dtype`` on a card of compute capability ``arch`` (without the point)."""
    return (CONFIGS if 90 <= arch < 120 else COMPACT)[dtype]


def arch_of(device: torch.device) -> int:
    """Compute capability of a card without the point; 90 for the CPU, where the interpreter runs."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
