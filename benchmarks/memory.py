"""Section ``memory``: the most memory that each stage of ``lola-data run`` holds, as the corpus grows tenfold.

The corpus is told anew until it has the size (:mod:`benchmarks.tiles`), with the same languages and copies in
proportion. Units of work are small, so that each language has some of them at the smallest size already: what grows
with the corpus then shows, and what is bound to a batch or a unit does not. A process for each phase of each stage,
one task each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.harness import run_call
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Work

NAME = "memory"
FACTORS = (1, 3, 10)
LARGEST_BASE = 16_000_000
GROWS = ("dedup: match",)
"""Phases that may grow."""
FLAT = 1.15
"""Most that the peak over ten times the text may be, as a multiple of the peak over it: allocators keep some, and
records grow by the shard."""
PARTED = ("spread", "tie", "group", "gather")
"""Phases for languages that are larger than these."""
UNIT_MB = 1
LANGUAGES = 8
"""So few that each has several units at the smallest size."""
STAGES = ("download", "identify", "dedup", "sample", "tokenizer", "tokenize", "balance")
RECIPE: dict[str, Any] = {
    "unit_mb": UNIT_MB,
    "executor": {"tasks": 1, "workers": 1},
    "dedup": {"max_removed_share": 1.0},
    "sample": {"method": "all"},
    # Less than the smallest size has: the text held for training is bounded by this.
    "tokenizer": {"vocab_size": 4_000, "train_bytes": 1_000_000, "threads": 1},
}


def recipe_of(raw: str, workdir: str) -> Any:
    """The recipe of a run over a raw tree."""
    from lola_data.recipe import Recipe

    return Recipe.model_validate({"workdir": workdir, "download": {"source": "local", "path": raw}, **RECIPE})


def steps(raw: str, workdir: str) -> list[tuple[str, int | None]]:
    """Stages in order, those of several phases phase by phase."""
    from lola_data.layout import Layout
    from pipelines.corpus import build_stage

    recipe = recipe_of(raw, workdir)
    found: list[tuple[str, int | None]] = []
    for name in STAGES:
        phases = [phase.phase for phase in getattr(build_stage(name, recipe, Layout(workdir)), "phases", ())]
        numbers = [number for number, phase in enumerate(phases) if phase not in PARTED]
        found += [(name, number) for number in numbers] if len(phases) > 1 else [(name, None)]
    return found


def name_of(stage: Any, phase: int | None) -> str:
    """As the table has it."""
    return stage.name if phase is None else f"{stage.name}: {stage.phases[phase].phase}"


def load(out: Path, *, raw: str, workdir: str, name: str, phase: int | None) -> Work:
    """A stage, or one phase of it, as ``lola-data run`` runs it; the last phase writes the manifest."""
    from lola_data.layout import Layout
    from pipelines import run
    from pipelines.corpus import build_stage
    from pipelines.executors import runner_of
    from pipelines.phases import do_phase
    from pipelines.state import StageState

    recipe = recipe_of(raw, workdir)
    layout = Layout(workdir)

    def work() -> None:
        stage: Any = build_stage(name, recipe, layout)
        if phase is None:
            run.run_stage(stage, recipe.executor)
        else:
            fingerprint = run.fingerprint_of(stage)
            StageState(layout, name).begin(fingerprint, same_units=None)
            do_phase(stage, stage.phases[phase], runner_of(recipe.executor), recipe.executor.workers)
            if phase == len(stage.phases) - 1:
                stage.write_manifest(fingerprint)
        (out / "name").write_text(name_of(stage, phase), encoding="utf-8")

    return work


def load_all(out: Path, *, raw: str, workdir: str) -> Work:
    """Every step in one process, so that compiled kernels are there before any peak is taken."""
    works = [load(out, raw=raw, workdir=workdir, name=name, phase=phase) for name, phase in steps(raw, workdir)]

    def work() -> None:
        for one in works:
            one()

    return work


def measure(bench: Bench) -> Told:
    """Every stage at every size."""
    import shutil

    from benchmarks.tiles import tile

    base = min(bench.corpus.bytes / 2, LARGEST_BASE)
    peaks: dict[str, dict[int, int]] = {}
    sizes: dict[int, int] = {}
    failed = ""
    for factor in (0, *FACTORS):
        raw, workdir = bench.work / f"raw-{factor}x", bench.work / f"{factor}x"
        bench.say(f"{NAME}: preparing the corpus of {factor or 'a tenth of '}x")
        size = tile(bench.corpus.raw, raw, base * (factor or 0.1), languages=LANGUAGES)
        places: dict[str, Any] = {"raw": str(raw), "workdir": str(workdir)}
        if not factor:
            run = run_call(load_all, bench.work / "out", **places)
            failed = run if isinstance(run, str) else ""
        for name, phase in steps(**places) if factor and not failed else ():
            run = run_call(load, bench.work / "out", **places, name=name, phase=phase)
            if isinstance(run, str):
                failed = f"{name} at {factor}x: {run}"
                break
            told = (bench.work / "out" / "name").read_text(encoding="utf-8")
            peaks.setdefault(told, {})[factor] = run.peak_rss
            bench.say(f"{NAME}: {factor}x: {told}: {run.peak_rss / 1e6:.0f} MB")
        if failed:
            break
        if factor:
            sizes[factor] = size
        shutil.rmtree(raw)
        shutil.rmtree(workdir)
    if failed:
        return Told(failed, [Entry(NAME, "lola-data run", "", "", "failed")], {"failed": failed}, sound=False)
    return tell(peaks, sizes)


def growth(peak: dict[int, int], sizes: dict[int, int]) -> float:
    """Bytes of memory for each byte of text that the largest size has more than the smallest.

    >>> growth({1: 200, 10: 290}, {1: 100, 10: 1000})
    0.1
    """
    first, last = min(sizes), max(sizes)
    return (peak[last] - peak[first]) / (sizes[last] - sizes[first])


def is_flat(peak: dict[int, int]) -> bool:
    """Whether the largest size takes about what the smallest does."""
    return peak[max(peak)] <= round(FLAT * peak[min(peak)])


def tell(peaks: dict[str, dict[int, int]], sizes: dict[int, int]) -> Told:
    """Table, curves, and whether each stage that must be flat is."""
    first, last = min(sizes), max(sizes)
    heads = [f"{factor}x: {size / 1e6:.0f} MB" for factor, size in sizes.items()]
    lines = [["stage", *heads, f"{last}x / {first}x", "bytes a byte of text added", ""]]
    entries: list[Entry] = []
    for name, peak in peaks.items():
        grown = growth(peak, sizes)
        flat = is_flat(peak)
        may = name in GROWS
        verdict = "grows, as it may" if may and not flat else "flat" if flat else f"{NOT_HELD}: grows"
        lines.append(
            [
                name,
                *(f"{peak[factor] / 1e6:.0f}" for factor in sizes),
                f"{peak[last] / peak[first]:.2f}",
                f"{grown:.3f}",
                verdict,
            ]
        )
        if not may:
            told = f"{peak[first] / 1e6:.0f} to {peak[last] / 1e6:.0f} MB"
            entries.append(Entry(NAME, name, f"flat from {first}x to {last}x", told, HELD if flat else NOT_HELD))
    body = (
        f"Most memory resident (VmHWM, MB) over the life of a process for each phase, interpreter and libraries "
        f"included; units of {UNIT_MB} MB, one task. Flat: at most {FLAT:g} times as much for {last} times the "
        f"text.\n\n"
        f"{markdown_table(lines)}\n\n```text\n{chart(peaks, sizes)}\n```"
    )
    values = {"sizes": sizes, "peaks": peaks}
    return Told(body, entries, values, all(entry.verdict == HELD for entry in entries))


def chart(peaks: dict[str, dict[int, int]], sizes: dict[int, int], width: int = 60) -> str:
    """A bar for each stage and size."""
    most = max(max(peak.values()) for peak in peaks.values())
    wide = max(len(name) for name in peaks)
    lines: list[str] = []
    for name, peak in peaks.items():
        for number, factor in enumerate(sizes):
            bar = "#" * max(1, round(width * peak[factor] / most))
            lines.append(f"{name if not number else '':{wide}} {factor:>3}x {bar} {peak[factor] / 1e6:.0f}")
    return "\n".join(lines)


SECTION = Section(
    name=NAME,
    title="most memory of each stage as the corpus grows",
    measure=measure,
    versions=("polars", "numba", "sentencepiece"),
)
