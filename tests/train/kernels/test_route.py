from __future__ import annotations

import pytest
import torch

from tests.train.kernels.checks import (
    BIAS,
    SHIPPED,
    routed_by_torch,
    router_gradients,
    router_input,
    routing_is_right,
    same,
    tiles_of,
)
from tests.train.kernels.watch import apart, poisoned, watched
from train.kernels.fused import route
from train.kernels.fused.configs import config_of


def grads_of(tokens: int, top_k: int, experts: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(8)
    shapes = ((tokens, top_k), (experts,), ())
    return tuple(torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (2, 1), (2, 2), (5, 3), (16, 1), (16, 2), (64, 1), (64, 3)])
def test_shipped_tiles(experts: int, top_k: int, dtype: torch.dtype):
    """Two blocks of tokens, the last one ragged, and a width that the steps do not divide."""
    tokens, width = config_of(dtype).route.m + 7, 48
    x, w = router_input(tokens, width, experts, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    expected = routed_by_torch(x.double(), w.double(), None, top_k, config_of(dtype).route.m)
    grads = grads_of(tokens, top_k, experts, dtype)
    with poisoned(), watched():
        found = route.route(x, w, None, top_k)
        made = route.route_backward(x, w, found.expert_TK, found.prob_TK, found.lse_T, *grads)
    routing_is_right(found, expected, tolerance)
    wanted = router_gradients(x.double(), w.double(), expected.expert_TK, tuple(g.double() for g in grads))  # type: ignore[arg-type]
    same(dict(zip(("dx", "dw"), made, strict=True)), wanted, tolerance * 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_route_in_float32(dtype: torch.dtype):
    """Products of half numbers are exact in float32, so the choice is that of float64 of the same numbers."""
    x, w = router_input(70, 48, 16, dtype)
    w = apart(w.float())
    expected = routed_by_torch(x.double(), w.double(), None, 2, config_of(dtype).route.m)
    grads = grads_of(70, 2, 16, torch.float32)
    with poisoned(), watched():
        found = route.route(x, w, None, 2)
        dx, dw = route.route_backward(x, w, found.expert_TK, found.prob_TK, found.lse_T, *grads)
    routing_is_right(found, expected, 1e-5)
    assert found.prob_TK.dtype == found.lse_T.dtype == dw.dtype == torch.float32
    assert dx.dtype == dtype
    wanted = router_gradients(x.double(), w.double(), expected.expert_TK, tuple(g.double() for g in grads))  # type: ignore[arg-type]
    same({"dw": dw}, wanted, 1e-4)
    same({"dx": dx}, wanted, float(torch.finfo(dtype).eps))


def test_the_lowest_index_wins_among_equals():
    x = torch.ones(5, 16)
    w = torch.zeros(6, 16)
    w[[1, 3, 4]] = 0.5
    found = route.route(x, w, None, 3)
    assert found.expert_TK.tolist() == [[1, 3, 4]] * 5
    assert route.route(x, torch.zeros(6, 16), None, 2).expert_TK.tolist() == [[0, 1]] * 5
    assert torch.allclose(found.prob_TK.sum(1), 3 * torch.tensor(0.5 * 16).exp() / (3 * torch.tensor(8.0).exp() + 3))


def test_a_bias_moves_the_choice_and_not_the_weight():
    x, w = router_input(37, 40, 5)
    plain, moved = route.route(x, w, None, 1), route.route(x, w, BIAS, 1)
    probs = (x @ w.t()).softmax(-1)
    assert (plain.expert_TK != moved.expert_TK).any()
    assert torch.equal(moved.expert_TK.long()[:, 0], (probs + BIAS).argmax(1))
    torch.testing.assert_close(moved.prob_TK, probs.gather(1, moved.expert_TK.long()))
    torch.testing.assert_close(moved.lse_T, plain.lse_T)


def test_a_bias_of_any_size_chooses_no_padding():
    x, w = router_input(20, 16, 5)
    found = route.route(x, w, torch.full((5,), -1e9, dtype=torch.float64), 5)
    assert found.expert_TK.sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 20


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17])
def test_any_number_of_tokens(tokens: int):
    x, w = router_input(tokens, 24, 3)
    expected = routed_by_torch(x, w, None, 2, 16)
    grads = grads_of(tokens, 2, 3, torch.float64)
    with tiles_of(SHIPPED), poisoned(), watched():
        found = route.route(x, w, None, 2)
        dx, dw = route.route_backward(x, w, found.expert_TK, found.prob_TK, found.lse_T, *grads)
    routing_is_right(found, expected, 1e-12)
    if tokens:
        wanted = router_gradients(x, w, expected.expert_TK, grads)  # type: ignore[arg-type]
        same({"dx": dx, "dw": dw}, wanted)
    else:
        assert dx.shape == (0, 24)
        assert not dw.any()


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_are_numbers(size: float):
    x, w = router_input(20, 16, 5, torch.float32)
    x = apart(x * size)
    # Far from zero the differences of logits of float32 are coarse; the choice is still that of the largest.
    expected = (x.double() @ w.double().t()).argmax(1)
    found = route.route(x, w, None, 2)
    dx, dw = route.route_backward(
        x, w, found.expert_TK, found.prob_TK, found.lse_T, torch.ones(20, 2), torch.ones(5), torch.ones(())
    )
    assert torch.equal(found.expert_TK[:, 0].long(), expected)
    for tensor in (found.prob_TK, found.lse_T, found.importance_BP, dx, dw):
        assert torch.isfinite(tensor).all()
    assert (found.prob_TK[:, 0] > 0.49).all()


def test_a_token_of_nan_keeps_to_itself():
    """Its experts are real ones and differ, so that the plan of all others stands."""
    x, w = router_input(20, 16, 5)
    expected = routed_by_torch(x, w, None, 2, 16)
    x[7] = float("nan")
    found = route.route(x, w, None, 2)
    others = torch.arange(20) != 7
    assert torch.equal(found.expert_TK[others].long(), expected.expert_TK[others])
    torch.testing.assert_close(found.prob_TK[others], expected.prob_TK[others])
    assert len(set(found.expert_TK[7].tolist()) & set(range(5))) == 2
    assert found.prob_TK[7].isnan().all()
    assert int(found.counts_BP.sum()) == 40
