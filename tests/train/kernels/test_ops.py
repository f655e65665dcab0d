from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from tests.train.kernels.checks import SHIPPED, problem, router_input, tiles_of
from train.kernels.fused import ops
from train.moe import moe_experts

if TYPE_CHECKING:
    from collections.abc import Iterator

CHOICES = {
    "one empty": [[0], [2], [2], [0], [2]],
    "all to one": [[1]] * 4,
    "one token": [[2]],
    "two each": [[0, 1], [2, 0], [1, 2]],
    "some dropped": [[0, -1], [-1, -1], [2, 0]],
}


@pytest.fixture(autouse=True)
def _small_tiles() -> Iterator[None]:
    with tiles_of(SHIPPED):
        yield


def layer(dtype: torch.dtype, tokens: int, top_k: int = 2) -> tuple[Tensor, ...]:
    """x, router and weights of three experts, with gradients."""
    given = problem(torch.zeros(tokens, top_k, dtype=torch.int64), 3, 16, 32, dtype)
    w = torch.randn(3, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(given.prob_TK.dtype)
    return tuple(t.clone().requires_grad_() for t in (given.x_TD, w, *given.weights))


def in_order(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x and the weights, as many as they are."""
    x, w_up, b_up, w_down, b_down = tensors
    return x, w_up, b_up, w_down, b_down


def fused(x: Tensor, w: Tensor, *weights: Tensor, top_k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    routed = ops.choose(x, w, None, top_k)
    return (
        ops.moe(*in_order(x, *weights), routed.expert_TK, routed.prob_TK, routed=routed),
        routed.importance_E,
        routed.z,
    )


def plain(x: Tensor, w: Tensor, *weights: Tensor, top_k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    logits = x.to(w.dtype) @ w.t()
    prob, expert = logits.softmax(-1).topk(top_k)
    y = moe_experts(*in_order(x, *weights), expert, prob, backend="reference")
    return y, logits.softmax(-1).mean(0), logits.logsumexp(-1).square().mean()


def total(outputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """A number that each output has a different share in."""
    y, importance, z = outputs
    columns = torch.arange(1, y.shape[1] + 1, dtype=y.dtype)
    return (y.square() * columns).sum() + (importance * torch.tensor([1.0, -2.0, 4.0])).sum() + 0.3 * z


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 20])
def test_the_layer_is_the_reference(tokens: int, top_k: int):
    inputs = layer(torch.float64, tokens, top_k)
    found, expected = fused(*inputs, top_k=top_k), plain(*inputs, top_k=top_k)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    grads = (torch.autograd.grad(total(outputs), inputs) for outputs in (found, expected))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_with_a_router_in_float32():
    inputs = layer(torch.bfloat16, 20)
    grads = torch.autograd.grad(total(fused(*inputs)), inputs)
    assert [g.dtype for g in grads] == [t.dtype for t in inputs]
    wanted = torch.autograd.grad(total(plain(*inputs)), inputs)
    for a, b in zip(grads, wanted, strict=True):
        assert float((a - b).abs().max()) <= 0.03 * float(b.abs().max())


def test_no_token_at_all_keeps_the_graph():
    x, w, *weights = layer(torch.float32, 0, 1)
    y, importance, z = fused(x, w, *weights, top_k=1)
    grads = torch.autograd.grad(y.sum() + importance.sum() + z, [x, w, *weights])
    assert y.shape == (0, 16)
    assert all(not g.any() for g in grads)


def test_a_part_of_the_outputs_is_enough_for_gradients():
    x, w, *_ = layer(torch.float64, 9)
    for pick in (lambda r: r.prob_TK.sum(), lambda r: r.importance_E[0], lambda r: r.z):
        logits = x @ w.t()
        probs = logits.softmax(-1)
        names = ("expert_TK", "prob_TK", "importance_E", "z", "rank_TK", "counts_BP")
        values = (None, probs.topk(2).values, probs.mean(0), logits.logsumexp(-1).square().mean(), None, None)
        truth = type("Truth", (), dict(zip(names, values, strict=True)))
        expected = torch.autograd.grad(pick(truth), (x, w))
        for a, b in zip(torch.autograd.grad(pick(ops.choose(x, w, None, 2)), (x, w)), expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", CHOICES)
def test_gradcheck_of_experts(case: str):
    chosen = torch.tensor(CHOICES[case])
    given = problem(chosen, 3, 16, 16)
    inputs = [t.clone().requires_grad_() for t in (given.x_TD, *given.weights, given.prob_TK)]

    def run(x: Tensor, *rest: Any) -> Tensor:
        return ops.moe(*in_order(x, *rest[:4]), chosen, rest[4], may_drop="dropped" in case)

    # Directions by chance: one of each input rather than all of its elements.
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("top_k", [1, 2])
def test_gradcheck_of_the_router(top_k: int):
    # No two probabilities are so near to each other that a small step changes a choice.
    inputs = tuple(t.clone().requires_grad_() for t in router_input(4, 16, 3))

    def run(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        routed = ops.choose(x, w, None, top_k)
        return routed.prob_TK, routed.importance_E, routed.z

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def operators() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each operator with arguments."""
    given = problem(torch.tensor(CHOICES["two each"]), 3, 16, 32, torch.float32)
    x, w, *weights = layer(torch.float32, 3)
    prob = given.prob_TK.reshape(-1).requires_grad_()
    chosen = given.expert_TK.reshape(-1)
    prob_TK, _, _, lse, expert, rank, counts = (t.detach() for t in ops._route(x, w, None, 2))
    sorted_rows = ops._plan(chosen, 3, 16, None, None, 0)
    _, z = ops._experts(x, *weights, prob, *sorted_rows, False)
    detached = [t.detach() for t in (x, w, *weights)]
    return {
        "route": (ops._route, (x, w, None, 2)),
        "route with a bias": (ops._route, (x, w, torch.ones(3), 1)),
        "route_backward": (
            ops._route_backward,
            (*detached[:2], expert, prob_TK, lse, torch.ones(3, 2), torch.ones(3), torch.ones(())),
        ),
        "plan": (ops._plan, (chosen, 3, 16, None, None, 0)),
        "plan of the router": (ops._plan, (expert.reshape(-1), 3, 16, rank.reshape(-1), counts, 32)),
        "experts": (ops._experts, (x, *weights, prob, *sorted_rows, False)),
        "experts that may drop": (ops._experts, (x, *weights, prob, *sorted_rows, True)),
        "experts_backward": (
            ops._experts_backward,
            (given.g_TD, detached[0], z, detached[2], detached[4], detached[5], prob.detach(), *sorted_rows, False),
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["route", "route with a bias", "route_backward", "plan", "plan of the router", "experts", "experts that may drop",
     "experts_backward"],
)  # fmt: skip
def test_opcheck(name: str):
    op, arguments = operators()[name]
    torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("top_k", [1, 2])
def test_compiled_whole(top_k: int):
    inputs = layer(torch.float32, 20, top_k)

    def step(*tensors: Tensor) -> Tensor:
        return total(fused(*tensors, top_k=top_k))

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    value, expected = compiled(*inputs), step(*inputs)
    assert torch.equal(value, expected)
    for a, b in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert torch.equal(a, b)


def test_new_memory_need_not_be_zero():
    """Torch fills what is not written with NaN, and nothing of it comes out."""
    inputs = layer(torch.float32, 20)
    expected = torch.autograd.grad(total(fused(*inputs)), inputs)
    torch.use_deterministic_algorithms(True)
    try:
        found = torch.autograd.grad(total(fused(*inputs)), inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("x", "experts", "message"),
    [
        (torch.zeros(3, 16), (3, 16, 32), None),
        (torch.zeros(3, 16, dtype=torch.float64), (64, 16, 48), None),
        (torch.zeros(3, 16, dtype=torch.int64), (3, 16, 32), "x is torch.int64"),
        (torch.zeros(3, 6), (3, 6, 32), "the width is 6"),
        (torch.zeros(3, 16), (3, 16, 40), "the hidden width 40"),
        (torch.zeros(3, 16), (65, 16, 32), "65 experts"),
    ],
)
def test_what_is_not_supported(x: Tensor, experts: tuple[int, int, int], message: str | None):
    reason = ops.unsupported(x, torch.zeros(experts))
    assert reason is None if message is None else message in str(reason)


def test_without_the_interpreter_the_cpu_is_not_supported(monkeypatch: pytest.MonkeyPatch):
    assert ops._interpreted()
    monkeypatch.setattr(ops, "_interpreted", lambda: False)
    assert "on cpu" in str(ops.unsupported(torch.zeros(3, 16), torch.zeros(3, 16, 32)))
    on_a_card = SimpleNamespace(device=SimpleNamespace(type="cuda"), dtype=torch.float64)
    assert "x is torch.float64" in str(ops.unsupported(on_a_card, torch.zeros(3, 16, 32)))  # type: ignore[arg-type]
