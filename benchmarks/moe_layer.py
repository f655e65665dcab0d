"""The command ``python -m benchmarks.moe_layer``: one MoE layer, every way to compute it, beside what the card allows.

The floor of a layer, in seconds, for T tokens, widths D and F, one expert a token, b bytes an element:

    forward               4 T D F / P  +     b T D / B
    forward + backward   12 T D F / P  + 4 * b T D / B

P is what a dense product of 8192 x 8192 x 8192 in the same type reaches, B what a copy of device memory moves (bytes
read and written), both measured in this run. 2 T D F is the work of each grouped product: two forward, four backward.
The second term is the router, which reads x once forward; backward it reads x, and reads and writes the gradient of x.
What has to be read and written around the products takes less time than they do once a few hundred tokens reach each
expert, so it adds nothing: a floor, not an estimate.

All contenders are compared with the plain loop in a wider type before anything is timed, outputs and gradients, by the
worst row: ||row - row of the truth|| by the root mean square of the truth's row norms.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import report
from benchmarks.machine import this_machine, versions
from benchmarks.section import SECTIONS
from benchmarks.stages import MODULES
from benchmarks.summary import MET, MISSED, Entry, comment
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from benchmarks.device_clock import DeviceClock
    from benchmarks.moe_contenders import Contender, Layer, Shape

NAME = "moe-layer"
RESULTS = Path(__file__).with_name("RESULTS.md")
COMMAND = "python -m benchmarks.moe_layer --results benchmarks/RESULTS.md"
TINY = "python -m benchmarks.moe_layer --device cpu"
TOLERANCE = {"bfloat16": 2e-2, "float16": 4e-3, "float32": 1e-4}
"""Worst row, see the module. Of bfloat16 a step is 2^-8 = 4e-3, and a value is rounded some times on its way."""
LOLA = (2048, 8192, 16)
RATIO_GOAL, STRETCH_GOAL, SKEW_GOAL, OTHER_GOAL, KEPT_GOAL = 1.35, 1.20, 1.10, 0.25e-3, 300e6
GOALS = (
    ("floor, forward + backward", f"at most {RATIO_GOAL}x"),
    ("balanced load, the worst other load", f"at most {SKEW_GOAL:.2f}x"),
    ("time outside of GEMMs", "at most 0.25 ms"),
    ("activations of a layer", "at most 300 MB"),
)
"""Of the fused kernels, for LOLA's shape in bfloat16 and 16,384 tokens; in words."""
WRONG, FAILED, NO_MEMORY, UNKNOWN = "wrong", "failed", "out of memory", "not measured"
NO_TIMING = "interpreter, no timing"
PACKAGES = ("torch", "triton", "scattermoe", "megablocks", "grouped_gemm")


@dataclass(frozen=True)
class Rates:
    """Of the device: ``flops`` of the dense product, ``bandwidth`` of the copy, each a second."""

    flops: float
    bandwidth: float


@dataclass
class Row:
    """One contender at one load.

    Attributes:
        status: measured, wrong, failed, out of memory, not run, or "interpreter, no timing".
        error: worst row over outputs and gradients.
        forward, both: seconds of a forward pass, and of one with its backward pass.
        kept: bytes kept for the backward pass, beside x and the parameters.
        peak: bytes allocated at most over both passes, gradients included.
        outside: seconds of both passes in kernels that are no matrix products.
    """

    tokens: int
    load: str
    name: str
    status: str
    note: str = ""
    error: float | None = None
    forward: float | None = None
    both: float | None = None
    kept: int | None = None
    peak: int | None = None
    outside: float | None = None
    ours: bool = False
    written_here: bool = False

    @property
    def at_fault(self) -> bool:
        """Whether the command has to fail: wrong numbers of what is written here, or one of our own ways that cannot
        run. A peer that fails, or that the device's memory does not hold, is a row of the table and no fault."""
        return (self.written_here and self.status == WRONG) or (self.ours and self.status in (FAILED, NO_MEMORY))


