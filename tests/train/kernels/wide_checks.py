"""Checks of 64-bit offsets, as :mod:`tests.train.kernels.checks` are: tensors of more than 2^31 elements, of which
nearly nothing is touched, so they cost address space and no memory. One program of each kernel runs, on the last rows.

Untouched memory is zero here: a tensor so large comes fresh from the operating system.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.train.kernels.checks import Kernels, experts_by_torch, problem, routed_by_torch, router_gradients, tiles_of
from tests.train.kernels.watch import watched
from train.kernels.fused.configs import Config, Tile

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 16
TOKENS = 2**25 + ROWS
COLUMNS = 2**22
WIDE = Config(
    up=Tile(16, 64, 64, 4, 1), down=Tile(16, 64, 64, 4, 1), down_grad=Tile(16, 64, 64, 4, 1),
    up_grad=Tile(16, 64, 64, 4, 1), weight_grad=Tile(64, 64, 16, 4, 1), route=Tile(1024, 0, 64, 4, 1),
)  # fmt: skip
HALF = 2e-3
"""Of the largest value: two roundings to float16 are half of that."""


def sparse(shape: tuple[int, ...], end: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros that nobody has touched, but for ``end`` in the last rows."""
    tensor = torch.empty(shape, dtype=dtype)
    tensor[-len(end) :] = end
    return tensor


def near(found: Tensor, expected: Tensor) -> None:
    """The same but for rounding to float16."""
    worst = float((found.double() - expected.double()).abs().max() / expected.double().abs().max())
    assert worst <= HALF, f"off by {worst:.3g} of the largest value"


def check_wide_rows(kernels: Kernels) -> None:
    """The experts' kernels on the last of 2^25 tokens, 64 columns each, forward and backward."""
    given = problem(torch.ones(ROWS, 1, dtype=torch.int64), 2, 64, 64, torch.float16)
    expected = experts_by_torch(given)
    x, g = (sparse((TOKENS, 64), end, torch.float16) for end in (given.x_TD, given.g_TD))
    prob = sparse((TOKENS,), given.prob_TK[:, 0], torch.float32)
    made = kernels.plan.Plan(
        sparse((TOKENS,), torch.arange(TOKENS - ROWS, TOKENS), torch.int32),
        *(torch.tensor(values, dtype=torch.int32) for values in ([TOKENS - ROWS, TOKENS], [1], [TOKENS - ROWS])),
    )
    with tiles_of(kernels, WIDE), watched(last=True):
        y, z = kernels.forward.up_and_down(x, *given.weights, prob, made, may_drop=False)
        dx, dw_up, db_up, dw_down, db_down, dp = kernels.backward.gradients(
            g, x, z, given.w_up_EDF, given.w_down_EFD, given.b_down_ED, prob, made, may_drop=False
        )
    for name, found in {"z": z, "y": y, "dx": dx, "dp": dp}.items():
        near(found[-ROWS:], expected[name])
    for name, found in {"dw_up": dw_up, "db_up": db_up, "dw_down": dw_down, "db_down": db_down}.items():
        near(found[1], expected[name][1])


class _Filled(TorchFunctionMode):
    """New memory that is not too large holds one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is Tensor.new_empty and made.numel() < 2**28:
            made.fill_(self.value)
        return made


def _wide_weights(width: int, hidden: int, rows: int) -> tuple[Tensor, ...]:
    """x, weights of 33 experts and prob. The last expert's weights begin at 2^31; its last columns are no zeros."""
    rng = torch.Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).to(torch.float16)

    weights = []
    for shape in ((33, width, hidden), (33, 1, hidden), (33, hidden, width), (33, 1, width)):
        weights.append((torch.empty if math.prod(shape) > 2**26 else torch.zeros)(shape, dtype=torch.float16))
        weights[-1][32, -64:, -64:] = normal(*weights[-1][32, -64:, -64:].shape)
    w_up, b_up, w_down, b_down = weights
    return normal(rows, width), w_up, b_up[:, 0], w_down, b_down[:, 0], torch.rand(rows, generator=rng)


def _one_tile(kernels: Kernels, rows: int) -> Any:
    parts = (list(range(rows)), [0] * 32 + [rows], [32], [0])
    return kernels.plan.Plan(*(torch.tensor(part, dtype=torch.int32) for part in parts))


def check_wide_weights_of_up(kernels: Kernels) -> None:
    """z of the last expert's last columns."""
    x, w_up, b_up, w_down, b_down, prob = _wide_weights(16, COLUMNS, 4)
    with tiles_of(kernels, WIDE), watched(only="_up_fwd", last=True):
        _, z = kernels.forward.up_and_down(
            x, w_up, b_up, w_down, b_down, prob, _one_tile(kernels, 4), may_drop=False
        )  # fmt: skip
    near(z[:, -64:], x.double() @ w_up[32, :, -64:].double() + b_up[32, -64:])


