"""Rows to the processes that hold their experts, and back: uneven all-to-all, with gradients.

Legend: D model width, E experts, G processes of the group, R rows that this process sends, N rows that come to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import all_to_all_single_autograd, wait_tensor

if TYPE_CHECKING:
    from torch import Tensor


class Arrival(NamedTuple):
    """What came from where.

    Attributes:
        expert_N: int64[N], expert of each row that came, counted from the first of this process.
        sent, received: rows to and from each process of the group.
    """

    expert_N: Tensor
    sent: list[int]
    received: list[int]


def to_owners(x_RD: Tensor, counts_E: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Arrival]:
    """Send each row to the process of its expert.

    Args:
        x_RD: rows sorted by expert.
        counts_E: int64[E], rows of each expert, E a multiple of the group's size: process g holds the experts from
            g * E / G on.
        group: all its processes call this together; some may have no row.

    Returns:
        The rows that came, float[N, D], by the process they are from and inside it by expert; and how they came.
    """
    parts = group.size()
    per_part = counts_E.view(parts, -1)
    came = torch.empty_like(counts_E)
    dist.all_to_all_single(came, counts_E, group=group)
    came = came.view(parts, -1)
    # One wait for the device: the exchange needs its sizes on the host.
    sent, received = torch.stack([per_part.sum(1), came.sum(1)]).tolist()
    number = torch.arange(per_part.shape[1], device=counts_E.device).repeat(parts)
    expert_N = number.repeat_interleave(came.reshape(-1), output_size=sum(received))
    return _exchange(x_RD, received, sent, group), Arrival(expert_N, sent, received)


def from_owners(y_ND: Tensor, arrival: Arrival, group: dist.ProcessGroup) -> Tensor:
    """The way back: float[R, D], in the order in which the rows were sent."""
    return _exchange(y_ND, arrival.sent, arrival.received, group)


def _exchange(rows: Tensor, out: list[int], into: list[int], group: dist.ProcessGroup) -> Tensor:
    return wait_tensor(all_to_all_single_autograd(rows.contiguous(), out, into, group))