def floor_seconds(shape: Shape, element: int, rates: Rates) -> tuple[float, float]:
    """Of a forward pass, and of one with its backward pass; ``element``: bytes of one."""
    product = 2 * shape.tokens * shape.width * shape.hidden / rates.flops
    pass_over_x = element * shape.tokens * shape.width / rates.bandwidth
    return 2 * product + pass_over_x, 6 * product + 4 * pass_over_x


def outputs(layer: Layer, forward: Callable[[Layer], Tensor], grad_TD: Tensor) -> list[Tensor]:
    """y and the gradients of all leaves."""
    import torch

    y_TD = forward(layer)
    # A contender without biases has none for them.
    return [y_TD.detach(), *torch.autograd.grad(y_TD, list(layer), grad_TD.to(y_TD.dtype), materialize_grads=True)]


def worst_row(found: Tensor, truth: Tensor) -> float:
    """Of one tensor; nan if anything in it is not finite."""
    truth = truth.detach()
    gap = (found.detach().to(truth.dtype) - truth).flatten(0, -2).norm(dim=1).max()
    size = truth.flatten(0, -2).norm(dim=1).square().mean().sqrt()
    return float(gap / size)


def largest_error(layer: Layer, contender: Contender, grad_TD: Tensor) -> float:
    """Of outputs and gradients against the loop in the next wider type, which drops what the contender drops. Raises
    what the contender raises."""
    import torch

    from benchmarks.moe_contenders import by_backend

    # What is kept in float32 for products of fewer bits has the errors of these.
    exact = layer.x_TD.dtype == torch.float32 and contender.kept is None
    wide = torch.float64 if exact else torch.float32
    if not contender.biases:
        layer = layer.to(layer.x_TD.dtype, biases=False)._replace(w_router_ED=layer.w_router_ED)
    loop = partial(by_backend, backend="reference", capacity=contender.capacity)
    truth = outputs(layer.to(wide), loop, grad_TD.to(wide))
    found = outputs(layer, contender.forward, grad_TD)
    pairs = [
        pair for name, *pair in zip(("y_TD", *layer._fields), found, truth, strict=True)
        if contender.biases or not name.startswith("b_")
    ]  # fmt: skip
    errors = [worst_row(one, other) for one, other in pairs]
    # max() would lose a nan that is not the first.
    return max(errors) if all(error == error for error in errors) else float("nan")


def measure_load(
    layer: Layer, counts: Sequence[int], load: str, clock: DeviceClock, runs: int, say: Callable[[str], None]
) -> list[Row]:
    """All contenders on one layer: compared, then timed in turns."""
    import torch

    from benchmarks.device_clock import kept_bytes
    from benchmarks.moe_contenders import AUTOCAST, contenders

    tokens = layer.x_TD.shape[0]
    grad_TD = torch.randn(
        layer.x_TD.shape, generator=torch.Generator(clock.device).manual_seed(1), device=clock.device
    ).to(layer.x_TD.dtype)
    tolerance = TOLERANCE[str(layer.x_TD.dtype).removeprefix("torch.")]
    rows, works = [], {}
    for contender in contenders(layer, counts):
        row = Row(
            tokens, load, contender.name, "measured", contender.note, ours=contender.ours,
            written_here=contender.written_here,
        )  # fmt: skip
        rows.append(row)
        if contender.absent is not None:
            row.status, row.note = "not run", contender.absent
            continue
        say(f"{tokens:,} tokens, {load}: {contender.name}")
        try:
            own = layer if contender.kept is None else layer.to(contender.kept)
            forward = partial(contender.forward, own)

            def both(forward: Callable[[], Tensor] = forward, own: Layer = own) -> object:
                y_TD = forward()
                return torch.autograd.grad(y_TD, list(own), grad_TD.to(y_TD.dtype), allow_unused=True)

            row.error = largest_error(own, contender, grad_TD)
            interpreted = contender.name in ("fused", AUTOCAST) and not clock.cuda
            # The interpreter cuts bfloat16 off where a card rounds: errors of all steps have one sign, and add up.
            if not row.error <= tolerance * (3 if interpreted and layer.x_TD.dtype == torch.bfloat16 else 1):
                row.status = WRONG
                continue
            row.kept = kept_bytes(forward, own)
            row.peak = clock.peak_bytes(both)
            row.outside = clock.outside_gemms(both)
        except Exception as error:  # whatever a package of others or the device's memory comes up with
            row.status = NO_MEMORY if isinstance(error, torch.OutOfMemoryError) else FAILED
            row.note = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            continue
        if interpreted:
            row.status = NO_TIMING
            continue
        works |= {f"{row.name} forward": forward, f"{row.name} both": both}
    medians = clock.medians(works, runs)
    for row in rows:
        row.forward, row.both = medians.get(f"{row.name} forward"), medians.get(f"{row.name} both")
    return rows


