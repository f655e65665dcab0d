"""Every tile that is shipped, compiled for cards that are not here: what the compiler says of registers, shared memory
and instructions. A process of its own compiles, since Triton interprets kernels in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lola_data.errors import TrainingError

pytest.importorskip("triton", reason="triton is not installed, so no kernel can be compiled")
from train.kernels.fused import aot
from train.kernels.fused.configs import COMPACT, CONFIGS, config_of

ROOT = Path(__file__).parents[3]
PRODUCTS = {"up_fwd", "down_fwd", "down_bwd", "up_bwd", "up_weight_grad", "down_weight_grad"}
INTEGERS = {"count", "scan", "place"}
MIXED = ("bf16", "fp32")
REGISTERS = 65536
"""Of a multiprocessor, in all of these cards."""
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Most bytes for one program: CUDA C++ Programming Guide, technical specifications by compute capability."""
SHARED_OF_OTHERS = 99 * 1024
"""The same of 8.6, 8.9 and 12.0, which take the configuration of 8.0."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All kernels for 8.0 and 9.0, and the largest for 10.0, from an empty cache."""
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    clean["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [
        sys.executable,
        "-m",
        "train.kernels.fused.aot",
        "--arch",
        "80",
        "90",
        "100",
        "--cases",
        "some",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def called(row: dict[str, Any]) -> str:
    return f"{row['kernel']} {row['dtype']} (kept in {row['kept']}) {row['shape']} for {row['arch']}"


def test_every_kernel_compiles_for_both_cards_and_every_type(compiled: list[dict[str, Any]]) -> None:
    made = {(row["arch"], row["kernel"], row["dtype"]) for row in compiled}
    kernels = {*PRODUCTS, "route_fwd", "route_bwd"}
    kinds = ("bf16", "fp16", "fp32")
    assert {(arch, kernel, kind) for arch in (80, 90) for kernel in kernels for kind in kinds} <= made
    assert {(arch, kernel, "bf16") for arch in (80, 90) for kernel in INTEGERS} <= made
    # The most experts that are taken, and widths that no tile divides.
    shapes = {(row["kernel"], row["shape"]) for row in compiled}
    assert {(kernel, str(aot.MANY)) for kernel in ("route_fwd", "route_bwd", *INTEGERS)} <= shapes
    assert {(kernel, str(aot.SMALL)) for kernel in kernels} <= shapes
    # Parameters of float32 under bfloat16, as they are trained, by every kernel that writes a gradient of them: widths
    # that tiles divide, and others; and eight choices a token.
    mixed = {(row["arch"], row["kernel"], row["shape"]) for row in compiled if (row["dtype"], row["kept"]) == MIXED}
    gradients = {kernel.name for kernel in aot.KERNELS if aot.KEPT in kernel.pointers.values()}
    assert gradients == {"up_bwd", "up_weight_grad", "down_weight_grad"}
    for arch in (80, 90):
        assert {(arch, kernel, str(aot.LOLA)) for kernel in gradients} <= mixed
        assert {(arch, kernel, str(aot.SMALL)) for kernel in ("down_bwd", "up_bwd", "down_weight_grad")} <= mixed
        assert (arch, "up_weight_grad", str(aot.MANY)) in mixed
    assert {row["kernel"] for row in compiled if row["arch"] == 100} == {"up_fwd", "down_bwd", "route_bwd"}


def test_no_register_is_spilled_and_a_program_fits_the_card(compiled: list[dict[str, Any]]) -> None:
    for row in compiled:
        assert row["stack"] == 0, called(row)
        assert 0 < row["registers"] <= 255, called(row)
        # They are given out by the warp, in eights for a thread.
        assert row["warps"] * 32 * -(-row["registers"] // 8) * 8 <= REGISTERS, called(row)
        assert row["shared"] <= SHARED[row["arch"]], called(row)
        assert row["arch"] != 80 or row["shared"] <= SHARED_OF_OTHERS, called(row)


def test_products_of_half_precision_are_of_the_tensor_cores(compiled: list[dict[str, Any]]) -> None:
    products = [row for row in compiled if row["kernel"] in PRODUCTS and row["dtype"] != "fp32"]
    assert products
    for row in products:
        if row["arch"] == 100:
            # Of the fifth generation, which have names of their own by type and size.
            assert any(name.startswith("UTC") for name in row["products"]), called(row)
        else:
            assert row["products"]["HGMMA" if row["arch"] == 90 else "HMMA"] > 0, called(row)


def test_products_load_16_bytes_at_a_time_into_shared_memory(compiled: list[dict[str, Any]]) -> None:
    for row in compiled:
        if row["kernel"] in PRODUCTS and row["dtype"] == "bf16" and row["arch"] != 100:
            assert row["copies"] > 0, called(row)
            assert row["narrow_copies"] == 0, called(row)
            assert row["wide_stores"] > 0, called(row)


def test_rows_are_offset_in_64_bits(compiled: list[dict[str, Any]]) -> None:
    for row in compiled:
        assert row["wide_rows"] or row["kernel"] in INTEGERS, called(row)


def test_loads_of_the_next_steps_are_under_way(compiled: list[dict[str, Any]]) -> None:
    """Operands of two steps, at least, lie in shared memory at once, each element of 2 bytes."""
    tiles = {kernel.name: kernel.tile for kernel in aot.KERNELS}
    for row in compiled:
        if row["kernel"] in PRODUCTS and row["dtype"] == "bf16" and row["arch"] != 100:
            tile = tiles[row["kernel"]](config_of(torch.bfloat16, row["arch"]))
            assert tile is not None
            assert row["shared"] >= 2 * 2 * tile.k * (tile.m + tile.n), called(row)


def test_under_the_interpreter_it_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="TRITON_INTERPRET is set, so nothing is compiled; unset it"):
        aot.main(["--arch", "80"])


def test_tables_agree_on_what_a_plan_takes_from_them() -> None:
    """A plan is made for rows of a tile and tokens of a router's program without asking for the card."""
    for dtype, other in COMPACT.items():
        own = CONFIGS[dtype]
        assert other.route.m == own.route.m
        rows = {
            tile.m for config in (own, other) for tile in (config.up, config.down, config.down_grad, config.up_grad)
        }
        assert len(rows) == 1
