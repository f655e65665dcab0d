"""Experts by a plain loop: any dtype, any size, any device. What the other backends are measured against.

Legend: R rows sorted by expert, D model width, F hidden width, E experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from train.kernels.dispatch import DispatchPlan


def expert_mlps(
    x_RD: Tensor, w_up_EDF: Tensor, b_up_EF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor, plan: DispatchPlan
) -> Tensor:
    """y_RD = gelu(x w_up[e] + b_up[e]) w_down[e] + b_down[e] with the tanh GELU, e the expert of the row.

    An expert without rows gets gradients that are exactly zero.
    """
    # unbind once: its backward stacks all experts' gradients, where indexing would fill E whole tensors with zeros.
    weights = zip(w_up_EDF.unbind(), b_up_EF.unbind(), w_down_EFD.unbind(), b_down_ED.unbind(), strict=True)
    outputs = []
    for x_ND, (w_up, b_up, w_down, b_down) in zip(x_RD.split(plan.counts_E.tolist()), weights, strict=True):
        if x_ND.shape[0]:
            # Product first, bias second: on the CPU bit for bit what `grouped` does.
            hidden_NF = F.gelu(x_ND @ w_up + b_up, approximate="tanh")
            outputs.append(hidden_NF @ w_down + b_down)
    if not outputs:
        # Keeps the graph whole when no row arrived: every gradient is zero, none is missing.
        return x_RD * (w_up_EDF.sum() + b_up_EF.sum() + w_down_EFD.sum() + b_down_ED.sum()).to(x_RD.dtype)
    return torch.cat(outputs)
