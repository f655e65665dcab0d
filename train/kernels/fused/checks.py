"""What each operator of :mod:`train.kernels.fused.ops` takes: one check an operator, of what the host knows.

The kernels trust the sizes that they are launched with, so a tensor that is smaller than that would be read or written
past its end. The operators and their fakes call these first.

Legend: T tokens, K experts a token is sent to, C = T * K choices, D model width, F hidden width, E experts, P the next
power of two (16 at least), B blocks, N tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lola_data.errors import TrainingError
from train.kernels.fused.configs import CONFIGS, config_of
from train.kernels.fused.plan import most_tiles, padded
from train.kernels.fused.route import wide
from train.kernels.shapes import check_dims, check_tensor, check_weights

if TYPE_CHECKING:
    from torch import Tensor

MOST_EXPERTS = 64
MOST_OFFSET = 2**31 - 1
"""Elements of one expert's matrix: inside it offsets have 32 bits (rows, tokens and experts have 64)."""
MOST_CHOICES = 2**31 - 2**13
"""Choices have 32 bits; those of the last block, of which some are none, have to be counted too."""


def types_of(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """What x and weights may be kept in where ``dtype`` is multiplied: that, or the type of its sums."""
    return tuple(dict.fromkeys((dtype, wide(dtype))))


def refuse(reason: str | None) -> None:
    """Raise what :func:`limits` said, if anything."""
    if reason is not None:
        raise TrainingError(reason)


def limits(width: int, hidden: int, experts: int, choices: int) -> str | None:
    """Why the experts' kernels cannot take these sizes, or None if they can."""
    if width % 16 or hidden % 16 or not width or not hidden:
        return f"the width is {width} and the hidden width {hidden}; the fused kernels take multiples of 16"
    if width * hidden > MOST_OFFSET:
        return f"an expert has {width} x {hidden} weights; the fused kernels take {MOST_OFFSET}"
    if experts > MOST_EXPERTS:
        return f"there are {experts} experts; the fused kernels take {MOST_EXPERTS}"
    return too_many(choices)


def too_many(choices: int) -> str | None:
    """The same of the number of choices."""
    return f"there are {choices} choices; the fused kernels take {MOST_CHOICES}" if choices > MOST_CHOICES else None


def check_route(x_TD: Tensor, w_ED: Tensor, bias_E: Tensor | None, top_k: int) -> None:
    """Of ``route``. Raises TrainingError, as all of them."""
    check_dims("x", x_TD, "tokens x width")
    check_dims("w_router", w_ED, "experts x width")
    experts, device = w_ED.shape[0], x_TD.device
    if x_TD.dtype not in CONFIGS:
        raise TrainingError(f"x is {x_TD.dtype}; expected one of {', '.join(map(str, CONFIGS))}")
    if not 1 <= experts <= MOST_EXPERTS:
        raise TrainingError(f"w_router has the shape {list(w_ED.shape)}; expected 1 to {MOST_EXPERTS} experts")
    check_tensor("w_router", w_ED, (experts, x_TD.shape[1]), "experts x width of x", device=device)
    _floating("w_router", w_ED)
    if not 1 <= top_k <= experts:
        raise TrainingError(f"top_k is {top_k}; expected 1 to {experts}, the experts")
    if bias_E is not None:
        check_tensor("bias", bias_E, (experts,), "one for each expert", device=device)
        _floating("bias", bias_E)
    refuse(too_many(x_TD.shape[0] * top_k))


def check_route_backward(
    x_TD: Tensor, w_ED: Tensor, expert_TK: Tensor, prob_TK: Tensor, lse_T: Tensor, prob_grad_TK: Tensor,
    importance_grad_E: Tensor, z_grad: Tensor,
) -> None:  # fmt: skip
    """Of ``route_backward``."""
    check_dims("expert", expert_TK, "tokens x experts a token")
    top_k = expert_TK.shape[1]
    check_route(x_TD, w_ED, None, top_k)
    tokens, experts, device, kind = x_TD.shape[0], w_ED.shape[0], x_TD.device, (wide(x_TD.dtype),)
    check_tensor("expert", expert_TK, (tokens, top_k), "tokens of x x experts a token", device=device,
                 dtypes=(torch.int32,))  # fmt: skip
    for name, tensor, shape, legend in (
        ("prob", prob_TK, (tokens, top_k), "a weight for each choice"),
        ("lse", lse_T, (tokens,), "one for each token"),
        ("gradient of prob", prob_grad_TK, (tokens, top_k), "one for each choice"),
        ("gradient of importance", importance_grad_E, (experts,), "one for each expert"),
        ("gradient of z", z_grad, (), "a number"),
    ):
        check_tensor(name, tensor, shape, legend, device=device, dtypes=kind)


def check_plan(
    expert_C: Tensor, experts: int, rows: int, rank_C: Tensor | None, counts_BP: Tensor | None, block: int
) -> None:
    """Of ``plan``."""
    check_dims("expert", expert_C, "choices")
    choices, device, kind = expert_C.shape[0], expert_C.device, (torch.int32,)
    check_tensor("expert", expert_C, (choices,), "choices", device=device, dtypes=kind)
    if not 1 <= experts <= MOST_EXPERTS:
        raise TrainingError(f"there are {experts} experts; the fused kernels take 1 to {MOST_EXPERTS}")
    if rows < 1:
        raise TrainingError(f"a tile has {rows} rows; expected one at least")
    refuse(too_many(choices))
    if (rank_C is None) != (counts_BP is None):
        raise TrainingError("rank and counts go together; one of them is missing")
    if rank_C is not None and counts_BP is not None:
        if block < 1:
            raise TrainingError(f"a block has {block} choices; expected one at least")
        check_tensor("rank", rank_C, (choices,), "one for each choice", device=device, dtypes=kind)
        check_tensor("counts", counts_BP, (-(-choices // block), padded(experts)),
                     "blocks x experts, up to a power of two", device=device, dtypes=kind)  # fmt: skip


def check_experts(
    x_TD: Tensor, w_up_EDF: Tensor, b_up_EF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor, prob_TK: Tensor,
    src_C: Tensor, ends_E: Tensor, tile_expert_N: Tensor, tile_row_N: Tensor, dtype: torch.dtype,
) -> None:  # fmt: skip
    """Of ``experts``."""
    check_weights(x_TD, w_up_EDF, b_up_EF, w_down_EFD, b_down_ED)
    _check_types(dtype, x=x_TD, w_up=w_up_EDF, b_up=b_up_EF, w_down=w_down_EFD, b_down=b_down_ED)
    if len({tensor.dtype for tensor in (w_up_EDF, b_up_EF, w_down_EFD, b_down_ED)}) > 1:
        raise TrainingError(
            f"w_up is {w_up_EDF.dtype}, b_up {b_up_EF.dtype}, w_down {w_down_EFD.dtype}, b_down {b_down_ED.dtype}; "
            "expected one type"
        )
    _check_rows(x_TD, w_up_EDF, prob_TK, src_C, ends_E, tile_expert_N, tile_row_N, dtype)


def check_experts_backward(
    g_TD: Tensor, x_TD: Tensor, z_CF: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor, prob_TK: Tensor,
    src_C: Tensor, ends_E: Tensor, tile_expert_N: Tensor, tile_row_N: Tensor,
) -> None:  # fmt: skip
    """Of ``experts_backward``."""
    check_dims("w_up", w_up_EDF, "experts x width x hidden width")
    # There is no b_up in it: any tensor that fits stands in.
    check_weights(x_TD, w_up_EDF, w_up_EDF[:, 0], w_down_EFD, b_down_ED)
    dtype, device = z_CF.dtype, x_TD.device
    _check_types(dtype, x=x_TD, w_up=w_up_EDF, w_down=w_down_EFD, b_down=b_down_ED)
    _check_rows(x_TD, w_up_EDF, prob_TK, src_C, ends_E, tile_expert_N, tile_row_N, dtype)
    check_tensor("z", z_CF, (prob_TK.numel(), w_up_EDF.shape[2]), "choices x hidden width", device=device)
    check_tensor("gradient of y", g_TD, x_TD.shape, "as x", device=device, dtypes=(dtype,))


def _check_types(dtype: torch.dtype, **tensors: Tensor) -> None:
    if dtype not in CONFIGS:
        raise TrainingError(f"dtype is {dtype}; expected one of {', '.join(map(str, CONFIGS))}")
    for name, tensor in tensors.items():
        if tensor.dtype not in types_of(dtype):
            raise TrainingError(f"{name} is {tensor.dtype}; expected {' or '.join(map(str, types_of(dtype)))}")


def _check_rows(
    x_TD: Tensor, w_up_EDF: Tensor, prob_TK: Tensor, src_C: Tensor, ends_E: Tensor, tile_expert_N: Tensor,
    tile_row_N: Tensor, dtype: torch.dtype,
) -> None:  # fmt: skip
    """Choices and their plan."""
    (tokens, width), (experts, _, hidden), device = x_TD.shape, w_up_EDF.shape, x_TD.device
    check_dims("prob", prob_TK, "tokens x experts a token")
    top_k = prob_TK.shape[1]
    if top_k < 1:
        raise TrainingError(f"prob has the shape {list(prob_TK.shape)}; expected one expert a token at least")
    check_tensor("prob", prob_TK, (tokens, top_k), "tokens of x x experts a token", device=device,
                 dtypes=(wide(dtype),))  # fmt: skip
    choices = prob_TK.numel()
    refuse(limits(width, hidden, experts, choices))
    tiles, kind = most_tiles(choices, experts, config_of(dtype).up.m), (torch.int32,)
    for name, tensor, shape, legend in (
        ("src", src_C, (choices,), "one for each choice"),
        ("ends", ends_E, (experts,), "one for each expert"),
        ("tile_expert", tile_expert_N, (tiles,), "one for each tile"),
        ("tile_row", tile_row_N, (tiles,), "one for each tile"),
    ):
        check_tensor(name, tensor, shape, legend, device=device, dtypes=kind)


def _floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TrainingError(f"{name} is {tensor.dtype}; expected numbers with a point")