def table(rows: Sequence[Row], floors: tuple[float, float]) -> str:
    """Of one number of tokens, in Markdown."""

    def shown(value: float | None, factor: float, digits: int) -> str:
        return "" if value is None else f"{value * factor:,.{digits}f}"

    lines = [
        ["load", "contender", "forward ms", "x floor", "fwd + bwd ms", "x floor", "kept MB", "peak MB", "no GEMM ms",
         "worst row", ""],
    ]  # fmt: skip
    for row in rows:
        remark = row.note if row.status == "measured" else "; ".join(part for part in (row.status, row.note) if part)
        lines.append(
            [
                row.load,
                row.name,
                shown(row.forward, 1e3, 3),
                shown(row.forward, 1 / floors[0], 2),
                shown(row.both, 1e3, 3),
                shown(row.both, 1 / floors[1], 2),
                shown(row.kept, 1e-6, 1 if (row.kept or 0) > 1e6 else 3),
                shown(row.peak, 1e-6, 1),
                shown(row.outside, 1e3, 3),
                "" if row.error is None else f"{row.error:.1e}",
                remark,
            ]
        )
    return markdown_table(lines)


def goals(rows: Sequence[Row], floors: dict[int, tuple[float, float]], lola: bool) -> list[Entry]:
    """The goals of the fused kernels, which are set for LOLA's shape in bfloat16 and 16,384 tokens; nothing for others.
    What takes a row that was not measured is not measured: of loads that are skewed, all have to be."""
    from benchmarks.moe_contenders import LOADS

    if not lola or 16_384 not in floors:
        return []
    found = {row.load: row for row in rows if row.name == "fused" and row.tokens == 16_384 and row.status == "measured"}
    ratio = even = outside = kept = skew = None
    if (balanced := found.get("balanced")) is not None:
        even, outside, kept = balanced.both, balanced.outside, balanced.kept
        ratio = None if even is None else even / floors[16_384][1]
    if even is not None:
        others = [row.both for load in LOADS[1:] if (row := found.get(load)) is not None and row.both is not None]
        worst = max(others, default=None)
        # One that misses the goal is enough to miss it.
        if worst is not None and (len(others) == len(LOADS) - 1 or worst / even > SKEW_GOAL):
            skew = worst / even
    measured = (
        (ratio, RATIO_GOAL, "{:.2f}x", 1.0), (skew, SKEW_GOAL, "{:.2f}x", 1.0), (outside, OTHER_GOAL, "{:.3f} ms", 1e3),
        (kept, KEPT_GOAL, "{:.0f} MB", 1e-6),
    )  # fmt: skip
    return [
        Entry(NAME, against, goal, "", UNKNOWN)
        if value is None
        else Entry(NAME, against, goal, shown.format(value * factor), MET if value <= most else MISSED)
        for (against, goal), (value, most, shown, factor) in zip(GOALS, measured, strict=True)
    ]


