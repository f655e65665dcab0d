from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch._dynamo.exc import Unsupported

from lola_data.errors import TrainingError
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


def filled(config: ModelConfig, backend: Backend) -> MixtureOfExperts:
    """A layer in training with normal numbers."""
    layer = MixtureOfExperts(config, backend).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return layer


@pytest.mark.parametrize("autocast", [False, True])
def test_what_a_fused_layer_keeps_for_the_backward_pass(autocast: bool):
    """x once, the parameters themselves, z in the type of the products, maps of integers and three numbers a token;
    no narrowed copy of anything."""
    pytest.importorskip("triton")
    tokens, width, hidden, experts = 40, 32, 128, 4
    layer = filled(ModelConfig(d_model=width, heads=2, experts=experts), "fused")
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    known = {t.untyped_storage().data_ptr(): name for name, t in [("x", x), *layer.named_parameters()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no address is used twice.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        y, stats = layer(x)
    value = torch.bfloat16 if autocast else torch.float32
    assert y.dtype == value
    inputs = {known[address]: tensor.dtype for address, tensor in kept.items() if address in known}
    names = ("x", "router.weight", "experts.w_up", "experts.w_down", "experts.b_down")
    assert inputs == dict.fromkeys(names, torch.float32)
    rest = sorted(
        (str(tensor.dtype), tensor.untyped_storage().nbytes() // tensor.element_size())
        for address, tensor in kept.items()
        if address not in known
    )
    tiles = -(-tokens // (128 if autocast else 64)) + experts
    assert rest == sorted(
        [
            (str(value), tokens * hidden),  # z
            *[("torch.float32", tokens)] * 2,  # weight of each choice, lse
            *[("torch.int32", tokens)] * 2,  # expert of each choice, src
            ("torch.int32", experts),  # ends
            *[("torch.int32", tiles)] * 2,
            ("torch.float32", experts),  # the load that the balance loss multiplies
        ]
    )
    leaves = [x, *layer.parameters()]
    grads = torch.autograd.grad(y.float().square().sum() + stats.balance, leaves)
    assert [grad.dtype for grad in grads] == [torch.float32] * len(leaves)


BACKENDS: tuple[Backend, ...] = ("reference", "grouped", "fused")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_of_equal_experts_all_backends_choose_the_lowest(top_k: int, bias: bool):
    """A router of zeros; with a bias that is the same for some, too; and a token that is no number."""
    pytest.importorskip("triton")
    config = ModelConfig(d_model=16, heads=2, experts=16, d_ff=16, top_k=top_k, router_bias_rate=0.01 * bias)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    x[4] = math.nan
    found = []
    for backend in BACKENDS:
        layer = filled(config, backend)
        with torch.no_grad():
            layer.router.weight.zero_()
            if layer.bias_E is not None:
                layer.bias_E[:3] = -1.0
        y, stats = layer(x)
        first = 3 if bias else 0
        wanted = torch.arange(first, first + top_k).expand(9, -1).clone()
        if bias:
            # No number at all counts as 0, with the bias in it or not.
            wanted[4] = torch.arange(top_k)
        assert torch.equal(stats.expert_TK, wanted), backend
        assert y[4].isnan().all()
        assert torch.isfinite(y[torch.arange(9) != 4]).all()
        found.append(y.detach())
    for y in found[1:]:
        torch.testing.assert_close(y, found[0], rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_two_experts_of_the_same_row_are_taken_in_their_order(backend: Backend):
    pytest.importorskip("triton")
    layer = filled(ModelConfig(d_model=16, heads=2, experts=16, d_ff=16, top_k=2), backend)
    with torch.no_grad():
        # The same numbers added in the same order, so the same sum, however a product is made: whole numbers.
        layer.router.weight.copy_(
            torch.randint(-3, 4, (4, 16), generator=torch.Generator().manual_seed(0)).repeat(4, 1)
        )
    x = torch.randint(-2, 3, (30, 16), generator=torch.Generator().manual_seed(1)).float()
    expert_TK = layer(x)[1].expert_TK
    logits = x @ layer.router.weight.t()
    # By hand: the first of the largest, and the next one that has the same.
    for row, chosen in zip(logits.tolist(), expert_TK.tolist(), strict=True):
        best = [number for number, value in enumerate(row) if value == max(row)]
        assert len(best) >= 4
        assert chosen == best[:2]


WRONG: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "width of x": ({"x": (20, 48)}, r"w_up has the shape \[4, 32, 48\]; expected \[4, 48, 48\], experts x width of x"),
    "b_up of one expert": ({"b_up": (1, 48)}, r"b_up has the shape \[1, 48\]; expected \[4, 48\]"),
    "b_up of the width": ({"b_up": (4, 32)}, r"b_up has the shape \[4, 32\]; expected \[4, 48\]"),
    "w_down of three experts": ({"w_down": (3, 48, 32)}, r"w_down has the shape \[3, 48, 32\]; expected \[4, 48, 32\]"),
    "w_down turned": ({"w_down": (4, 32, 48)}, r"w_down has the shape \[4, 32, 48\]; expected \[4, 48, 32\]"),
    "b_down of one": ({"b_down": (4, 1)}, r"b_down has the shape \[4, 1\]; expected \[4, 32\]"),
    "fewer weights than tokens": ({"prob": (10, 2)}, r"prob has the shape \[10, 2\]; expected \[20, 2\]"),
    "one weight a token": ({"prob": (20, 1)}, r"prob has the shape \[20, 1\]; expected \[20, 2\]"),
    "flat weights": ({"prob": (40,)}, r"prob has the shape \[40\]; expected \[20, 2\]"),
    "flat choices": ({"expert": (20,)}, r"expert has the shape \[20\]; expected tokens x experts a token"),
    "more choices than tokens": ({"expert": (21, 2)}, r"expert has the shape \[21, 2\]; expected \[20, 2\]"),
    "no choice": ({"expert": (20, 0), "prob": (20, 0)}, r"expert has the shape \[20, 0\]; expected one expert a token"),
}
"""What is changed, and what is said of it."""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_do_not_fit_are_refused_by_name(case: str, backend: Backend):
    pytest.importorskip("triton")
    changes, message = WRONG[case]
    shapes = {"x": (20, 32), "w_up": (4, 32, 48), "b_up": (4, 48), "w_down": (4, 48, 32), "b_down": (4, 32),
              "expert": (20, 2), "prob": (20, 2)} | changes  # fmt: skip
    expert = torch.zeros(shapes.pop("expert"), dtype=torch.int64)
    x, w_up, b_up, w_down, b_down, prob = (torch.zeros(shape) for shape in shapes.values())
    with pytest.raises(TrainingError, match=f"^{message}"):
        moe_experts(x, w_up, b_up, w_down, b_down, expert, prob, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_experts_that_there_are_not_are_refused_on_the_cpu(backend: Backend):
    pytest.importorskip("triton")
    tensors = weights(torch.float32, width=16, hidden=16)
    for wrong, may_drop, wanted in ((7, False, "0 to 3"), (-1, False, "0 to 3"), (4, True, "0 to 3, or -1"), (-2, True, "0 to 3, or")):  # noqa: E501  # fmt: skip
        expert = torch.tensor([[0], [wrong], [2]])
        with pytest.raises(TrainingError, match=f"^expert holds {wrong}; expected {wanted}"):
            moe_experts(torch.zeros(3, 16), *tensors, expert, torch.ones(3, 1), backend=backend, may_drop=may_drop)


def test_weights_narrower_than_what_is_multiplied_are_widened():
    pytest.importorskip("triton")
    tensors = tuple(t.detach().bfloat16() for t in weights(torch.float32, width=16, hidden=16))
    x, expert = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), torch.arange(5)[:, None] % 4
    found = [moe_experts(x, *tensors, expert, torch.ones(5, 1), backend=b) for b in BACKENDS]  # type: ignore[misc]
    for y in found:
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, found[0], rtol=1e-5, atol=1e-5)


def test_a_layer_that_falls_back_compiles_as_grouped_does():
    """A width of 24 is none that the kernels take. Where the loop over the rest of a model is compiled, the experts are
    left out of it; a whole graph cannot be had of either, for the same reason."""
    pytest.importorskip("triton")
    config = ModelConfig(d_model=24, heads=2, experts=4)
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(1))
    grouped_y = filled(config, "grouped")(x)[0]
    with pytest.warns(UserWarning, match="fused falls back to grouped: the width is 24"):
        compiled_y = torch.compile(filled(config, "fused"), backend="aot_eager")(x)[0]
    torch.testing.assert_close(compiled_y, grouped_y)
    told = []
    for backend in ("grouped", "fused"):
        torch._dynamo.reset()
        with pytest.raises(Unsupported) as raised:
            torch.compile(filled(config, backend), fullgraph=True, backend="aot_eager")(x)
        told.append(str(raised.value).splitlines()[0])
    assert told[0] == told[1]
    assert "warn" not in told[0]


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
