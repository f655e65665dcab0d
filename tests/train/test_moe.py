from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from lola_data.train_config import ModelConfig
from train.kernels import grouped
from train.moe import (
    Backend,
    MixtureOfExperts,
    balance_loss,
    drop_over_capacity,
    expert_capacity,
    fused_unsupported,
    moe_experts,
    random_order,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lola_data.train_config import TrainConfig

D, F_, E = 8, 16, 4


Weights = tuple["Tensor", "Tensor", "Tensor", "Tensor"]


def weights(dtype: torch.dtype, experts: int = E, width: int = D, hidden: int = F_) -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = ((experts, width, hidden), (experts, hidden), (experts, hidden, width), (experts, width))
    w_up, b_up, w_down, b_down = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return w_up.requires_grad_(), b_up.requires_grad_(), w_down.requires_grad_(), b_down.requires_grad_()


def one_by_one(x: Tensor, tensors: Weights, expert: Tensor, prob: Tensor) -> Tensor:
    """The definition, a token at a time: y = p * (gelu(x W1 + b1) W2 + b2), gelu by its tanh formula."""
    w_up, b_up, w_down, b_down = tensors
    rows = []
    for t in range(len(x)):
        y = x[t] * 0
        for k in range(expert.shape[1]):
            e = int(expert[t, k])
            if e < 0:
                continue
            a = x[t] @ w_up[e] + b_up[e]
            h = 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
            y = y + prob[t, k] * (h @ w_down[e] + b_down[e])
        rows.append(y)
    return torch.stack(rows) if rows else x * 0


CHOICES = {
    "mixed": [[0], [2], [1], [2], [0], [3]],
    "first empty": [[1], [2], [1], [3], [3], [3]],
    "middle empty": [[0], [3], [1], [0], [3], [1]],
    "last empty": [[0], [2], [1], [2], [0], [0]],
    "all to one": [[2], [2], [2], [2], [2], [2]],
    "two each": [[0, 1], [3, 0], [1, 2], [2, 3], [0, 3], [1, 0]],
    "one token": [[1]],
    "some dropped": [[0, -1], [-1, -1], [1, 2], [2, 3], [-1, 3], [1, 0]],
    "all dropped": [[-1], [-1]],
}


@pytest.mark.parametrize("backend", ["reference", "grouped"])
@pytest.mark.parametrize("case", CHOICES)
def test_output_and_gradients_are_the_definitions(case: str, backend: Backend):
    expert = torch.tensor(CHOICES[case])
    generator = torch.Generator().manual_seed(1)
    results = []
    for definition in (True, False):
        generator.manual_seed(1)
        x = torch.randn(len(expert), D, generator=generator).requires_grad_()
        prob = torch.rand(expert.shape, generator=generator).requires_grad_()
        tensors = weights(torch.float32)
        if definition:
            y = one_by_one(x, tensors, expert, prob)
        else:
            y = moe_experts(x, *tensors, expert, prob, backend=backend, may_drop="dropped" in case)
        (y * torch.arange(D)).sum().backward()
        grads = [x.grad, prob.grad, *(tensor.grad for tensor in tensors)]
        results.append([y.detach(), *(torch.zeros(1) if grad is None else grad for grad in grads)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected.expand_as(found), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ["reference", "grouped"])
def test_gradients_of_an_empty_expert_are_exactly_zero(backend: Backend):
    tensors = weights(torch.float32)
    expert = torch.tensor([[0], [1], [3], [0]])
    # Poison what the allocator hands out next: a gradient taken from uninitialised memory would show it.
    for tensor in tensors:
        torch.empty_like(tensor).fill_(math.nan)
    moe_experts(torch.randn(4, D), *tensors, expert, torch.ones(4, 1), backend=backend).sum().backward()
    for tensor in tensors:
        assert tensor.grad is not None
        assert (tensor.grad[2] == 0).all()
        assert (tensor.grad[[0, 1, 3]].flatten(1) != 0).any(1).all()


@pytest.mark.parametrize("backend", ["reference", "grouped"])
def test_no_token_at_all_keeps_the_graph(backend: Backend):
    tensors = weights(torch.float32)
    x = torch.zeros(0, D, requires_grad=True)
    y = moe_experts(x, *tensors, torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1), backend=backend)
    y.sum().backward()
    assert y.shape == (0, D)
    assert all(tensor.grad is not None and not tensor.grad.any() for tensor in tensors)


@pytest.mark.parametrize("case", CHOICES)
def test_gradcheck_in_float64(case: str):
    expert = torch.tensor(CHOICES[case])
    tensors = weights(torch.float64, width=3, hidden=4)
    x = torch.randn(len(expert), 3, dtype=torch.float64, requires_grad=True)
    prob = torch.rand(expert.shape, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, prob: Tensor, *tensors: Tensor) -> Tensor:
        return moe_experts(x, *tensors, expert, prob, backend="reference", may_drop=True)  # type: ignore[misc]

    assert torch.autograd.gradcheck(run, (x, prob, *tensors))


@pytest.mark.parametrize(("tokens", "width", "hidden"), [(500, 32, 64), (1024, 96, 384), (3000, 256, 1024)])
@pytest.mark.parametrize("dropped", [False, True])
def test_grouped_has_the_bits_of_the_reference_on_the_cpu(tokens: int, width: int, hidden: int, dropped: bool):
    generator = torch.Generator().manual_seed(3)
    # One expert without a token, one with most.
    expert = torch.randint(1, 16, (tokens, 2), generator=generator)
    expert[: tokens // 2, 0] = 7
    if dropped:
        expert[::5, 1] = -1
    found = []
    for backend in ("reference", "grouped"):
        tensors = weights(torch.float32, experts=16, width=width, hidden=hidden)
        x = torch.randn(tokens, width, generator=generator.manual_seed(4)).requires_grad_()
        prob = torch.full((tokens, 2), 0.4).requires_grad_()
        y = moe_experts(x, *tensors, expert, prob, backend=backend, may_drop=dropped)
        y.square().sum().backward()
        found.append([y.detach(), x.grad, prob.grad, *(tensor.grad for tensor in tensors)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("dtype", "width", "reason"), [(torch.float64, 8, "float64"), (torch.float32, 6, "rows of 6 x 4 bytes")]
)
def test_grouped_falls_back_with_a_reason(dtype: torch.dtype, width: int, reason: str):
    tensors = weights(dtype, width=width)
    x, expert = torch.randn(5, width, dtype=dtype), torch.tensor([[0], [1], [1], [3], [2]])
    prob = torch.ones(5, 1, dtype=dtype)
    with pytest.warns(UserWarning, match=reason):
        y = moe_experts(x, *tensors, expert, prob, backend="grouped")
    torch.testing.assert_close(y, moe_experts(x, *tensors, expert, prob, backend="reference"))


def test_grouped_refuses_strides_it_cannot_take():
    w_up, _, w_down, _ = weights(torch.float32)
    assert grouped.unsupported(torch.randn(5, D), w_up, w_down) is None
    assert "not contiguous" in str(grouped.unsupported(torch.randn(5, 2 * D)[:, :D], w_up, w_down))
    assert grouped.unsupported(torch.randn(D, 5).t(), w_up, w_down) is not None


def test_balance_loss_is_one_at_uniform_load():
    uniform = torch.full((16,), 1 / 16)
    assert balance_loss(uniform, uniform).item() == pytest.approx(1.0)


def test_balance_loss_of_a_known_case_and_its_gradient():
    # moe.md's counter-example to a lower bound of 1: loads (.75, .25), probabilities (.38, .62): 2 (.285 + .155) = .88
    importance = torch.tensor([0.38, 0.62], requires_grad=True)
    load = torch.tensor([0.75, 0.25], requires_grad=True)
    value = balance_loss(importance, load)
    value.backward()
    assert value.item() == pytest.approx(0.88)
    assert importance.grad is not None
    assert importance.grad.tolist() == pytest.approx([1.5, 0.5])
    assert load.grad is None


def test_gradient_is_finite_at_perfect_balance():
    layer = MixtureOfExperts(ModelConfig(d_model=8, heads=2, experts=4))
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    _, stats = layer(torch.randn(8, 8), torch.full((4,), 0.25))
    stats.balance.backward()
    assert layer.router.weight.grad is not None
    assert torch.isfinite(layer.router.weight.grad).all()
    assert stats.balance.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "minimum", "expected"),
    [(16384, 16, 1.0, 4, 1024), (100, 16, 1.0, 4, 7), (100, 16, 1.25, 4, 8), (8, 16, 1.0, 4, 4), (3, 16, 1.0, 4, 3),
     (10, 2, 100.0, 0, 10)],
)  # fmt: skip
def test_capacity(tokens: int, experts: int, factor: float, minimum: int, expected: int):
    assert expert_capacity(tokens, experts, factor, minimum) == expected


def test_tokens_over_capacity_are_dropped_by_position():
    expert = torch.tensor([[0], [0], [1], [0], [1], [0]])
    assert drop_over_capacity(expert, 2, 2).tolist() == [[0], [0], [1], [-1], [1], [-1]]
    # All first choices come before all second ones.
    assert drop_over_capacity(torch.tensor([[1, 0], [0, 1]]), 2, 1).tolist() == [[1, -1], [0, -1]]
    assert drop_over_capacity(torch.tensor([[1, 0], [0, 1]]), 2, 0).tolist() == [[-1, -1], [-1, -1]]


def test_capacity_drops_in_training_alone_and_is_counted():
    torch.manual_seed(0)
    config = ModelConfig(d_model=8, heads=2, experts=4, capacity_factor=1.0, min_capacity=0)
    layer = MixtureOfExperts(config, "reference")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(40, 8)
    y, stats = layer(x)
    over = (stats.counts_E - 10).clamp(min=0).sum()
    assert stats.dropped == over > 0
    assert (y == 0).all(1).sum() == over
    assert stats.counts_E.sum() == 40
    layer.eval()
    y, stats = layer(x)
    assert stats.dropped == 0
    assert (y != 0).any(1).all()
    torch.testing.assert_close(layer(x)[0], y, rtol=0, atol=0)


def test_the_weight_of_an_expert_is_its_raw_probability():
    torch.manual_seed(0)
    layer = MixtureOfExperts(ModelConfig(d_model=8, heads=2, experts=4, top_k=2), "reference")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(6, 8)
    probs = (x @ layer.router.weight.t()).softmax(-1)
    prob, expert = probs.topk(2)
    assert (prob.sum(1) < 0.999).any()
    experts = layer.experts
    tensors = (experts.w_up, experts.b_up, experts.w_down, experts.b_down)
    torch.testing.assert_close(layer(x)[0], one_by_one(x, tensors, expert, prob), rtol=1e-4, atol=1e-4)


def test_router_runs_in_float32_under_autocast():
    layer = MixtureOfExperts(ModelConfig(d_model=8, heads=2, experts=4))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 8)
    expected = layer.route(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        logits, probs = layer.route(x)
        y, _ = layer(x)
    assert logits.dtype == probs.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(y.float(), layer(x)[0], rtol=0.1, atol=0.3)


@pytest.mark.parametrize("key", [0, 1, 2**62])
def test_a_random_order_drops_others_and_the_same_each_time(key: int):
    torch.manual_seed(0)
    expert = torch.randint(0, 3, (50, 2))
    shape = expert.shape
    order = random_order(torch.tensor(key), shape)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, random_order(torch.tensor(key), shape))
    kept = drop_over_capacity(expert, 3, 20, order)
    # By hand: walk through the choices in that order, first choices before second ones as the legend numbers them.
    room = [20, 20, 20]
    choices = expert.t().reshape(-1).tolist()
    wanted = list(choices)
    for number in order.tolist():
        room[choices[number]] -= 1
        if room[choices[number]] < 0:
            wanted[number] = -1
    assert kept.t().reshape(-1).tolist() == wanted
    assert not torch.equal(kept, drop_over_capacity(expert, 3, 20))