def stretch(rows: Sequence[Row], floors: dict[int, tuple[float, float]], lola: bool) -> str:
    """A line on the goal beyond the goal; nothing where there is none."""
    entries = goals(rows, floors, lola)
    if not entries:
        return ""
    even = [row.both for row in rows if (row.name, row.tokens, row.load) == ("fused", 16_384, "balanced")]
    if entries[0].verdict == UNKNOWN or not even or even[0] is None:
        verdict = UNKNOWN
    else:
        verdict = "met" if even[0] / floors[16_384][1] <= STRETCH_GOAL else "not met"
    return f"stretch goal, forward + backward at most {STRETCH_GOAL:.1f}x of the floor: {verdict}"


def not_measured() -> str:
    """The section of RESULTS.md where no GPU was at hand."""
    entries = [Entry(NAME, against, goal, "", UNKNOWN) for against, goal in GOALS]
    return (
        f"## {NAME}: a mixture-of-experts layer on a GPU\n\nNot measured: no GPU has been at hand. The goals are for "
        f"an H100, LOLA's shape in bfloat16, 16,384 tokens; the command is ready:\n\n    {COMMAND}\n\n"
        f"{comment(entries)}\n"
    )


def write_results(path: Path, text: str, *, measured: bool) -> None:
    """Rewrite the section; one that was measured stays where nothing could be measured now."""
    old = path.read_text("utf-8") if path.exists() else ""
    _, present, rest = old.partition(f"\n## {NAME}:")
    if present and not measured and "\nNot measured:" not in rest.partition("\n## ")[0]:
        return
    report.update(path, NAME, text, [*MODULES, *SECTIONS, NAME])


def device_facts(device: str) -> dict[str, str]:
    """Name of the card or processor, and versions."""
    import torch

    found = versions(PACKAGES)
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        return {"device": f"{card.name}, {card.total_memory / 1e9:.0f} GB", "CUDA": torch.version.cuda or "", **found}
    return {"device": this_machine().cpu, **found}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option(
    "--tokens", multiple=True, type=click.IntRange(1), help="May be given again.  [default: 4096 and 16384; cpu: 64]"
)
@click.option("--dtype", type=click.Choice(list(TOLERANCE)), help="[default: bfloat16; cpu: float32]")
@click.option("--d-model", type=click.IntRange(1), help="[default: 2048; cpu: 32]")
@click.option("--hidden", type=click.IntRange(1), help="[default: 8192; cpu: 64]")
@click.option("--experts", type=click.IntRange(2), help="[default: 16; cpu: 4]")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Timed, after 3 to warm up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there.")
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), help="Rewrite the section of RESULTS.md.")
def main(
    device: str,
    tokens: tuple[int, ...],
    dtype: str | None,
    d_model: int | None,
    hidden: int | None,
    experts: int | None,
    runs: int,
    json_path: Path | None,
    results: Path | None,
) -> None:
    """One MoE layer: a loop, grouped products, the fused kernels, dispatch by einsum, and packages of others where they
    are installed; time by the floor of the very card, memory, and errors against the loop.

    On the CPU, the fused kernels run under Triton's interpreter and are compared, not timed; figures of a CPU say
    nothing about a GPU.

    \b
    Examples:
      python -m benchmarks.moe_layer
      python -m benchmarks.moe_layer --tokens 8192 --dtype float16 --json layer.json
      python -m benchmarks.moe_layer --device cpu

    Exit code 1: no GPU is there, one of our own ways to compute the layer failed, or it or the dispatch by einsum is
    wrong. A peer that the device's memory does not hold is a row that says so.
    """
    # Read when Triton is imported, which nothing above does.
    os.environ["TRITON_INTERPRET"] = "1" if device == "cpu" else "0"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        if results is not None:
            write_results(results, not_measured(), measured=False)
        click.echo(f"no GPU is there, so nothing is measured; try it small on the CPU: {TINY}", err=True)
        sys.exit(1)
    gpu = device == "cuda"
    kind = dtype or ("bfloat16" if gpu else "float32")
    width, inner, count = LOLA if gpu else (32, 64, 4)
    width, inner, count = d_model or width, hidden or inner, experts or count
    if width < count:
        raise click.BadParameter(f"{width} is less than the {count} experts", param_hint="--d-model")
    sizes = tokens or ((4096, 16_384) if gpu else (64,))
    _measure(device, kind, (width, inner, count), sizes, runs, json_path, results)


