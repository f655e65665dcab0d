from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from triton.runtime import interpreter

from tests.train.kernels.checks import SHIPPED, problem, router_input, tiles_of
from tests.train.kernels.operators import NAMES, in_order, layer, operators
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


@pytest.mark.parametrize("of", [("x", "b_up", "prob"), ("w_up", "w_down", "b_down")], ids="-".join)
@pytest.mark.parametrize("case", CHOICES)
def test_gradcheck_of_experts(case: str, of: tuple[str, ...]):
    chosen = torch.tensor(CHOICES[case])
    given = problem(chosen, 3, 16, 16)
    names = ("x", "w_up", "b_up", "w_down", "b_down", "prob")
    tensors = (given.x_TD, *given.weights, given.prob_TK)
    inputs = [t.clone().requires_grad_(name in of) for name, t in zip(names, tensors, strict=True)]

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str, dtype: torch.dtype):
    """Of bfloat16, too, with x and weights of float32."""
    if dtype != torch.float32 and not name.startswith("experts"):
        pytest.skip("has no other type")
    op, arguments = operators(dtype)[name]
    torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_launched_on_the_card_of_their_tensors(name: str, monkeypatch: pytest.MonkeyPatch):
    """Each launch of an operator stands in the block that makes its tensors' card the current one."""
    op, arguments = operators()[name]
    cards: list[torch.device] = []
    launches: list[list[torch.device]] = []

    @contextmanager
    def on_card_of(tensor: Tensor) -> Iterator[None]:
        cards.append(tensor.device)
        yield
        cards.pop()

    launch = interpreter.GridExecutor.__call__

    def launched(self: Any, *args: Any, **kwargs: Any) -> None:
        launches.append([*cards])
        launch(self, *args, **kwargs)

    monkeypatch.setattr(ops, "_on_card_of", on_card_of)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launched)
    op(*arguments)
    assert launches
    assert all(found == [torch.device("cpu")] for found in launches)


def test_the_block_of_a_card_makes_it_the_current_one(monkeypatch: pytest.MonkeyPatch):
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or nullcontext())
    with ops._on_card_of(torch.zeros(1)):
        assert asked == []
    second = torch.device("cuda", 1)
    with ops._on_card_of(SimpleNamespace(device=second)):  # type: ignore[arg-type]
        assert asked == [second]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_wide_parameters_give_what_narrow_ones_give(dtype: torch.dtype, top_k: int):
    """x and weights of float32 whose numbers are of ``dtype``: outputs have the same bits, and so do the gradients of
    weights once they are rounded; before, they are nearer to the truth."""
    chosen = torch.rand(40, 3, generator=torch.Generator().manual_seed(4)).topk(top_k).indices % 2
    chosen = chosen if top_k == 1 else torch.tensor([[0, 2], [2, 0]] * 20)
    given = problem(chosen, 4, 16, 32, dtype)
    found = []
    for kept in (dtype, torch.float32):
        leaves = [t.to(kept, copy=True).requires_grad_() for t in (given.x_TD, *given.weights)]
        prob = given.prob_TK.clone().requires_grad_()
        x, w_up, b_up, w_down, b_down = leaves
        y = ops.moe(x, w_up, b_up, w_down, b_down, chosen, prob, dtype=dtype)
        found.append([y.detach(), *torch.autograd.grad(y, [*leaves, prob], given.g_TD)])
    narrow, wide = found
    assert narrow[0].dtype == wide[0].dtype == dtype
    assert [t.dtype for t in wide[1:]] == [torch.float32] * 6
    for name, a, b in zip(("y", "x", "w_up", "b_up", "w_down", "b_down", "prob"), narrow, wide, strict=True):
        assert torch.equal(a, b.to(a.dtype)), name
        if name in ("w_up", "w_down"):
            assert not torch.equal(a.float(), b), name
            # The expert that nobody chose, and the last one.
            assert not b[1 if top_k == 2 else 3].any(), name


def test_sums_of_a_token_s_choices_are_rounded_once():
    """dx in float32 of two choices in bfloat16: their sum is not rounded to bfloat16 again."""
    given = problem(torch.tensor([[0, 1]] * 9), 2, 16, 16, torch.bfloat16)
    x = given.x_TD.float().requires_grad_()
    w_up, b_up, w_down, b_down = (t.float() for t in given.weights)
    y = ops.moe(x, w_up, b_up, w_down, b_down, given.expert_TK, given.prob_TK, dtype=torch.bfloat16)
    (dx,) = torch.autograd.grad(y, x, given.g_TD)
    assert not torch.equal(dx, dx.bfloat16().float())


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
