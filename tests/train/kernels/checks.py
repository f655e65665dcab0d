"""Checks of the kernels, as plain functions of the modules they are in: the tests run them on the kernels as they are,
and on copies with one deliberate fault each (:mod:`tests.train.kernels.test_mutations`).

All of them run in float64 with tiles so small that few rows meet several tiles, several steps and ragged ends, in
memory that is watched and poisoned (:mod:`tests.train.kernels.watch`). The truth is torch's.

Legend: T tokens, K experts a token is sent to, C = T * K choices, R of them kept, D model width, F hidden width,
E experts.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from tests.train.kernels.watch import apart, poisoned, watched
from train.kernels.fused import backward, configs, forward, plan, route
from train.kernels.fused.configs import Config, Tile
from train.moe import moe_experts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

SMALL = Config(
    up=Tile(16, 64, 32, 4, 1), down=Tile(16, 32, 64, 4, 1), down_grad=Tile(16, 64, 32, 4, 1),
    up_grad=Tile(16, 32, 64, 4, 1), weight_grad=Tile(64, 64, 16, 4, 1), route=Tile(16, 0, 16, 4, 1),
)  # fmt: skip
"""Steps of few elements, no two sides of a product the same where that is possible."""


class Kernels(NamedTuple):
    """The modules that hold the kernels."""

    configs: ModuleType
    plan: ModuleType
    route: ModuleType
    forward: ModuleType
    backward: ModuleType


SHIPPED = Kernels(configs, plan, route, forward, backward)


@contextmanager
def tiles_of(kernels: Kernels, config: Config = SMALL, count: int = 16, scan: int = 2) -> Iterator[None]:
    """A block in which all kernels have these tiles, and the plan blocks of ``count`` choices, ``scan`` at a time."""
    all_types = dict.fromkeys(kernels.configs.CONFIGS, config)
    with (
        mock.patch.dict(kernels.configs.CONFIGS, all_types),
        mock.patch.object(kernels.forward, "GROUP_TILES", GROUP),
        mock.patch.object(kernels.backward, "GROUP_TILES", GROUP),
        mock.patch.multiple(kernels.plan, COUNT_CHOICES=count, SCAN_BLOCKS=scan),
    ):
        yield


class Problem(NamedTuple):
    """Experts, and tokens that are sent to them. Each tensor has poison around it."""

    x_TD: Tensor
    w_up_EDF: Tensor
    b_up_EF: Tensor
    w_down_EFD: Tensor
    b_down_ED: Tensor
    expert_TK: Tensor
    prob_TK: Tensor
    g_TD: Tensor

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the experts' linear layers."""
        return self.w_up_EDF, self.b_up_EF, self.w_down_EFD, self.b_down_ED


def problem(expert_TK: Tensor, experts: int, width: int, hidden: int, dtype: torch.dtype = torch.float64) -> Problem:
    """Normal numbers for these choices (int[T, K], -1 dropped); the same ones each time."""
    rng = torch.Generator().manual_seed(7)
    tokens, wide = len(expert_TK), torch.promote_types(dtype, torch.float32)

    def normal(*shape: int) -> Tensor:
        return apart(torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype))

    return Problem(
        normal(tokens, width), normal(experts, width, hidden), normal(experts, hidden),
        normal(experts, hidden, width), normal(experts, width), apart(expert_TK.to(torch.int32)),
        apart(torch.rand(expert_TK.shape, generator=rng, dtype=torch.float64).to(wide)), normal(tokens, width),
    )  # fmt: skip


Values = dict[str, Tensor]
"""z by sorted row, y and dx by choice, dp of the choices, and the gradients of the weights."""


