"""Experts by two grouped matrix products (``torch.nn.functional.grouped_mm``): one call for all experts.

The operator's limits, as of torch 2.13: float32, float16 or bfloat16 alone; rows of 16 bytes' multiple; int32 end
offsets; no bias; what lies beyond the last offset is left uninitialised. :func:`unsupported` names the one that does
not hold, the plan never leaves rows beyond the last offset, and biases are added by a product with one-hot rows, whose
backward sums in a fixed order.

Legend: R rows sorted by expert, D model width, F hidden width, E experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from train.kernels.dispatch import DispatchPlan

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unsupported(x_RD: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor) -> str | None:
    """Why ``grouped_mm`` cannot take these tensors, or None if it can."""
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} has no torch.nn.functional.grouped_mm"
    for name, tensor in (("x", x_RD), ("w_up", w_up_EDF), ("w_down", w_down_EFD)):
        if tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}; grouped_mm takes float32, float16 and bfloat16"
        if tensor.stride(-1) != 1 or (tensor.shape[-1] * tensor.element_size()) % 16 or tensor.data_ptr() % 16:
            return f"{name} has rows of {tensor.shape[-1]} x {tensor.element_size()} bytes; grouped_mm wants 16 k bytes"
        if tensor.stride(-2) != tensor.shape[-1] and tensor.shape[-2] > 1:
            return f"{name} is not contiguous (strides {tuple(tensor.stride())})"
    return None


def expert_mlps(
    x_RD: Tensor, w_up_EDF: Tensor, b_up_EF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor, plan: DispatchPlan
) -> Tensor:
    """As :func:`train.kernels.reference.expert_mlps`, for tensors that :func:`unsupported` lets through."""
    ends_E = plan.counts_E.cumsum(0).to(torch.int32)
    onehot_RE = F.one_hot(plan.expert_R, w_up_EDF.shape[0]).to(x_RD.dtype)
    hidden_RF = F.grouped_mm(x_RD, w_up_EDF, offs=ends_E) + onehot_RE @ b_up_EF
    return F.grouped_mm(F.gelu(hidden_RF, approximate="tanh"), w_down_EFD, offs=ends_E) + onehot_RE @ b_down_ED
