"""How a model is spread over the processes of a run, said by two integers.

``shard`` processes hold a parameter together, each a part of it and of its optimiser state (FSDP2); 1 is plain data
parallel: each process holds it all. ``expert_parallel`` processes hold the experts of a layer together, each some of
them whole; tokens travel to them by an uneven all-to-all. All processes are data parallel: each reads its own rows of
the global batch. Both are torch's own :func:`fully_shard`, over meshes of

    parameters      (world / shard, shard)                                          replicate, shard
    experts         (world / shard, shard / expert_parallel, expert_parallel)       replicate, shard, expert parallel

and, where shard is 1, (world / expert_parallel, 1, expert_parallel) for the experts. The gradient of every parameter
is the sum over all processes divided by their number, so a run gives the same losses however it is spread.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lola_data.errors import TrainingError
from train.moe import Experts, MixtureOfExperts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

    from lola_data.train_config import TrainConfig
    from train.model import Decoder
    from train.ranks import Ranks


def check_world(config: TrainConfig, world: int) -> None:
    """Refuse settings that do not fit the number of processes.

    Raises:
        TrainingError: naming the field and what it has to divide.
    """
    shard, experts = config.shard, config.expert_parallel
    if world % shard:
        raise TrainingError(f"shard: {shard} does not divide the {world} processes of this run")
    if world % experts:
        raise TrainingError(f"expert_parallel: {experts} does not divide the {world} processes of this run")
    if shard > 1 and shard % experts:
        raise TrainingError(
            f"expert_parallel: {experts} does not divide shard {shard}; set shard to 1 or to a multiple"
        )
    if experts > 1 and not config.model.moe_layers:
        raise TrainingError(f"expert_parallel: {experts}, but the model has no experts (model.moe_every)")
    if config.model.experts % experts:
        raise TrainingError(f"expert_parallel: {experts} does not divide the {config.model.experts} experts of a layer")
    if config.batch_size % world:
        raise TrainingError(f"batch_size: {config.batch_size} sequences cannot be shared by {world} processes evenly")
    rows = config.batch_size // world
    if rows % min(rows, config.forward_rows):
        raise TrainingError(f"micro_batch: {config.micro_batch} does not divide the {rows} sequences of a process")


def spread(model: Decoder, config: TrainConfig, ranks: Ranks, device: str) -> None:
    """Spread ``model``, the same in every process, over the processes; nothing to do where there is one.

    Args:
        model: whole on the device, or on ``meta``: then its parts have to be given memory and weights afterwards
            (``to_empty``, :meth:`train.model.Decoder.initialise`), and it is never whole in any process.
        config: ``shard`` and ``expert_parallel``, which :func:`check_world` let through.
        ranks: of this run.
        device: ``cuda`` or ``cpu``.
    """
    if ranks.world == 1:
        return
    shard, parts, world = config.shard, config.expert_parallel, ranks.world
    root = init_device_mesh(device, (world,), mesh_dim_names=("world",))
    dense = root._unflatten(0, (world // shard, shard), ("replicate", "shard"))
    inner = max(1, shard // parts)
    sparse = root._unflatten(0, (world // (inner * parts), inner, parts), ("e_replicate", "e_shard", "expert"))
    for block in model.blocks:
        if parts > 1 and isinstance(block.feed_forward, MixtureOfExperts):
            experts = block.feed_forward.experts
            _part_experts(experts, sparse["expert"])
            fully_shard(experts, mesh=sparse["e_replicate", "e_shard"])
        fully_shard(block, mesh=dense)
    fully_shard(model, mesh=dense)


def _part_experts(experts: Experts, mesh: DeviceMesh) -> None:
    for name, parameter in list(experts.named_parameters(recurse=False)):
        whole = parameter.data if parameter.is_meta else parameter.data.to(mesh.device_type)
        part = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
        experts.register_parameter(name, nn.Parameter(part))
    experts.group = mesh.get_group()


def hold_gradients(model: nn.Module, hold: bool) -> None:
    """Whether the backward passes to come leave gradients where they are; a later one sums them over processes."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not hold)


def settle_gradients(model: Decoder, config: TrainConfig) -> None:
    """After the last backward pass of a step: an expert has met the tokens of ``expert_parallel`` processes, and its
    gradient was divided by the number of its copies alone."""
    if config.expert_parallel > 1:
        for block in model.blocks:
            if isinstance(block.feed_forward, MixtureOfExperts):
                scale_gradients(block.feed_forward.experts.parameters(), 1 / config.expert_parallel)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """2-norm of all gradients; each element counts once, wherever it lies and in however many processes."""
    by_copies: dict[int, list[Tensor]] = {}
    spread_out = False
    for parameter in parameters:
        grad = parameter.grad
        if isinstance(grad, DTensor):
            spread_out = True
            sizes = zip(grad.placements, grad.device_mesh.shape, strict=True)
            copies = math.prod(size for placement, size in sizes if placement.is_replicate())
            by_copies.setdefault(copies, []).append(grad.to_local())
        elif grad is not None:
            by_copies.setdefault(1, []).append(grad)
    if not by_copies:
        return 0.0
    norms = {copies: torch.nn.utils.get_total_norm(grads) for copies, grads in by_copies.items()}
    square = torch.stack([norm.double().square() / copies for copies, norm in norms.items()]).sum()
    if spread_out:
        # One sum over all processes, so that all have the same bits and clip alike.
        dist.all_reduce(square)
    return square.sqrt().item()


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients, in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
