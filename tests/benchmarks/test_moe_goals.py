"""The benchmark of an MoE layer: goals that were not measured, rows that drop, rows that the memory does not hold, and
the layer as it is trained."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from benchmarks import moe_contenders, moe_layer
from benchmarks.device_clock import DeviceClock, kept_bytes
from benchmarks.moe_contenders import (
    AUTOCAST,
    LOADS,
    Contender,
    Shape,
    by_backend,
    contenders,
    einsum_dispatch,
    load_of,
    make_layer,
    trained,
)
from benchmarks.moe_layer import FAILED, NO_MEMORY, WRONG, Row, goals, largest_error, measure_load, stretch
from benchmarks.summary import MET, MISSED
from train.moe import expert_capacity

FLOORS = {16_384: (1.4e-3, 4e-3)}
SMALL = Shape(tokens=40, width=16, hidden=32, experts=4)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def row(load: str, both: float | None, status: str = "measured") -> Row:
    return Row(16_384, load, "fused", status, both=both, kept=269_000_000, outside=0.2e-3)


@pytest.mark.parametrize(
    ("rows", "measured", "verdicts"),
    [
        # All loads, 4.4 ms by a floor of 4 ms.
        ([row("balanced", 4.4e-3), row("zipf", 4.8e-3), row("one empty", 4.4e-3)], "1.09x", MET),
        ([row("balanced", 4.4e-3), row("zipf", 4.8e-3), row("one empty", 5e-3)], "1.14x", MISSED),
        # One of the skewed loads failed: nothing is known of the worst.
        ([row("balanced", 4.4e-3), row("zipf", 4.5e-3), row("one empty", None, "failed")], "", "not measured"),
        ([row("balanced", 4.4e-3), row("zipf", None, "out of memory"), row("one empty", 4.4e-3)], "", "not measured"),
        ([row("balanced", 4.4e-3)], "", "not measured"),
        # Unless another is beyond the goal already.
        ([row("balanced", 4.4e-3), row("zipf", 5e-3), row("one empty", None, "wrong")], "1.14x", MISSED),
    ],
)
def test_the_goal_of_skewed_loads_takes_all_of_them(rows: list[Row], measured: str, verdicts: str):
    found = goals(rows, FLOORS, lola=True)
    assert [entry.verdict for entry in found if "worst other load" not in entry.against] == [MET] * 3
    (skew,) = [entry for entry in found if "worst other load" in entry.against]
    assert (skew.measured, skew.verdict) == (measured, verdicts)


def test_without_the_balanced_load_no_goal_is_measured():
    for rows in ([row("zipf", 5e-3)], [row("balanced", None, "failed"), row("zipf", 5e-3)], []):
        assert [(entry.measured, entry.verdict) for entry in goals(rows, FLOORS, lola=True)] == [
            ("", "not measured")
        ] * 4
        assert stretch(rows, FLOORS, lola=True).endswith("at most 1.2x of the floor: not measured")
    assert goals([], {4096: (1.0, 1.0)}, lola=True) == []


@pytest.mark.parametrize(("both", "verdict"), [(4.79e-3, "met"), (4.81e-3, "not met")])
def test_the_stretch_goal_is_a_fifth_above_the_floor(both: float, verdict: str):
    assert stretch([row("balanced", both)], FLOORS, lola=True).endswith(f": {verdict}")
    assert stretch([row("balanced", both)], FLOORS, lola=False) == ""


@pytest.mark.parametrize("load", LOADS)
def test_the_row_of_einsum_drops_as_lola_did_and_says_so(load: str):
    counts = load_of(load, SMALL.tokens, SMALL.experts)
    layer = make_layer(SMALL, counts, torch.float32, "cpu")
    rows = {contender.name: contender for contender in contenders(layer, counts)}
    found = rows["einsum dispatch"]
    # Capacity factor 1.0: as many as an even share.
    assert found.capacity == 10 == expert_capacity(40, 4, 1.0, 4)
    dropped = sum(max(0, count - 10) for count in counts)
    assert f"{dropped} of 40 dropped" in found.note
    y = found.forward(layer)
    assert int((y == 0).all(1).sum()) == dropped
    # What drops as it does is what it is held against.
    grad = torch.randn(SMALL.tokens, SMALL.width, generator=torch.Generator().manual_seed(0))
    assert largest_error(layer, found, grad) < 1e-5
    if dropped:
        assert largest_error(layer, found._replace(capacity=None), grad) > 0.1
    assert rows["einsum, dropless"].capacity is None
    assert largest_error(layer, rows["einsum, dropless"], grad) < 1e-5


def test_what_drops_is_the_loop_that_drops():
    layer = make_layer(SMALL, [25, 5, 6, 4], torch.float64, "cpu")
    loop = by_backend(layer, "reference", capacity=10)
    torch.testing.assert_close(einsum_dispatch(layer, 10), loop, rtol=1e-10, atol=1e-12)
    assert int((loop == 0).all(1).sum()) == 15


@pytest.mark.parametrize(
    ("ours", "written_here", "error", "status", "fault"),
    [
        (False, True, torch.OutOfMemoryError("CUDA out of memory"), NO_MEMORY, False),
        (False, False, torch.OutOfMemoryError("CUDA out of memory"), NO_MEMORY, False),
        (False, False, RuntimeError("a peer"), FAILED, False),
        (False, True, None, WRONG, True),
        (False, False, None, WRONG, False),
        (True, True, torch.OutOfMemoryError("CUDA out of memory"), NO_MEMORY, True),
        (True, True, RuntimeError("ours"), FAILED, True),
        (True, True, None, WRONG, True),
    ],
)
def test_what_makes_the_command_fail(
    ours: bool, written_here: bool, error: Exception | None, status: str, fault: bool, monkeypatch: pytest.MonkeyPatch
):
    """``error`` None: the numbers are wrong."""

    def forward(layer: moe_contenders.Layer) -> torch.Tensor:
        if error is not None:
            raise error
        return by_backend(layer, "reference") * 2

    one = Contender("one", forward, ours=ours, written_here=written_here)
    monkeypatch.setattr(moe_contenders, "contenders", lambda *_: [one])
    layer = make_layer(SMALL, [10] * 4, torch.float32, "cpu")
    (found,) = measure_load(layer, [10] * 4, "balanced", DeviceClock("cpu"), 1, lambda _: None)
    assert (found.status, found.at_fault) == (status, fault)


def test_the_row_under_autocast_is_the_layer_as_it_is_trained():
    pytest.importorskip("triton")
    counts = load_of("zipf", SMALL.tokens, SMALL.experts)
    layer = make_layer(SMALL, counts, torch.bfloat16, "cpu")
    rows = {contender.name: contender for contender in contenders(layer, counts)}
    found, plain = rows[AUTOCAST], rows["fused"]
    assert found.absent is None
    assert found.kept == torch.float32
    own = layer.to(torch.float32)
    y = found.forward(own)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, plain.forward(layer), rtol=2e-2, atol=2e-2)
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(y.float().sum(), list(own)))
    # z, maps, the load that the balance loss multiplies: no copy of x or of a parameter.
    z = 2 * SMALL.tokens * SMALL.hidden
    assert z < kept_bytes(partial(found.forward, own), own) < z + 24 * SMALL.tokens + 1024
    assert contenders(make_layer(SMALL, counts, torch.float32, "cpu"), counts)[3].absent == "no autocast to float32"


def test_trained_is_the_loop_in_float32():
    pytest.importorskip("triton")
    layer = make_layer(SMALL, [10] * 4, torch.bfloat16, "cpu").to(torch.float32)
    grad = torch.randn(SMALL.tokens, SMALL.width, generator=torch.Generator().manual_seed(0))
    under = Contender("", partial(trained, dtype=torch.bfloat16), kept=torch.float32)
    # The interpreter cuts bfloat16 off, so errors are three times those of a card.
    assert largest_error(layer, under, grad) < 3 * moe_layer.TOLERANCE["bfloat16"]