def _measure(
    device: str,
    kind: str,
    widths: tuple[int, int, int],
    sizes: Sequence[int],
    runs: int,
    json_path: Path | None,
    results: Path | None,
) -> None:
    import torch

    from benchmarks.device_clock import DeviceClock
    from benchmarks.moe_contenders import LOADS, Shape, load_of, make_layer

    dtype: torch.dtype = getattr(torch, kind)
    if device == "cpu":
        # Layers this small gain nothing from a second thread.
        torch.set_num_threads(1)
    clock = DeviceClock(device)
    side, copied = (8192, 1 << 30) if clock.cuda else (512, 1 << 26)
    rates = Rates(clock.dense_flops(dtype, side, runs), clock.copy_bytes(copied, runs))
    facts = device_facts(device)
    named = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "device")
    head = [
        f"- {facts['device']}; {named}",
        f"- {kind}, width {widths[0]:,}, hidden width {widths[1]:,}, {widths[2]} experts; medians of {runs} runs",
        f"- measured in this run: product of {side:,}^3 {rates.flops / 1e12:,.3g} TFLOP/s; copy of {copied >> 20:,} MiB"
        f" {rates.bandwidth / 1e12:.3g} TB/s read and written",
        f"- worst row of outputs and gradients against the loop in a wider type: at most {TOLERANCE[kind]:g}",
    ]
    click.echo("\n".join(head))
    body, rows, floors = "\n".join(head), [], {}
    for size in sizes:
        shape = Shape(size, *widths)
        floors[size] = floor_seconds(shape, dtype.itemsize, rates)
        found: list[Row] = []
        for load in LOADS:
            counts = load_of(load, size, shape.experts)
            layer = make_layer(shape, counts, dtype, device)
            found += measure_load(layer, counts, load, clock, runs, lambda line: click.echo(line, err=True))
        forward, both = (f"{value * 1e3:,.3g} ms" for value in floors[size])
        part = f"{size:,} tokens: floor {forward} forward, {both} forward + backward\n\n{table(found, floors[size])}"
        click.echo(f"\n{part}")
        body += f"\n\n{part}"
        rows += found
    entries = goals(rows, floors, kind == "bfloat16" and widths == LOLA)
    for entry in entries:
        click.echo(f"{entry.against}: {entry.measured} ({entry.goal}): {entry.verdict}")
    if line := stretch(rows, floors, kind == "bfloat16" and widths == LOLA):
        click.echo(line)
        body += f"\n\n{line}"
    if json_path is not None:
        told: dict[str, Any] = {
            **facts, "dtype": kind, "widths": widths, "runs": runs, "rates": asdict(rates),
            "floors": [{"tokens": size, "forward": one, "both": two} for size, (one, two) in floors.items()],
            "rows": [asdict(row) for row in rows],
        }  # fmt: skip
        json_path.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    if results is not None and clock.cuda:
        heading = f"## {NAME}: a mixture-of-experts layer on a GPU\n\n- {this_machine().date}, `{COMMAND}`"
        write_results(results, f"{heading}\n{body}\n\n{comment(entries)}\n", measured=True)
    sys.exit(1 if any(row.at_fault for row in rows) else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.moe_layer")
