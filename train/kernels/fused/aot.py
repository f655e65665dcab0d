"""Compile every kernel ahead of time, for a card that need not be there, and say what the compiler made of it.

    python -m train.kernels.fused.aot --arch 80 90 [--json]

In: nothing but the sources and :mod:`train.kernels.fused.configs`. Out: one line for each kernel, type and shape, with
registers of a thread, bytes of stack (spilled registers), shared memory of a program, and the instructions of its
matrix products and loads. Nothing runs on a device, so nothing here says how fast anything is.

Legend: T tokens, K experts a token is sent to, D model width, F hidden width, E experts.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from lola_data.errors import TrainingError

try:
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
except ImportError:
    MISSING = "triton is not installed, and the fused kernels need it: pip install triton"
    raise (SystemExit(f"error: {MISSING}") if __name__ == "__main__" else TrainingError(MISSING)) from None

from train.kernels.fused import backward, forward, plan, route
from train.kernels.fused.configs import Config, Tile, config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VALUE, WIDE, INT, KEPT = "value", "wide", "int", "kept"
"""What a pointer points to: the type of the activations, that of sums, int32, and that in which parameters and x are
kept: of the activations or, under autocast, float32. Gradients are of it; what is read is made narrower before."""
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
"""Types that are shipped, as Triton calls them."""
PAIRS = (
    *((dtype, dtype) for dtype in NAMES), (torch.bfloat16, torch.float32), (torch.float16, torch.float32),
)  # fmt: skip
"""The type of the activations, and that in which parameters and x are kept."""


@dataclass(frozen=True)
class Shape:
    """Of a layer with experts."""

    D: int
    F: int
    E: int
    K: int

    def __str__(self) -> str:
        return f"D{self.D} F{self.F} E{self.E} K{self.K}"


LOLA = Shape(2048, 8192, 16, 1)
"""The layer of LOLA."""
SMALL = Shape(96, 400, 5, 2)
"""No tile divides it, and a token has two experts."""
MANY = Shape(1024, 512, 64, 8)
"""The most experts that the kernels take."""


@dataclass(frozen=True)
class Kernel:
    """One kernel as it is launched.

    Attributes:
        function: what ``triton.jit`` made.
        pointers: argument to what it points to (:data:`VALUE`, :data:`WIDE`, :data:`INT`, :data:`KEPT`).
        counts: int32 arguments that are not known when it is compiled.
        tile: its tile in a configuration.
        constants: of a shape, a configuration and a type; those of the tile come with it.
        product: whether it is a grouped matrix product.
        warps: of a program, where it has no tile.
    """

    name: str
    function: Any
    pointers: dict[str, str]
    counts: tuple[str, ...]
    tile: Callable[[Config], Tile | None]
    constants: Callable[[Shape, Config, torch.dtype], dict[str, Any]]
    product: bool = False
    warps: int = 4


_SORTED = {"src_ptr": INT, "ends_ptr": INT, "tile_expert_ptr": INT, "tile_row_ptr": INT}


def _widths(shape: Shape, _: Config, dtype: torch.dtype) -> dict[str, Any]:
    return {"D": shape.D, "F": shape.F, "GROUP": forward.GROUP_TILES, **_types(dtype)}


def _widths_and_choices(shape: Shape, config: Config, dtype: torch.dtype) -> dict[str, Any]:
    return {**_widths(shape, config, dtype), "K": shape.K}


def _types(dtype: torch.dtype) -> dict[str, Any]:
    return {"WIDEN": False, "WIDE": route.triton_type(route.wide(dtype))}


def _weight_grad(shape: Shape, dtype: torch.dtype, left_by_token: bool) -> dict[str, Any]:
    return {"K": shape.K, "LEFT_BY_TOKEN": left_by_token, "GROUP": forward.GROUP_TILES, **_types(dtype)}


def _router(shape: Shape, config: Config, dtype: torch.dtype) -> dict[str, Any]:
    sizes = {"D": shape.D, "K": shape.K, "E": shape.E, "P": plan.padded(shape.E)}
    return {**sizes, "M": config.route.m, "BK": config.route.k, "WIDE": route.triton_type(route.wide(dtype))}


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        "route_fwd", route._route_fwd,
        {"x_ptr": VALUE, "w_ptr": WIDE, "bias_ptr": WIDE, "expert_ptr": INT, "prob_ptr": WIDE, "lse_ptr": WIDE,
         "rank_ptr": INT, "counts_ptr": INT, "importance_ptr": WIDE},
        ("T",), lambda config: config.route, lambda *of: {**_router(*of), "BIASED": True},
    ),
    Kernel(
        "route_bwd", route._route_bwd,
        {"x_ptr": VALUE, "w_ptr": WIDE, "expert_ptr": INT, "prob_ptr": WIDE, "lse_ptr": WIDE, "prob_grad_ptr": WIDE,
         "importance_grad_ptr": WIDE, "z_grad_ptr": WIDE, "x_grad_ptr": VALUE, "w_grad_ptr": WIDE},
        ("T",), lambda config: config.route, _router,
    ),
    Kernel(
        "count", plan._count, {"expert_ptr": INT, "rank_ptr": INT, "counts_ptr": INT}, ("C",), lambda config: None,
        lambda shape, *_: {"E": shape.E, "P": plan.padded(shape.E), "BLOCK": plan.COUNT_CHOICES},
        warps=plan.COUNT_WARPS,
    ),
    Kernel(
        "scan", plan._scan,
        {"counts_ptr": INT, "base_ptr": INT, "ends_ptr": INT, "tile_expert_ptr": INT, "tile_row_ptr": INT}, ("B", "N"),
        lambda config: None,
        lambda shape, config, _: {"E": shape.E, "P": plan.padded(shape.E), "M": config.up.m,
                                  "BLOCKS": plan.SCAN_BLOCKS, "TILES": plan.SCAN_TILES},
        warps=plan.SCAN_WARPS,
    ),
    Kernel(
        "place", plan._place, {"expert_ptr": INT, "rank_ptr": INT, "base_ptr": INT, "src_ptr": INT}, ("C",),
        lambda config: None,
        lambda shape, config, _: {"E": shape.E, "P": plan.padded(shape.E), "BLOCK": config.route.m * shape.K},
    ),
    Kernel(
        "up_fwd", forward._up_fwd,
        {"x_ptr": VALUE, "w_ptr": VALUE, "b_ptr": VALUE, "z_ptr": VALUE, "h_ptr": VALUE, **_SORTED}, ("N",),
        lambda config: config.up, _widths_and_choices, True,
    ),
    Kernel(
        "down_fwd", forward._down_fwd,
        {"h_ptr": VALUE, "w_ptr": VALUE, "b_ptr": VALUE, "prob_ptr": WIDE, "y_ptr": VALUE, **_SORTED}, ("N",),
        lambda config: config.down, _widths, True,
    ),
    Kernel(
        "down_bwd", backward._down_bwd,
        {"g_ptr": VALUE, "w_ptr": VALUE, "b_ptr": VALUE, "prob_ptr": WIDE, "z_ptr": VALUE, "dz_ptr": VALUE,
         "hp_ptr": VALUE, "dp_ptr": WIDE, **_SORTED}, ("N",),
        lambda config: config.down_grad, _widths_and_choices, True,
    ),
    Kernel(
        "up_bwd", backward._up_bwd, {"dz_ptr": VALUE, "w_ptr": VALUE, "dx_ptr": KEPT, **_SORTED}, ("N",),
        lambda config: config.up_grad, _widths, True,
    ),
    *(
        Kernel(
            name, backward._weight_grad,
            {"left_ptr": VALUE, "right_ptr": VALUE, "prob_ptr": WIDE, "dw_ptr": KEPT, "db_ptr": KEPT,
             "src_ptr": INT, "ends_ptr": INT},
            (), lambda config: config.weight_grad, sizes, True,
        )
        for name, sizes in (
            ("up_weight_grad", lambda shape, _, dtype: {
                "U": shape.D, "V": shape.F, **_weight_grad(shape, dtype, True)}),
            ("down_weight_grad", lambda shape, _, dtype: {
                "U": shape.F, "V": shape.D, **_weight_grad(shape, dtype, False)}),
        )
    ),
)  # fmt: skip
"""All that is shipped; the arguments of each are written down here and nowhere else."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel.

    Attributes:
        kernel, dtype, kept, shape, arch: which; ``kept`` is the type of parameters and x.
        warps, stages: of its configuration.
        registers: of a thread.
        stack: bytes of a thread; above zero, registers are spilled.
        shared: bytes of a program.
        products: matrix instructions of the tensor cores by name: HGMMA (9.x), HMMA (before), UTC...MMA (10.x).
        copies: copies from global to shared memory of 16 bytes at a time, or by the copy engine.
        narrow_copies: the same of fewer bytes.
        wide_loads: loads of global memory of 16 bytes at a time.
        narrow_loads: the same of fewer bytes.
        wide_stores: stores to global memory of 16 bytes at a time.
        narrow_stores: the same of fewer bytes.
        wide_rows: whether rows are offset in 64 bits: an int32 made int64, and a product of int64.
    """

    kernel: str
    dtype: str
    kept: str
    shape: str
    arch: int
    warps: int
    stages: int
    registers: int
    stack: int
    shared: int
    products: dict[str, int]
    copies: int
    narrow_copies: int
    wide_loads: int
    narrow_loads: int
    wide_stores: int
    narrow_stores: int
    wide_rows: bool


def compile_kernel(kernel: Kernel, shape: Shape, dtype: torch.dtype, kept: torch.dtype, arch: int) -> Compiled:
    """Compile a kernel in the configuration that is shipped for ``dtype`` and ``arch``.

    Args:
        kernel: one of :data:`KERNELS`.
        shape: of the layer.
        dtype: of the activations, one of :data:`NAMES`.
        kept: of parameters and x; the same, or float32.
        arch: compute capability without the point, e.g. 90.

    Raises:
        Exception: whatever the compiler says.
    """
    config = config_of(dtype, arch)
    tile = kernel.tile(config)
    constants = kernel.constants(shape, config, dtype)
    options = {"num_warps": kernel.warps}
    if tile is not None:
        options = {"num_warps": tile.warps, "num_stages": tile.stages}
        if kernel.product:
            constants |= {name: value for name, value in forward.launch_options(tile).items() if name not in options}
    types = {VALUE: dtype, WIDE: route.wide(dtype), KEPT: kept}
    types = {INT: "*i32"} | {what: f"*{NAMES[kind]}" for what, kind in types.items()}
    names = kernel.function.arg_names
    signature = {name: types[kernel.pointers[name]] if name in kernel.pointers else "constexpr" for name in names}
    signature |= dict.fromkeys(kernel.counts, "i32")
    # What torch allocates begins at a multiple of 16 bytes; Triton finds that out at a launch.
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in kernel.pointers}
    source = ASTSource(kernel.function, signature, constants, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    listing = _listing(made.asm["cubin"])
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK):(\d+)", listing)}
    operations = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)", listing)
    widths = Counter((operation.split(".")[0], "128" in operation) for operation in operations)
    ttir = made.asm["ttir"]
    return Compiled(
        kernel.name,
        NAMES[dtype],
        NAMES[kept],
        str(shape),
        arch,
        made.metadata.num_warps,
        made.metadata.num_stages,
        usage["REG"],
        usage["STACK"],
        made.metadata.shared,
        dict(Counter(found[0] for name in operations if (found := re.match(r"HGMMA|HMMA|UTC\w*MMA", name)))),
        widths["LDGSTS", True] + widths["UTMALDG", False],
        widths["LDGSTS", False],
        widths["LDG", True],
        widths["LDG", False],
        widths["STG", True] + widths["UTMASTG", False],
        widths["STG", False],
        bool(re.search(r"arith\.extsi .*: \S*i32\S* to \S*i64", ttir) and re.search(r"arith\.muli .*i64", ttir)),
    )


def _listing(cubin: bytes) -> str:
    """What cuobjdump says of the registers and instructions of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shipped(cases: str, arch: int) -> Iterator[tuple[Kernel, Shape, torch.dtype, torch.dtype]]:
    """What to compile: kernel, shape, type of the activations, type of parameters and x.

    Args:
        cases: ``all``: every kernel in every type and shape; or ``some``: every kernel in every type once, and the
            shapes that need most registers and shared memory; from 10.0 on, the kernels that need most of them.
        arch: compute capability without the point.
    """
    names = {kernel.name for kernel in KERNELS}
    single = torch.float32
    if cases == "all":
        wanted = [(shape, dtype, kept, names) for shape in (LOLA, SMALL, MANY) for dtype, kept in PAIRS]
    elif arch < 100:
        wanted = [
            # As the trainer runs them: parameters of float32 under autocast. Others are of one type throughout.
            (LOLA, torch.bfloat16, single, names),
            (SMALL, torch.float16, torch.float16, names),
            (SMALL, single, single, names),
            # Where registers and shared memory hang on the number of experts.
            (MANY, single, single, {"route_fwd", "route_bwd", "count", "scan", "place"}),
            # Masked widths, whose registers are other ones in bfloat16 with gradients of float32.
            (SMALL, torch.bfloat16, single, {"down_bwd", "up_bwd", "down_weight_grad"}),
            # Eight choices a token.
            (MANY, torch.bfloat16, single, {"up_weight_grad"}),
        ]
    else:
        wanted = [(LOLA, torch.bfloat16, single, {"up_fwd", "down_bwd", "route_bwd"})]
    seen: set[tuple[str, Shape, torch.dtype | None, torch.dtype | None]] = set()
    for shape, dtype, kept, some in wanted:
        for kernel in KERNELS:
            if kernel.name not in some:
                continue
            # Of integers alone, the type of the activations changes nothing; without gradients, that of parameters.
            integers = kernel.tile(config_of(dtype)) is None
            other = kept if KEPT in kernel.pointers.values() else None
            which = (kernel.name, shape, None if integers else dtype, other)
            if which not in seen:
                seen.add(which)
                yield kernel, shape, dtype, kept


