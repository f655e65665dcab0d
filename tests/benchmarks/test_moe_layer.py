"""The benchmark of an MoE layer: what it computes, by hand; einsum dispatch against the loop; the command on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.device_clock import GEMM, kept_bytes
from benchmarks.moe_contenders import LOADS, Contender, Shape, by_backend, einsum_dispatch, load_of, make_layer, route
from benchmarks.moe_layer import (
    NAME,
    Rates,
    Row,
    floor_seconds,
    goals,
    largest_error,
    not_measured,
    outputs,
    worst_row,
    write_results,
)
from benchmarks.summary import MET, MISSED, read_entries

ROOT = Path(__file__).resolve().parents[2]
SMALL = Shape(tokens=24, width=8, hidden=12, experts=4)
LOLA_16K = Shape(16_384, 2048, 8192, 16)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_floor_of_lolas_shape_by_hand():
    # 12 * 16,384 * 2,048 * 8,192 = 3.2985e12 FLOP: 4.175 ms at 790 TFLOP/s, 3.335 ms at 989; a third of it forward.
    for flops, expected in ((790e12, 4.1753e-3), (989e12, 3.3352e-3)):
        forward, both = floor_seconds(LOLA_16K, 2, Rates(flops, float("inf")))
        assert both == pytest.approx(expected, rel=1e-4)
        assert forward == pytest.approx(expected / 3, rel=1e-4)
    # x is 16,384 * 2,048 * 2 = 67.1 MB, 22.4 us at 3 TB/s; read once forward, four passes of its size in all.
    forward, both = floor_seconds(LOLA_16K, 2, Rates(float("inf"), 3e12))
    assert forward == pytest.approx(22.37e-6, rel=1e-3)
    assert both == pytest.approx(89.48e-6, rel=1e-3)


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize(("tokens", "experts"), [(16_384, 16), (4096, 16), (7, 4), (1, 4), (5, 2)])
def test_loads_hold_every_token(kind: str, tokens: int, experts: int):
    counts = load_of(kind, tokens, experts)
    assert len(counts) == experts
    assert sum(counts) == tokens
    assert min(counts) >= 0


def test_loads_by_hand():
    assert load_of("balanced", 10, 4) == [3, 3, 2, 2]
    # 25 by 1 : 1/2 : 1/3 : 1/4 is 12, 6, 4, 3.
    assert load_of("zipf", 25, 4) == [12, 6, 4, 3]
    assert load_of("one empty", 9, 4) == [3, 3, 0, 3]
    assert load_of("one empty", 16_384, 16).count(0) == 1


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_router_of_a_layer_sends_the_load(kind: str, dtype: torch.dtype):
    shape = Shape(200, 32, 16, 8)
    counts = load_of(kind, shape.tokens, shape.experts)
    _, expert_T1 = route(make_layer(shape, counts, dtype, "cpu"))
    assert torch.bincount(expert_T1[:, 0], minlength=8).tolist() == counts


@pytest.mark.parametrize("kind", LOADS)
def test_einsum_dispatch_is_the_loop(kind: str):
    counts = load_of(kind, SMALL.tokens, SMALL.experts)
    layer = make_layer(SMALL, counts, torch.float64, "cpu")
    grad = torch.randn(SMALL.tokens, SMALL.width, dtype=torch.float64)
    found = outputs(layer, partial(einsum_dispatch, capacity=max(counts)), grad)
    truth = outputs(layer, partial(by_backend, backend="reference"), grad)
    assert len(found) == 7
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_einsum_dispatch_drops_what_is_beyond_capacity():
    layer = make_layer(SMALL, [13, 6, 5, 0], torch.float64, "cpu")
    _, expert_T1 = route(layer)
    kept = einsum_dispatch(layer, capacity=6)
    whole = by_backend(layer, "reference")
    late = (expert_T1[:, 0] == 0).nonzero()[6:, 0]
    assert len(late) == 7
    assert not kept[late].any()
    rest = torch.ones(SMALL.tokens, dtype=torch.bool).index_fill_(0, late, False)
    torch.testing.assert_close(kept[rest], whole[rest], rtol=1e-10, atol=1e-12)


def test_one_wrong_row_is_seen():
    # One of 10,000 rows is doubled. Over all rows it would be an error of 1 %.
    truth = torch.ones(10_000, 4)
    found = truth.clone()
    found[77] *= 2
    assert worst_row(found, truth) == pytest.approx(1.0)
    found[3, 2] = float("nan")
    assert not worst_row(found, truth) <= 1.0


def test_a_wrong_contender_is_seen_in_outputs_and_in_gradients():
    layer = make_layer(SMALL, [6, 6, 6, 6], torch.float32, "cpu")
    grad = torch.randn(SMALL.tokens, SMALL.width)

    def loop(layer):
        return by_backend(layer, "reference")

    def no_gradient_of_the_router(layer):
        return by_backend(layer._replace(w_router_ED=layer.w_router_ED.detach()), "reference")

    def no_bias(layer):
        return by_backend(layer._replace(b_down_ED=layer.b_down_ED * 0), "reference")

    assert largest_error(layer, Contender("", loop), grad) < 1e-5
    assert largest_error(layer, Contender("", no_gradient_of_the_router), grad) == pytest.approx(1.0, abs=0.9)
    assert largest_error(layer, Contender("", no_bias), grad) > 1e-2
    assert largest_error(layer, Contender("", no_bias, biases=False), grad) < 1e-5


def test_kept_bytes_by_hand():
    x, w = torch.randn(10, 4, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    # exp keeps its output, [10, 6] in float32; the product keeps x and w, which are known.
    assert kept_bytes(lambda: (x @ w).exp(), (x, w)) == 240
    assert kept_bytes(lambda: (x @ w).exp(), (w,)) == 240 + 160


def test_kernels_that_are_products_are_told_apart():
    products = (
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopB_NNT", "_up_fwd", "_down_bwd", "_weight_grad",
        "ampere_bf16_s16816gemm_bf16", "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal>",
    )  # fmt: skip
    others = (
        "_route_fwd",
        "_route_bwd",
        "_scan",
        "_place",
        "_count",
        "Memset (Device)",
        "elementwise_kernel",
        "softmax",
    )
    assert all(GEMM.search(name) for name in products)
    assert not any(GEMM.search(name) for name in others)


def fused_row(load: str, both: float) -> Row:
    return Row(16_384, load, "fused", "measured", both=both, kept=269_000_000, outside=0.3e-3)


def test_goals_by_hand():
    rows = [fused_row("balanced", 5e-3), fused_row("zipf", 5.4e-3), fused_row("one empty", 5.1e-3)]
    found = goals(rows, {16_384: (1.4e-3, 4e-3)}, lola=True)
    assert [entry.measured for entry in found] == ["1.25x", "1.08x", "0.300 ms", "269 MB"]
    assert [entry.verdict for entry in found] == [MET, MET, MISSED, MET]
    assert goals(rows, {16_384: (1.4e-3, 4e-3)}, lola=False) == []


def test_results_say_not_measured_and_never_lose_what_was(tmp_path: Path):
    path = tmp_path / "RESULTS.md"
    write_results(path, not_measured(), measured=False)
    assert {entry.verdict for entry in read_entries(path.read_text("utf-8"))} == {"not measured"}
    assert "\nNot measured: no GPU" in path.read_text("utf-8")
    write_results(path, f"## {NAME}: a layer\n\n- a card\n", measured=True)
    measured = path.read_text("utf-8")
    assert "Not measured" not in measured
    write_results(path, not_measured(), measured=False)
    assert path.read_text("utf-8") == measured


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.moe_layer", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip


def test_without_a_gpu_it_says_how_to_try_it_small():
    done = command()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--device cpu" in done.stderr


def test_on_a_cpu_all_of_ours_are_right(tmp_path: Path):
    sizes = ("--tokens", "20", "--d-model", "16", "--hidden", "32", "--experts", "2", "--runs", "1")
    done = command("--device", "cpu", *sizes, "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    statuses = {(row["load"], row["name"]): row["status"] for row in found["rows"]}
    for load in LOADS:
        for name in ("reference", "grouped", "einsum dispatch"):
            assert statuses[load, name] == "measured"
        assert statuses[load, "fused"] in ("interpreter, no timing", "not run")
    assert all(row["error"] < 1e-5 for row in found["rows"] if row["status"] == "measured")
    assert "| zipf " in done.stdout
