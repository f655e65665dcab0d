"""Experts by two grouped matrix products (``torch.nn.functional.grouped_mm``): one call for all experts.

The operator's limits, as of torch 2.13: float32, float16 or bfloat16 alone; rows and matrices that begin at multiples
of 16 bytes; int32 end offsets; no bias; what lies beyond the last offset is left uninitialised. :func:`unsupported`
names the one that does not hold, the plan never leaves rows beyond the last offset, and biases are added by a product
with one-hot rows, whose backward sums in a fixed order.

Legend: R rows sorted by expert, D model width, F hidden width, E experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from train.kernels.dispatch import DispatchPlan

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_ROWS = 2**31 - 1


def unsupported(x_RD: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor) -> str | None:
    """Why ``grouped_mm`` cannot take these tensors, or None if it can."""
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} has no torch.nn.functional.grouped_mm"
    if x_RD.shape[0] > _MOST_ROWS:
        return f"{x_RD.shape[0]:,} rows; grouped_mm counts them in 32 bits"
    for name, tensor in (("x", x_RD), ("w_up", w_up_EDF), ("w_down", w_down_EFD)):
        size = tensor.element_size()
        if tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}; grouped_mm takes float32, float16 and bfloat16"
        if tensor.stride(-1) != 1 or (tensor.stride(-2) != tensor.shape[-1] and tensor.shape[-2] > 1):
            return f"{name} is not contiguous (strides {tuple(tensor.stride())})"
        if (tensor.shape[-1] * size) % 16:
            return f"{name} has rows of {tensor.shape[-1]} x {size} bytes; grouped_mm wants 16 k bytes"
        # Torch itself looks at the strides within a matrix alone, and the kernels on a GPU read each from where it is.
        if tensor.data_ptr() % 16 or any(stride * size % 16 for stride in tensor.stride()[:-2]):
            return f"{name} has a matrix that does not begin at a multiple of 16 bytes"
    return None


def expert_mlps(
    x_RD: Tensor, w_up_EDF: Tensor, b_up_EF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor, plan: DispatchPlan
) -> Tensor:
    """As :func:`train.kernels.reference.expert_mlps`, for tensors that :func:`unsupported` lets through."""
    ends_E = plan.counts_E.cumsum(0).to(torch.int32)
    hidden_RF = F.grouped_mm(x_RD, w_up_EDF, offs=ends_E) + _bias_of_rows(b_up_EF, plan)
    y_RD = F.grouped_mm(F.gelu(hidden_RF, approximate="tanh"), w_down_EFD, offs=ends_E)
    return y_RD + _bias_of_rows(b_down_ED, plan)


def _bias_of_rows(bias_EF: Tensor, plan: DispatchPlan) -> Tensor:
    return _BiasOfRows.apply(bias_EF, plan.expert_R, plan.counts_E)  # type: ignore[return-value]


class _BiasOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias_EF: Tensor, expert_R: Tensor, counts_E: Tensor) -> Tensor:
        ctx.save_for_backward(expert_R, counts_E)
        return bias_EF[expert_R]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        expert_R, counts_E = ctx.saved_tensors
        (grad_RF,) = grads
        if grad_RF.device.type == "cpu":
            # The sums of the reference.
            return torch.stack([rows.sum(0) for rows in grad_RF.split(counts_E.tolist())]), None, None
        # A product, so that the host need not know the counts.
        return F.one_hot(expert_R, counts_E.numel()).to(grad_RF.dtype).t() @ grad_RF, None, None
