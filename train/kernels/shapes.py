"""What the tensors of an experts' layer must be, for every backend: shapes, devices and types that fit each other.

In: tensors. Out: nothing, or an error that names the tensor, what it is and what was expected. Only what the host knows
is looked at, so nothing waits for a device and ``torch.compile`` may trace it; the one look at numbers, whether each
expert is one that there is, is left to tensors that lie in the host's memory.

Legend: T tokens, D model width, F hidden width, E experts, K experts a token is sent to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int],
    legend: str,
    *,
    device: torch.device,
    dtypes: Sequence[torch.dtype] = (),
) -> None:
    """Refuse a tensor of another shape, on another device, or of none of ``dtypes`` (empty: any).

    Raises:
        TrainingError: naming the tensor, what it is, and what was expected.
    """
    if tensor.dim() != len(shape) or any(found != wanted for found, wanted in zip(tensor.shape, shape, strict=True)):
        raise TrainingError(f"{name} has the shape {list(tensor.shape)}; expected {list(shape)}, {legend}")
    if tensor.device != device:
        raise TrainingError(f"{name} is on {tensor.device}; expected {device}, where x is")
    if dtypes and tensor.dtype not in dtypes:
        raise TrainingError(f"{name} is {tensor.dtype}; expected {' or '.join(map(str, dtypes))}")


def check_dims(name: str, tensor: Tensor, legend: str) -> None:
    """Refuse a tensor that has not one dimension for each word of ``legend``."""
    if tensor.dim() != len(legend.split(" x ")):
        raise TrainingError(f"{name} has the shape {list(tensor.shape)}; expected {legend}")


def check_weights(x_TD: Tensor, w_up_EDF: Tensor, b_up_EF: Tensor, w_down_EFD: Tensor, b_down_ED: Tensor) -> None:
    """Refuse weights of experts that do not fit each other or x.

    Raises:
        TrainingError: naming the tensor.
    """
    check_dims("x", x_TD, "tokens x width")
    check_dims("w_up", w_up_EDF, "experts x width x hidden width")
    experts, _, hidden = w_up_EDF.shape
    width, device = x_TD.shape[1], x_TD.device
    if experts < 1:
        raise TrainingError(f"w_up has the shape {list(w_up_EDF.shape)}; expected one expert at least")
    for name, tensor, shape, legend in (
        ("w_up", w_up_EDF, (experts, width, hidden), "experts x width of x x hidden width"),
        ("b_up", b_up_EF, (experts, hidden), "experts x hidden width, as w_up has them"),
        ("w_down", w_down_EFD, (experts, hidden, width), "experts x hidden width x width, as w_up has them"),
        ("b_down", b_down_ED, (experts, width), "experts x width, as w_up has them"),
    ):
        check_tensor(name, tensor, shape, legend, device=device)


def check_choices(x_TD: Tensor, expert_TK: Tensor, prob_TK: Tensor) -> None:
    """Refuse choices that are not of the tokens of x, and weights that are not of these choices.

    Raises:
        TrainingError: naming the tensor.
    """
    check_dims("expert", expert_TK, "tokens x experts a token")
    top_k, device = expert_TK.shape[1], x_TD.device
    if top_k < 1:
        raise TrainingError(f"expert has the shape {list(expert_TK.shape)}; expected one expert a token at least")
    check_tensor("expert", expert_TK, (x_TD.shape[0], top_k), "tokens of x x experts a token", device=device)
    if expert_TK.is_floating_point():
        raise TrainingError(f"expert is {expert_TK.dtype}; expected whole numbers")
    check_tensor("prob", prob_TK, (x_TD.shape[0], top_k), "a weight for each choice of expert", device=device)


def check_range(expert: Tensor, experts: int, *, may_drop: bool) -> None:
    """Refuse choices of experts that there are not. On a GPU the host would have to wait to see them: nothing is said.

    Raises:
        TrainingError: naming the first of them.
    """
    if expert.device.type != "cpu":
        return
    lowest = -1 if may_drop else 0
    wrong = (expert < lowest) | (expert >= experts)
    if wrong.any():
        dropped = ", or -1 for a choice that is dropped" if may_drop else ""
        raise TrainingError(f"expert holds {int(expert[wrong][0])}; expected 0 to {experts - 1}{dropped}")