def experts_by_torch(given: Problem, dtype: torch.dtype = torch.float64, backend: str = "reference") -> Values:
    """What :func:`train.moe.moe_experts` makes of it in ``dtype``, each choice taken for a token of its own."""
    top_k, chosen = given.expert_TK.shape[1], given.expert_TK.reshape(-1, 1).long()
    x = given.x_TD.to(dtype).repeat_interleave(top_k, 0).requires_grad_()
    weights = [tensor.to(dtype, copy=True).requires_grad_() for tensor in given.weights]
    prob = given.prob_TK.to(torch.promote_types(dtype, torch.float32)).reshape(-1, 1).clone().requires_grad_()
    y = moe_experts(x, *weights, chosen, prob, backend=backend, may_drop=True)  # type: ignore[misc,arg-type]
    names = ("dx", "dw_up", "db_up", "dw_down", "db_down", "dp")
    grads = torch.autograd.grad(y, (x, *weights, prob), given.g_TD.to(dtype).repeat_interleave(top_k, 0))
    rows = stable_order(given.expert_TK)
    expert_R = chosen[rows, 0]
    z = (x[rows][:, None, :] @ weights[0][expert_R])[:, 0] + weights[1][expert_R]
    values = dict(zip(names, grads, strict=True))
    return {"z": z.detach(), "y": y.detach(), **values, "dp": values["dp"].reshape(-1)}


def stable_order(expert_TK: Tensor) -> Tensor:
    """int64[R]: the kept choices, sorted by expert, those of one expert as they come."""
    choices = expert_TK.reshape(-1)
    order = choices.argsort(stable=True)
    return order[int((choices < 0).sum()) :]


def experts_by_kernels(kernels: Kernels, given: Problem, *, given_z: Tensor | None = None, back: bool = True) -> Values:
    """The same by the kernels, watched and poisoned. ``given_z`` stands in for the forward pass."""
    may_drop = bool((given.expert_TK < 0).any())
    chosen_C, prob_C = apart(given.expert_TK.reshape(-1)), apart(given.prob_TK.reshape(-1))
    experts, rows = given.w_up_EDF.shape[0], kernels.configs.config_of(given.x_TD.dtype).up.m
    with poisoned(), watched():
        made = kernels.plan.make_plan(chosen_C, experts, rows)
        values: Values = {}
        if given_z is None:
            y, z = kernels.forward.up_and_down(given.x_TD, *given.weights, prob_C, made, may_drop=may_drop)
            values = {"y": y, "z": z[: int(made.ends_E[-1])]}
        else:
            z = torch.empty(chosen_C.numel(), given_z.shape[1], dtype=given_z.dtype)
            z[: len(given_z)] = given_z
        if back:
            names = ("dx", "dw_up", "db_up", "dw_down", "db_down", "dp")
            grads = kernels.backward.gradients(
                given.g_TD, given.x_TD, z, given.w_up_EDF, given.w_down_EFD, given.b_down_ED, prob_C, made,
                may_drop=may_drop,
            )  # fmt: skip
            values |= dict(zip(names, grads, strict=True))
    return values


def same(found: Values, expected: Values, tolerance: float = 1e-11) -> None:
    """Each value is the expected one, but for ``tolerance`` times the largest of its tensor."""
    for name, value in found.items():
        wanted = expected[name]
        assert value.shape == wanted.shape, f"{name} has the shape {tuple(value.shape)}, not {tuple(wanted.shape)}"
        assert torch.isfinite(value).all(), (
            f"{name} has {int((~torch.isfinite(value)).sum())} values that are no number"
        )
        if value.numel():
            worst = float((value.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30))
            assert worst <= tolerance, f"{name} is off by {worst:.3g} of its largest value"


# Experts of two tiles, of none, of a row, of just a tile. Six tiles of the nine that there can be are needed: more than
# a group of tiles has.
UNEVEN = (0,) * 18 + (2,) + (3,) * 16 + (4,) * 17
GROUP = 5