def check_wide_weights_of_down(kernels: Kernels) -> None:
    """y of the last expert's last columns, where h is one."""
    x, w_up, b_up, w_down, b_down, prob = _wide_weights(COLUMNS, 16, 4)
    with tiles_of(kernels, WIDE), _Filled(1.0), watched(only="_down_fwd", last=True):
        y, _ = kernels.forward.up_and_down(
            x, w_up, b_up, w_down, b_down, prob, _one_tile(kernels, 4), may_drop=False
        )  # fmt: skip
    near(y[:, -64:], prob.double()[:, None] * (w_down[32, :, -64:].double().sum(0) + b_down[32, -64:]))


def _gradients(kernels: Kernels, given: tuple[Tensor, ...], g: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    x, w_up, _, w_down, b_down, prob = given
    plan = _one_tile(kernels, len(x))
    return kernels.backward.gradients(g, x, z, w_up, w_down, b_down, prob, plan, may_drop=False)


def check_wide_weights_of_down_grad(kernels: Kernels) -> None:
    """The share of the last expert's last columns in dp."""
    given = _wide_weights(16, COLUMNS, 4)
    g, z = given[0].flip(0), torch.randn(4, COLUMNS, generator=torch.Generator().manual_seed(3)).to(torch.float16)
    with tiles_of(kernels, WIDE), _Filled(0.0), watched(only="_down_bwd", last=True):
        dp = _gradients(kernels, given, g, z)[-1]
    h = torch.nn.functional.gelu(z[:, -64:].double(), approximate="tanh")
    near(dp, ((g.double() @ given[3][32, -64:].double().t()) * h).sum(1))


def check_wide_weights_of_up_grad(kernels: Kernels) -> None:
    """dx of the last expert's last columns, where dz is one."""
    given = _wide_weights(COLUMNS, 16, 4)
    with tiles_of(kernels, WIDE), _Filled(1.0), watched(only="_up_bwd", last=True):
        dx = _gradients(kernels, given, given[0], torch.zeros(4, 16, dtype=torch.float16))[0]
    near(dx[:, -64:], given[1][32, -64:].double().sum(1).expand(4, -1))


def check_wide_weight_gradients(kernels: Kernels) -> None:
    """Gradients of the last expert's last weights, where dz and p h are one."""
    given = _wide_weights(16, COLUMNS, 4)
    g, z = given[0].flip(0), torch.empty(4, COLUMNS, dtype=torch.float16)
    with tiles_of(kernels, WIDE), _Filled(1.0), watched(only="_weight_grad", last=True):
        _, dw_up, _, dw_down, _, _ = _gradients(kernels, given, g, z)
    near(dw_up[32, :, -64:], given[0].double().sum(0)[:, None].expand(-1, 64))
    near(dw_down[32, -64:], g.double().sum(0).expand(64, -1))


def check_wide_router(kernels: Kernels) -> None:
    """The router, forward and backward, on the last of 2^25 tokens."""
    rng = torch.Generator().manual_seed(4)
    end, w = (torch.randn(rows, 64, generator=rng).to(torch.float16) for rows in (ROWS, 5))
    w /= 8
    x = sparse((TOKENS, 64), end, torch.float16)
    expected = routed_by_torch(end.double(), w.double(), None, 1, 1024)
    grad = torch.randn(ROWS, 1, generator=rng)
    with tiles_of(kernels, WIDE), watched(last=True):
        found = kernels.route.route(x, w, None, 1)
        prob_grad = sparse((TOKENS, 1), grad, torch.float32)
        grads = (prob_grad, torch.zeros(5), torch.zeros(()))
        dx, dw = kernels.route.route_backward(x, w, found.expert_TK, found.prob_TK, found.lse_T, *grads)
    assert torch.equal(found.expert_TK[-ROWS:].long(), expected.expert_TK)
    near(found.prob_TK[-ROWS:], expected.prob_TK)
    zeros = torch.zeros(5, dtype=torch.float64)
    wanted = router_gradients(end.double(), w.double(), expected.expert_TK, (grad.double(), zeros, zeros.sum()))
    near(dx[-ROWS:], wanted["dx"])
    near(dw, wanted["dw"])


WIDE_CHECKS: dict[str, Callable[[Kernels], None]] = {
    "wide rows": check_wide_rows,
    "wide router": check_wide_router,
    "wide weights of up": check_wide_weights_of_up,
    "wide weights of down": check_wide_weights_of_down,
    "wide weights of the gradient of h": check_wide_weights_of_down_grad,
    "wide weights of the gradient of x": check_wide_weights_of_up_grad,
    "wide gradients of weights": check_wide_weight_gradients,
}