def table(rows: list[Compiled]) -> str:
    """For people; what has two numbers is of 16 bytes, and of fewer."""
    head = (
        "arch", "kernel", "type", "kept", "shape", "warps", "stages", "registers", "stack", "shared", "products",
        "copies",
        "loads", "stores", "64-bit rows",
    )  # fmt: skip
    lines = [head] + [
        (
            row.arch, row.kernel, row.dtype, row.kept, row.shape, row.warps, row.stages, row.registers, row.stack,
            row.shared,
            " ".join(f"{count} {name}" for name, count in row.products.items()) or "-",
            f"{row.copies} {row.narrow_copies}", f"{row.wide_loads} {row.narrow_loads}",
            f"{row.wide_stores} {row.narrow_stores}", "yes" if row.wide_rows else "no",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(str(cell).ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 if a kernel spills registers."""
    parser = argparse.ArgumentParser(
        prog="python -m train.kernels.fused.aot", description="Compile every fused kernel ahead of time."
    )
    parser.add_argument(
        "--arch", type=int, nargs="+", default=[90], help="compute capabilities without the point (default: 90)"
    )
    parser.add_argument("--cases", choices=("all", "some"), default="all", help="types and shapes (default: all)")
    parser.add_argument("--kernel", help="this kernel alone")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line rather than a table")
    asked = parser.parse_args(arguments)
    if not isinstance(plan._scan, triton.JITFunction):
        raise TrainingError("TRITON_INTERPRET is set, so nothing is compiled; unset it")
    rows = [
        compile_kernel(kernel, shape, dtype, kept, arch)
        for arch in asked.arch
        for kernel, shape, dtype, kept in shipped(asked.cases, arch)
        if asked.kernel in (None, kernel.name)
    ]
    if asked.json:
        print("\n".join(json.dumps(asdict(row)) for row in rows))
    else:
        print(table(rows))
    return int(any(row.stack for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TrainingError as error:
        sys.exit(f"error: {error}")
