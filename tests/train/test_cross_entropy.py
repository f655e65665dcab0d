from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from train.kernels import cross_entropy
from train.kernels.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("chunk", [1, 40, 2**20])
def test_loss_and_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch, chunk: int):
    monkeypatch.setitem(cross_entropy._CHUNK_ELEMENTS, "cpu", chunk)
    torch.manual_seed(0)
    hidden, weight = torch.randn(13, 6, requires_grad=True), torch.randn(20, 6, requires_grad=True)
    targets = torch.randint(0, 20, (13,))
    targets[[2, 12]] = -100
    expected = F.cross_entropy(hidden @ weight.t(), targets)
    (3 * expected).backward()
    grads = [hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    loss, nll = linear_cross_entropy(hidden, weight, targets)
    (3 * loss).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close([hidden.grad, weight.grad], grads)
    torch.testing.assert_close(nll, F.cross_entropy(hidden @ weight.t(), targets, reduction="none").detach())


def test_gradcheck():
    torch.manual_seed(1)
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, -100, 3, 3])
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets)[0], (hidden, weight))


def test_nothing_to_score_is_zero():
    hidden = torch.randn(3, 4, requires_grad=True)
    loss, nll = linear_cross_entropy(hidden, torch.randn(5, 4), torch.full((3,), -100))
    loss.backward()
    assert loss == 0
    assert not nll.any()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_no_gradient_is_made_where_none_is_asked_for():
    with torch.no_grad():
        loss, nll = linear_cross_entropy(torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 2]))
    assert not loss.requires_grad
    assert not nll.requires_grad


def test_autocast_computes_in_bfloat16_and_sums_in_float32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 8, requires_grad=True), torch.randn(12, 8, requires_grad=True)
    targets = torch.randint(0, 12, (9,))
    expected = F.cross_entropy(hidden @ weight.t(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.02)
