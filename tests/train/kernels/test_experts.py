"""Values of the experts' kernels. :mod:`tests.train.kernels.test_mutations` runs all of the checks, too."""

from __future__ import annotations

import pytest
import torch

from tests.train.kernels.checks import (
    SHIPPED,
    Problem,
    Values,
    check_experts_backward,
    check_experts_forward,
    experts_by_kernels,
    experts_by_torch,
    problem,
    same,
    tiles_of,
)
from train.kernels.fused.ops import moe

LOADS = {
    "first empty": [1, 2, 3, 3] * 5,
    "middle empty": [3, 0, 3, 1] * 5,
    "last empty": [0, 2, 1, 0] * 5,
    "all but one empty": [2] * 20,
    "all to the first": [0] * 33,
    "all to the last": [3] * 16,
    "one token": [1],
    "no token": [],
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENTS = ("dw_up", "db_up", "dw_down", "db_down")


def choices(count: int, experts: int, top_k: int, seed: int = 0) -> torch.Tensor:
    """Different experts for a token, the last one never."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, experts - 1, generator=rng).topk(top_k).indices


def test_small_tiles():
    check_experts_forward(SHIPPED, 1)
    check_experts_backward(SHIPPED, 1)


@pytest.mark.parametrize("case", LOADS)
def test_loads(case: str):
    chosen = torch.tensor(LOADS[case], dtype=torch.int64).view(-1, 1)
    given = problem(chosen, 4, 16, 32)
    expected = experts_by_torch(given)
    with tiles_of(SHIPPED):
        found = experts_by_kernels(SHIPPED, given)
    same(found, expected)
    for expert in set(range(4)) - set(LOADS[case]):
        for name in GRADIENTS:
            assert not found[name][expert].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("top_k", [1, 2])
def test_shipped_tiles(dtype: torch.dtype, top_k: int):
    """Widths that are multiples of 16 and of no tile; an expert of more rows than a tile has, and one of none."""
    chosen = choices(90, 3, top_k)
    given = problem(chosen, 3, 80, 112, dtype)
    same(experts_by_kernels(SHIPPED, given), experts_by_torch(given), TOLERANCE[dtype])


@pytest.mark.parametrize("tiles", ["shipped", "small"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_as_near_to_the_truth_as_grouped_products(dtype: torch.dtype, tiles: str):
    """The error against float64 is at most twice that of ``grouped`` on the same numbers, in the root mean square and
    at the worst."""
    given = problem(choices(40, 3, 2), 3, 64, 80, dtype)
    truth, grouped = experts_by_torch(given), experts_by_torch(given, dtype, "grouped")
    if tiles == "small":
        with tiles_of(SHIPPED):
            found = experts_by_kernels(SHIPPED, given)
    else:
        found = experts_by_kernels(SHIPPED, given)
    for name, value in found.items():
        assert torch.isfinite(value).all()
        ours, theirs = (errors[name].double() - truth[name] for errors in (found, grouped))
        assert ours.square().mean() <= 4 * theirs.square().mean(), name
        assert ours.abs().max() <= 2 * theirs.abs().max(), name


def test_two_calls_have_the_same_bits():
    given = problem(choices(30, 4, 2), 4, 32, 16, torch.float32)
    with tiles_of(SHIPPED):
        first, second = experts_by_kernels(SHIPPED, given), experts_by_kernels(SHIPPED, given)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_order_of_tokens_changes_the_order_of_outputs_alone():
    given = problem(choices(40, 4, 1), 4, 16, 32)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    tokens = ("x_TD", "expert_TK", "prob_TK", "g_TD")
    moved = Problem(*(t[order] if name in tokens else t for name, t in zip(Problem._fields, given, strict=True)))
    with tiles_of(SHIPPED):
        plain, found = experts_by_kernels(SHIPPED, given), experts_by_kernels(SHIPPED, moved)
    assert torch.equal(found["y"], plain["y"][order])
    assert torch.equal(found["dx"], plain["dx"][order])
    same({name: found[name] for name in GRADIENTS}, plain, 1e-12)


def large(value: float) -> Values:
    given = problem(torch.zeros(4, 1, dtype=torch.int64), 1, 16, 16, torch.float32)
    given.b_up_EF.fill_(value)
    with tiles_of(SHIPPED):
        return experts_by_kernels(SHIPPED, given) | {f"{k} truth": v for k, v in experts_by_torch(given).items()}


@pytest.mark.parametrize("value", [-1e6, -30.0, 30.0, 1e6])
def test_gelu_far_from_zero(value: float):
    """The cube in it would overflow; gelu is 0 on one side and the identity on the other."""
    found = large(value)
    same({k: v for k, v in found.items() if "truth" not in k}, {k[:-6]: v for k, v in found.items()}, 2e-5)


def test_tensors_that_are_not_contiguous():
    given = problem(choices(20, 4, 2), 4, 16, 32)
    inputs = [given.x_TD, *given.weights]
    odd = [torch.stack([t, t], -1)[..., 0].requires_grad_() for t in inputs]
    assert not any(t.is_contiguous() for t in odd)
    turned = given.expert_TK.t().contiguous().t()
    prob = given.prob_TK.t().contiguous().t().requires_grad_()
    with tiles_of(SHIPPED):
        y = moe(odd[0], odd[1], odd[2], odd[3], odd[4], turned, prob)
        # A gradient without a stride, as a sum has it.
        grads = torch.autograd.grad(y.sum(), [*odd, prob])
    expected = experts_by_torch(given._replace(g_TD=torch.ones_like(given.g_TD)))
    names = ("dx", *GRADIENTS)
    found = dict(zip(names, grads, strict=False)) | {"y": y.detach()}
    wanted = expected | {name: expected[name].view(20, 2, 16).sum(1) for name in ("y", "dx")}
    same(found, wanted)
    same({"dp": grads[-1].reshape(-1)}, expected)