def uneven(top_k: int = 1, dropped: int = 0) -> Tensor:
    """Choices of five experts in an order by chance; every ``dropped``-th is dropped."""
    chosen = torch.tensor(UNEVEN)[torch.randperm(len(UNEVEN), generator=torch.Generator().manual_seed(1))]
    chosen = chosen[: len(UNEVEN) // top_k * top_k].view(-1, top_k)
    if dropped:
        chosen.view(-1)[::dropped] = -1
    return chosen


@functools.cache
def uneven_problem(top_k: int, dropped: int) -> tuple[Problem, Values]:
    """An uneven load and what torch makes of it."""
    given = problem(uneven(top_k, dropped), 5, 48, 80)
    return given, experts_by_torch(given)


def check_experts_forward(kernels: Kernels, top_k: int = 2, dropped: int = 0) -> None:
    """z and y of an uneven load."""
    given, expected = uneven_problem(top_k, dropped)
    with tiles_of(kernels):
        same(experts_by_kernels(kernels, given, back=False), expected)


def check_experts_backward(kernels: Kernels, top_k: int = 2, dropped: int = 0) -> None:
    """All gradients of an uneven load."""
    given, expected = uneven_problem(top_k, dropped)
    with tiles_of(kernels):
        found = experts_by_kernels(kernels, given, given_z=expected["z"])
    same(found, expected)
    # The expert without a row.
    for name in ("dw_up", "db_up", "dw_down", "db_down"):
        assert not found[name][1].any(), f"{name} of an expert without a row is not zero"


def check_an_empty_last_expert(kernels: Kernels) -> None:
    """All gradients where no row belongs to the last expert: it begins where all rows end."""
    given = problem(torch.tensor([[0], [0], [1]]), 3, 16, 16)
    with tiles_of(kernels):
        same(experts_by_kernels(kernels, given), experts_by_torch(given))


def check_experts_with_drops(kernels: Kernels) -> None:
    """Choices that are dropped have rows nowhere, and zeros in y and dx."""
    check_experts_forward(kernels, 2, 3)
    check_experts_backward(kernels, 1, 4)


def check_plan(kernels: Kernels) -> None:
    """The plan of bare choices, several blocks and several steps of the scan, some dropped, some of no expert."""
    chosen = torch.randint(-1, 8, (100,), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    with tiles_of(kernels, count=16, scan=2), poisoned(), watched():
        made = kernels.plan.make_plan(apart(chosen), 5, 16)
    plan_is_right(made, chosen, 5, 16)


def check_plan_of_many_tiles(kernels: Kernels) -> None:
    """More tiles than the scan looks at in a step."""
    chosen = torch.randint(0, 9, (2200,), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    chosen[chosen == 4] = 3
    with tiles_of(kernels, count=512, scan=4), poisoned(), watched():
        made = kernels.plan.make_plan(apart(chosen), 9, 16)
    plan_is_right(made, chosen, 9, 16)


def plan_is_right(made: Any, chosen_C: Tensor, experts: int, rows: int) -> None:
    """What a plan must be, from its definition; a choice of no expert is dropped."""
    chosen_C = torch.where(chosen_C < experts, chosen_C, -1).clamp(min=-1)
    order = stable_order(chosen_C)
    assert made.src_C.shape == chosen_C.shape
    assert torch.equal(made.src_C[: len(order)].long(), order), "src is not the stable order"
    counts = torch.bincount(chosen_C[chosen_C >= 0].long(), minlength=experts)
    assert made.ends_E.tolist() == counts.cumsum(0).tolist(), "the ends are not the running counts"
    tiles = -(-len(chosen_C) // rows) + experts
    assert made.tile_expert_N.shape == made.tile_row_N.shape == (tiles,)
    expected = [
        (expert, int(end - count) + first)
        for expert, (count, end) in enumerate(zip(counts, counts.cumsum(0), strict=True))
        for first in range(0, int(count), rows)
    ]
    found = list(zip(made.tile_expert_N.tolist(), made.tile_row_N.tolist(), strict=True))
    assert found[: len(expected)] == expected, "tiles do not cover each expert's rows"
    assert all(expert == -1 for expert, _ in found[len(expected) :]), "a tile too many"


class Routed(NamedTuple):
    """What :func:`routed_by_torch` gives."""

    expert_TK: Tensor
    prob_TK: Tensor
    lse_T: Tensor
    rank_TK: Tensor
    counts_BE: Tensor
    importance_BE: Tensor


def routed_by_torch(x_TD: Tensor, w_ED: Tensor, bias_E: Tensor | None, top_k: int, rows: int) -> Routed:
    """The router by its definition in the type of x, in blocks of ``rows`` tokens."""
    logits = x_TD @ w_ED.t()
    probs = logits.softmax(-1)
    scores = probs if bias_E is None else probs + bias_E.to(probs.dtype)
    # A stable sort leaves equal ones in their order: the lowest index first.
    expert = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    rank, counts, importance = torch.zeros_like(expert), [], []
    for first in range(0, len(x_TD), rows):
        seen = [0] * len(w_ED)
        for t in range(first, min(first + rows, len(x_TD))):
            for k in range(top_k):
                rank[t, k] = seen[int(expert[t, k])]
                seen[int(expert[t, k])] += 1
        counts.append(seen)
        importance.append(probs[first : first + rows].sum(0))
    blocks = torch.tensor(counts, dtype=torch.int64).view(-1, len(w_ED))
    means = torch.stack(importance) if importance else probs.new_zeros(0, len(w_ED))
    return Routed(expert, probs.gather(1, expert), logits.logsumexp(-1), rank, blocks, means)


def routing_is_right(found: Any, expected: Routed, tolerance: float) -> None:
    """A routing that the kernel made is that of torch: choices and ranks are equal, numbers but for ``tolerance``."""
    experts = expected.counts_BE.shape[1]
    assert torch.equal(found.expert_TK.long(), expected.expert_TK), "other experts are chosen"
    assert torch.equal(found.rank_TK.long(), expected.rank_TK), "other ranks"
    assert torch.equal(found.counts_BP[:, :experts].long(), expected.counts_BE), "other counts"
    assert not found.counts_BP[:, experts:].any(), "counts of experts that are none"
    same(
        {"prob": found.prob_TK, "lse": found.lse_T, "importance": found.importance_BP[:, :experts]},
        {"prob": expected.prob_TK, "lse": expected.lse_T, "importance": expected.importance_BE},
        tolerance,
    )


def router_input(tokens: int, width: int, experts: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """x_TD and w_ED, the same ones each time."""
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(tokens, width, generator=rng, dtype=torch.float64)
    w = torch.randn(experts, width, generator=rng, dtype=torch.float64)
    return apart(x.to(dtype)), apart((w / max(1, width) ** 0.5).to(dtype))


# Moves most choices in router_input, where probabilities are about 1/5.
BIAS = torch.tensor([0.3, -0.4, 0.0, 0.5, -0.2], dtype=torch.float64)


def check_route_forward(kernels: Kernels) -> None:
    """The router with a bias, three experts a token, ragged last block and step; and the plan of its ranks."""
    x, w = router_input(37, 40, 5)
    expected = routed_by_torch(x, w, BIAS, 3, 16)
    with tiles_of(kernels), poisoned(), watched():
        found = kernels.route.route(x, w, apart(BIAS), 3)
    routing_is_right(found, expected, 1e-12)
    chosen = expected.expert_TK.to(torch.int32)
    with tiles_of(kernels), poisoned(), watched():
        ranked = (found.rank_TK.reshape(-1), found.counts_BP, 48)
        made = kernels.plan.make_plan(apart(chosen.reshape(-1)), 5, 16, ranked=ranked)
    plan_is_right(made, chosen.reshape(-1), 5, 16)


def router_gradients(x: Tensor, w: Tensor, expert: Tensor, grads: tuple[Tensor, Tensor, Tensor]) -> Values:
    """Gradients of x and w by autograd, given those of the choices' probabilities, of the mean probabilities and of the
    mean of lse^2."""
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    logits = x @ w.t()
    probs = logits.softmax(-1)
    outputs = (probs.gather(1, expert.long()), probs.mean(0), logits.logsumexp(-1).square().mean())
    return dict(zip(("dx", "dw"), torch.autograd.grad(outputs, (x, w), grads), strict=True))


def check_route_backward(kernels: Kernels) -> None:
    """The router's gradients: those of the choices, of the mean probabilities and of lse, all at once."""
    x, w = router_input(37, 40, 5)
    found = routed_by_torch(x, w, BIAS, 2, 16)
    rng = torch.Generator().manual_seed(6)
    shapes = (found.prob_TK.shape, (5,), ())
    grads = tuple(torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    chosen = apart(found.expert_TK.to(torch.int32))
    with tiles_of(kernels), poisoned(), watched():
        made = kernels.route.route_backward(
            x, w, chosen, apart(found.prob_TK), apart(found.lse_T), *(apart(grad) for grad in grads)
        )
    same(dict(zip(("dx", "dw"), made, strict=True)), router_gradients(x, w, chosen, grads))  # type: ignore[arg-type]


CHECKS: dict[str, Callable[[Kernels], None]] = {
    "plan": check_plan,
    "plan of many tiles": check_plan_of_many_tiles,
    "route forward": check_route_forward,
    "route backward": check_route_backward,
    "experts forward": check_experts_forward,
    "experts backward": check_experts_backward,
    "an empty last expert": check_an_empty_last_expert,
    "experts with drops": check_experts_with_drops,
}
