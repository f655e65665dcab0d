"""A layer of three experts, and each operator with arguments that it takes, for tiles of
:data:`tests.train.kernels.checks.SMALL`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.train.kernels.checks import problem
from train.kernels.fused import ops


def layer(dtype: torch.dtype, tokens: int, top_k: int = 2, kept: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """x, router and weights, with gradients; numbers are of ``dtype``, in tensors of ``kept``."""
    given = problem(torch.zeros(tokens, top_k, dtype=torch.int64), 3, 16, 32, dtype)
    w = torch.randn(3, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(given.prob_TK.dtype)
    inputs = (given.x_TD, *given.weights)
    x, *weights = (t.to(kept or dtype, copy=True).requires_grad_() for t in inputs)
    return x, w.clone().requires_grad_(), *weights


def in_order(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x and the weights, as many as they are."""
    x, w_up, b_up, w_down, b_down = tensors
    return x, w_up, b_up, w_down, b_down


def operators(dtype: torch.dtype = torch.float32) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each operator with arguments: x and weights of float32, products of ``dtype``."""
    given = problem(torch.tensor([[0, 1], [2, 0], [1, 2]]), 3, 16, 32, torch.float32)
    x, w, *weights = layer(torch.float32, 3)
    prob = given.prob_TK.clone().requires_grad_()
    chosen = given.expert_TK.reshape(-1)
    prob_TK, _, _, lse, expert, rank, counts = (t.detach() for t in ops._route(x, w, None, 2))
    sorted_rows = ops._plan(chosen, 3, 16, None, None, 0, False)
    _, z = ops._experts(x, *weights, prob, *sorted_rows, dtype, False)
    detached = [t.detach() for t in (x, w, *weights)]
    return {
        "route": (ops._route, (x, w, None, 2)),
        "route with a bias": (ops._route, (x, w, torch.ones(3), 1)),
        "route_backward": (
            ops._route_backward,
            (*detached[:2], expert, prob_TK, lse, torch.ones(3, 2), torch.ones(3), torch.ones(())),
        ),
        "plan": (ops._plan, (chosen, 3, 16, None, None, 0, True)),
        "plan of the router": (ops._plan, (expert.reshape(-1), 3, 16, rank.reshape(-1), counts, 32, False)),
        "experts": (ops._experts, (x, *weights, prob, *sorted_rows, dtype, False)),
        "experts that may drop": (ops._experts, (x, *weights, prob, *sorted_rows, dtype, True)),
        "experts_backward": (
            ops._experts_backward,
            (given.g_TD.to(dtype), detached[0], z, detached[2], detached[4], detached[5], prob.detach(), *sorted_rows,
             False),
        ),
    }  # fmt: skip


NAMES = (
    "route", "route with a bias", "route_backward", "plan", "plan of the router", "experts", "experts that may drop",
    "experts_backward",
)  # fmt: skip
