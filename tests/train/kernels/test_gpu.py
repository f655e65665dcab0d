"""The fused kernels on a GPU: true at real sizes, the same bits twice, past 2^31 elements, captured, compiled, and
clean under compute-sanitizer.

    TRITON_INTERPRET=0 python -m pytest -m gpu tests/train/kernels/test_gpu.py

The truth is the loop in float64. Errors are held against those of ``grouped`` in the same type on the same tensors, so
no tolerance is guessed.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch import Tensor

from lola_data.train_config import ModelConfig
from tests.train.kernels.alone import ROOT, passed_alone, run_alone
from train.kernels.fused import ops
from train.moe import MixtureOfExperts, moe_experts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from train.moe import Backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET", "0") != "0",
        reason="Triton's interpreter is on: TRITON_INTERPRET=0 python -m pytest -m gpu tests/train/kernels/test_gpu.py",
    ),
]
SANITIZED = "TEST_GPU_SANITIZED"
"""Set in the process that compute-sanitizer watches."""


class Case(NamedTuple):
    """A layer and what goes in; ``g_TD`` is the gradient of its output."""

    x_TD: Tensor
    w_up_EDF: Tensor
    b_up_EF: Tensor
    w_down_EFD: Tensor
    b_down_ED: Tensor
    prob_TK: Tensor
    expert_TK: Tensor
    g_TD: Tensor

    def leaves(self, dtype: torch.dtype) -> list[Tensor]:
        """What has a gradient, in ``dtype``; the weights of choices are float32 at least."""
        wide = torch.promote_types(dtype, torch.float32)
        kinds = [dtype] * 5 + [wide]
        return [tensor.detach().to(kind).requires_grad_() for tensor, kind in zip(self[:6], kinds, strict=True)]


NAMES = ("y", "x", "w_up", "b_up", "w_down", "b_down", "prob")


def make_case(tokens: int, width: int, hidden: int, experts: int, shares: list[float], top_k: int = 1) -> Case:
    """Normal numbers in bfloat16, and experts drawn without repetition in proportion to ``shares``."""
    rng = torch.Generator("cuda").manual_seed(5)

    def normal(scale: float, *shape: int) -> Tensor:
        return (torch.randn(shape, generator=rng, device="cuda") * scale).bfloat16()

    weights = torch.tensor(shares, device="cuda").expand(tokens, experts)
    expert_TK = torch.multinomial(weights, top_k, generator=rng)
    return Case(
        normal(1, tokens, width),
        normal(width**-0.5, experts, width, hidden),
        normal(0.1, experts, hidden),
        normal(hidden**-0.5, experts, hidden, width),
        normal(0.1, experts, width),
        torch.rand(tokens, top_k, generator=rng, device="cuda"),
        expert_TK,
        normal(1, tokens, width),
    )


def run(case: Case, dtype: torch.dtype, backend: Backend) -> list[Tensor]:
    """y and all gradients, named by :data:`NAMES`."""
    x, w_up, b_up, w_down, b_down, prob = leaves = case.leaves(dtype)
    if backend == "fused":
        # Not through train.moe, which would fall back in silence but for a warning.
        assert ops.unsupported(x, w_up) is None
        y = ops.moe(x, w_up, b_up, w_down, b_down, case.expert_TK, prob)
    else:
        y = moe_experts(x, w_up, b_up, w_down, b_down, case.expert_TK, prob, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, leaves, case.g_TD.to(y.dtype))]


def errors(found: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """||found - truth|| / ||truth|| of each."""
    return {
        name: float((one.double() - other.double()).norm() / other.double().norm())
        for name, one, other in zip(NAMES, found, truth, strict=True)
    }


def held_to_grouped(case: Case, dtype: torch.dtype) -> None:
    """At most twice the error of ``grouped``; a step of float32 is let pass, where both are exact to the last bit."""
    truth = run(case, torch.float64, "reference")
    ours = errors(run(case, dtype, "fused"), truth)
    theirs = errors(run(case, dtype, "grouped"), truth)
    assert {name: (ours[name], theirs[name]) for name in NAMES if not ours[name] <= 2 * theirs[name] + 1e-7} == {}


EVEN, ZIPF = [1.0] * 16, [1 / rank for rank in range(1, 17)]
LOADS = {
    "balanced": EVEN,
    "zipf": ZIPF,
    "first empty": [0.0, *EVEN[1:]],
    "middle empty": [*EVEN[:7], 0.0, *EVEN[8:]],
    "last empty": [*EVEN[:15], 0.0],
    "nearly all to one": [1e-4] * 9 + [1.0] + [1e-4] * 6,
    "all to one": [0.0] * 9 + [1.0] + [0.0] * 6,
}


@pytest.mark.parametrize("load", LOADS)
def test_lolas_shape_is_as_exact_as_grouped(load: str):
    held_to_grouped(make_case(4096, 2048, 8192, 16, LOADS[load]), torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sizes_that_no_tile_divides_and_two_experts_a_token(dtype: torch.dtype):
    held_to_grouped(make_case(1003, 208, 432, 5, [1.0] * 5, top_k=2), dtype)


def test_float32_is_float32():
    case = make_case(1003, 208, 432, 5, [1.0] * 5, top_k=2)
    found, truth = run(case, torch.float32, "fused"), run(case, torch.float64, "reference")
    # Of sums of some hundred products; TF32 would have 1e-3.
    assert max(errors(found, truth).values()) < 1e-5


def test_router_is_the_models():
    rng = torch.Generator("cuda").manual_seed(3)
    x = torch.randn(16_384, 2048, generator=rng, device="cuda").bfloat16()
    w = torch.randn(16, 2048, generator=rng, device="cuda") * 2048**-0.5
    routed = ops.choose(x, w, None, 1)
    probs = (x.double() @ w.double().t()).softmax(-1)
    best = probs.topk(2, dim=-1)
    # Where two experts are as good as equal, float32 may take either.
    clear = best.values[:, 0] - best.values[:, 1] > 1e-5
    assert clear.float().mean() > 0.99
    assert (routed.expert_TK[clear, 0] == best.indices[clear, 0]).all()
    torch.testing.assert_close(routed.prob_TK[:, 0].double(), best.values[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(routed.importance_E.double(), probs.mean(0), rtol=1e-4, atol=1e-6)


def test_two_runs_have_the_same_bits():
    case = make_case(16_384, 2048, 8192, 16, ZIPF)
    first = run(case, torch.bfloat16, "fused")
    # Other addresses, and other leftovers in them.
    poison = torch.full((1 << 28,), float("nan"), device="cuda")
    del poison
    second = run(case, torch.bfloat16, "fused")
    assert [name for name, one, other in zip(NAMES, first, second, strict=True) if not torch.equal(one, other)] == []


def test_past_two_to_the_31_elements():
    """262,400 rows of 8,192 are 2,149,580,800 hidden elements: the last 256 rows begin beyond 2^31. They alone have a
    gradient, so that everything is what a run of themselves alone gives. A hidden tensor takes 4.3 GB; three of them
    are there at a time."""
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("takes 40 GB of a GPU's memory")
    tokens, tail = 262_400, 256
    assert (tokens - tail) * 8192 >= 2**31
    case = make_case(tokens, 64, 8192, 2, [1.0, 1.0])
    # Rows are sorted by expert, then by token: the last tokens have the last rows.
    case.expert_TK.fill_(1)[:1000] = 0
    case.g_TD[:-tail] = 0
    last = case._replace(
        x_TD=case.x_TD[-tail:], prob_TK=case.prob_TK[-tail:], expert_TK=case.expert_TK[-tail:], g_TD=case.g_TD[-tail:]
    )
    for name, whole, alone in zip(
        NAMES, run(case, torch.bfloat16, "fused"), run(last, torch.bfloat16, "fused"), strict=True
    ):
        assert torch.isfinite(whole).all(), name
        if name in ("x", "prob"):
            assert not whole[:-tail].any(), name
        if name in ("y", "x", "prob"):
            whole = whole[-tail:]
        assert float((whole.double() - alone.double()).norm()) <= 1e-2 * float(alone.double().norm()), name


def test_weights_past_two_to_the_31_elements():
    """Sixty-four experts of 4,096 x 8,704: their matrices begin beyond 2^31 from number 61 on."""
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("takes 40 GB of a GPU's memory")
    experts, width, hidden = 64, 4096, 8704
    assert 61 * width * hidden >= 2**31
    case = make_case(256, width, hidden, experts, [0.0] * 61 + [1.0] * 3)
    found = run(case, torch.bfloat16, "fused")
    few = case._replace(
        w_up_EDF=case.w_up_EDF[61:], b_up_EF=case.b_up_EF[61:], w_down_EFD=case.w_down_EFD[61:],
        b_down_ED=case.b_down_ED[61:], expert_TK=case.expert_TK - 61,
    )  # fmt: skip
    alone = run(few, torch.bfloat16, "fused")
    for name, whole, part in zip(NAMES, found, alone, strict=True):
        if name in ("w_up", "b_up", "w_down", "b_down"):
            assert not whole[:61].any(), name
            whole = whole[61:]
        assert float((whole.double() - part.double()).norm()) <= 1e-2 * float(part.double().norm()), name


def layer(x: Tensor, router: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor) -> Tensor:
    routed = ops.choose(x, router, None, 1)
    return ops.moe(x, w_up, b_up, w_down, b_down, routed.expert_TK, routed.prob_TK, routed=routed)


def layer_tensors() -> list[Tensor]:
    case = make_case(2048, 256, 512, 8, [1.0] * 8)
    router = torch.randn(8, 256, generator=torch.Generator("cuda").manual_seed(2), device="cuda") / 16
    return [case.x_TD, router, *case[1:5]]


def test_cuda_graph_replays_other_tokens_with_other_loads():
    tensors = layer_tensors()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        # Compiled before the capture.
        layer(*tensors)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = layer(*tensors)
    for seed in (1, 2):
        fresh = torch.randn(2048, 256, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
        # The second time nearly all tokens are of few experts.
        tensors[0].copy_(fresh + (seed - 1) * 4 * tensors[1][0] * 256**0.5)
        graph.replay()
        replayed = captured.clone()
        with torch.no_grad():
            assert torch.equal(replayed, layer(*tensors))


@contextmanager
def no_waits() -> Iterator[None]:
    """A block in which the host must not wait for the device: torch raises where it would."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def replays_are_the_same(step: Callable[[], list[Tensor]], x: Tensor, others: list[Tensor]) -> None:
    """Capture ``step``, which reads ``x``, and hold what replays give for each of ``others`` in the place of x against
    what it gives when it is called."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            # Compiled before the capture, and torch's own libraries have their memory.
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for other in others:
        with torch.no_grad():
            x.copy_(other)
        graph.replay()
        replayed = [tensor.clone() for tensor in captured]
        for found, expected in zip(replayed, step(), strict=True):
            assert torch.isfinite(found).all()
            assert torch.equal(found, expected)


def loads_of(router: Tensor, tokens: int) -> list[Tensor]:
    """Tokens for all experts of ``router`` [E, D], tokens of which nearly all are for its first, and others again."""
    fresh = []
    for seed in (1, 2, 3):
        rng = torch.Generator("cuda").manual_seed(seed)
        x = torch.randn(tokens, router.shape[1], generator=rng, device="cuda")
        fresh.append(x + (seed == 2) * 8 * router[0] / router[0].norm())
    return fresh


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float32])
def test_cuda_graph_replays_forward_and_backward_of_the_operators(kept: torch.dtype):
    """With parameters in the type of the products, and in float32."""
    tensors = layer_tensors()
    router = tensors[1].clone().requires_grad_()
    x, *weights = (tensor.to(kept, copy=True).requires_grad_() for tensor in (tensors[0], *tensors[2:]))
    w_up, b_up, w_down, b_down = weights
    g = torch.randn(x.shape, generator=torch.Generator("cuda").manual_seed(9), device="cuda").bfloat16()

    def step() -> list[Tensor]:
        routed = ops.choose(x, router, None, 2)
        y = ops.moe(
            x, w_up, b_up, w_down, b_down, routed.expert_TK, routed.prob_TK, dtype=torch.bfloat16, routed=routed
        )
        outputs = (y, routed.importance_E.square().sum(), routed.z)
        grads = torch.autograd.grad(outputs, [x, router, *weights], (g, None, None))
        return [y.detach(), *grads]

    replays_are_the_same(step, x, loads_of(router.detach(), len(x)))


def trained_layer(top_k: int = 1, capacity_factor: float | None = None) -> MixtureOfExperts:
    """A layer of a model in training, with normal numbers."""
    config = ModelConfig(
        d_model=256, heads=4, experts=8, top_k=top_k, capacity_factor=capacity_factor, router_bias_rate=0.01
    )
    made = MixtureOfExperts(config, "fused").cuda().train()
    rng = torch.Generator("cuda").manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.05, generator=rng)
    return made


def step_of(made: MixtureOfExperts, x: Tensor) -> Callable[[], list[Tensor]]:
    """Forward and backward of a layer under autocast, as a model in training does them."""

    def step() -> list[Tensor]:
        # Its cache of narrowed parameters would be made in a capture and used beyond it.
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            y, stats = made(x)
        loss = y.float().square().mean() + 0.1 * stats.balance + 0.01 * stats.z
        return [y.detach(), stats.counts_E, stats.dropped, *torch.autograd.grad(loss, [x, *made.parameters()])]

    return step


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("top_k", "capacity_factor"), [(1, None), (2, None), (1, 1.0)])
def test_cuda_graph_replays_forward_and_backward_of_a_layer(top_k: int, capacity_factor: float | None, recompute: bool):
    made = trained_layer(top_k, capacity_factor)
    made.recompute = recompute
    x = torch.randn(2048, 256, device="cuda", requires_grad=True)
    replays_are_the_same(step_of(made, x), x, loads_of(made.router.weight.detach(), len(x)))


@pytest.mark.parametrize("recompute", [False, True])
def test_the_host_does_not_wait_for_a_layer(recompute: bool):
    made = trained_layer(2, 1.0)
    made.recompute = recompute
    x = torch.randn(2048, 256, device="cuda", requires_grad=True)
    step = step_of(made, x)
    step()
    torch.cuda.synchronize()
    with no_waits():
        step()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device is here")
def test_tensors_of_another_card_than_the_current_one():
    made = trained_layer(2)
    x = torch.randn(300, 256, device="cuda", requires_grad=True)
    expected = step_of(made, x)()
    made = made.to("cuda:1")
    with torch.cuda.device(0):
        found = step_of(made, x.detach().to("cuda:1").requires_grad_())()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu(), rtol=1e-2, atol=1e-3)


def test_compiles_without_a_break():
    tensors = layer_tensors()

    def gradients(function: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y.float().square().sum(), leaves)]

    compiled = gradients(torch.compile(layer, fullgraph=True))
    for found, expected in zip(compiled, gradients(layer), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_small_layer_for_the_sanitizer():
    """Ragged tiles, an expert without rows, dropped choices; both passes."""
    case = make_case(131, 48, 80, 3, [1.0, 0.0, 1.0])
    expert_TK = case.expert_TK.clone()
    expert_TK[::7] = -1
    for dtype in (torch.bfloat16, torch.float32):
        x, w_up, b_up, w_down, b_down, prob = leaves = case.leaves(dtype)
        y = ops.moe(x, w_up, b_up, w_down, b_down, expert_TK, prob, may_drop=True)
        grads = torch.autograd.grad(y, leaves, case.g_TD.to(y.dtype))
        assert not y[::7].any()
        assert not grads[1][1].any()
        assert all(torch.isfinite(grad).all() for grad in grads)
    tensors = [tensor[:77] if number == 0 else tensor for number, tensor in enumerate(layer_tensors())]
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    torch.autograd.grad(layer(*leaves).float().sum(), leaves)


@pytest.mark.skipif(SANITIZED in os.environ, reason="this is the process that is watched")
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str):
    # Torch's allocator hides the ends of tensors from memcheck.
    variables = {SANITIZED: "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    watched = f"{Path(__file__).resolve().relative_to(ROOT)}::{test_small_layer_for_the_sanitizer.__name__}"
    under = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "86")
    done = run_alone(watched, options=("-m", "gpu"), under=under, variables=variables)
    assert passed_alone(done), done.stdout[-4000:]