def test_random_orders_are_uniform():
    """Each of ten choices stands first about as often as any other."""
    firsts = [int(random_order(torch.tensor(key), torch.Size((10, 1)))[0]) for key in range(2000)]
    counts = torch.bincount(torch.tensor(firsts), minlength=10)
    # Chi-square with 9 degrees of freedom: 27.9 is passed once in a thousand times.
    assert float(((counts - 200.0) ** 2 / 200.0).sum()) < 27.9


@pytest.mark.parametrize("autocast", [False, True])
def test_a_fused_layer_compiles_whole(tiny: Callable[..., TrainConfig], autocast: bool):
    pytest.importorskip("triton")
    config = tiny(model={"d_model": 32}).model
    layer = MixtureOfExperts(config, "fused").train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y, stats = call(x)
        loss = y.float().square().sum() + stats.balance + stats.z
        found.append([y.detach(), *torch.autograd.grad(loss, [x, *layer.parameters()])])
    assert found[0][0].dtype == (torch.bfloat16 if autocast else torch.float32)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "width", "reason"), [(torch.float32, 24, "multiples of 16"), (torch.int8, 32, "torch.int8")]
)
def test_fused_falls_back_with_a_reason(dtype: torch.dtype, width: int, reason: str):
    pytest.importorskip("triton")
    assert reason in (fused_unsupported(torch.zeros(4, width, dtype=dtype), torch.zeros(4, width, 32)) or "")


def test_fused_refuses_experts_beyond_32_bits():
    pytest.importorskip("triton")
    x = torch.zeros(1, 65536)
    assert fused_unsupported(x, torch.zeros(1).expand(2, 65536, 32752)) is None
    assert "65536 x 32768 weights" in (fused_unsupported(x, torch.zeros(1).expand(2, 65536, 32768)) or "")


def test_where_fused_cannot_grouped_runs_and_it_is_told():
    pytest.importorskip("triton")
    tensors = weights(torch.float32, experts=4, width=24, hidden=32)
    x = torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
    expert, prob = torch.arange(10)[:, None] % 4, torch.full((10, 1), 0.5)
    with pytest.warns(UserWarning, match="fused falls back to grouped: the width is 24"):
        found = moe_experts(x, *tensors, expert, prob, backend="fused")
    assert torch.equal(found, moe_experts(x, *tensors, expert, prob, backend="grouped"))
