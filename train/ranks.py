"""The processes of a run: what torchrun started in, sums over all of them out. A run of one process needs no group.

``torchrun`` tells each process its rank and where to meet through the environment; backends are NCCL for CUDA tensors
and gloo for those on the CPU.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_PEER_LEFT = re.compile(r"gloo.*(closed by peer|reset by peer|broken pipe)", re.IGNORECASE | re.DOTALL)
"""What gloo says when a process at the other end is gone; torch raises no error of its own kind for it."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local: its number on this machine, which is that of its CUDA device.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and speaks to the user."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """``tensor`` summed over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process."""
        if self.world == 1:
            return flag
        vote = torch.tensor([int(flag)], device=self._device())
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        return bool(vote.item())

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            dist.barrier()

    def first_says(self, value: object) -> object:
        """What the first process has, in all of them. A plain value, such as a string."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _device(self) -> str:
        return f"cuda:{self.local}" if dist.get_backend() == "nccl" else "cpu"


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, if any, and part from them at the end.

    Args:
        device: ``cuda`` or ``cpu``.

    Raises:
        TrainingError: another process ended while this one waited for it; what went wrong is that one's to say.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    except RuntimeError as error:
        if not _PEER_LEFT.search(str(error)):
            raise
        raise TrainingError(
            f"process {dist.get_rank()}: another process of this run has ended; see what that one said"
        ) from error
    finally:
        if ours:
            dist.destroy_process_group()
