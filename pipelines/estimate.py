"""What a run will take before it is started: stages, units, tasks, bytes, time and disk.

The sizes of the raw shards are read from the source; later stages are taken to get what the stages before them leave,
by the shares below, unless their input is there already. Rates are text megabytes per second of one core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.layout import Layout
from lola_data.shards import plan_units
from pipelines.corpus import STAGES, build_stage, select
from pipelines.progress import human_bytes, human_seconds
from pipelines.state import StageState
from pipelines.status_table import align

if TYPE_CHECKING:
    from lola_data.recipe import Recipe

RATES = {
    "download": 200.0,
    "identify": 2.0,
    "dedup": 8.0,
    "sample": 60.0,
    "tokenizer": 1.0,
    "tokenize": 6.0,
    "balance": 20.0,
}
"""Text MB per second of one core, measured with the demo recipe on a machine with 2 cores (AMD EPYC)."""

TRAIN_FLOPS = 4e9
"""Floating-point operations per second of one core in training, measured with the demo model."""

TEXT_PER_FILE_BYTE = 1.7
"""UTF-8 bytes of text per byte of a published Parquet shard: CulturaX is 27 TB of text in 16 TB of files."""

DISK_SHARE = {"download": 1 / 1.7, "identify": 0.6, "dedup": 0.55, "sample": 0.5, "tokenize": 0.55, "balance": 0.0}
"""Bytes on disk per byte of text that comes into the stage."""

LEFT_SHARE = {"identify": 0.95, "dedup": 0.9}
"""Share of the text that a stage leaves."""


def estimate(recipe: Recipe, *, only: list[str] | None = None, start: str | None = None) -> dict[str, Any]:
    """The plan of a run as JSON: one entry per stage, and totals.

    Raises:
        LolaError: the source cannot be listed, or a language is not there.
    """
    layout = Layout(recipe.workdir)
    rows: list[dict[str, Any]] = []
    names = select(only or [], start)
    text = _raw_text_bytes(recipe, layout)
    for name in STAGES:
        units, known = _units(name, recipe, layout)
        came = known if known is not None else text
        if name in names:
            rows.append(_row(name, recipe, layout, units, came))
        text = came * LEFT_SHARE.get(name, 1.0) if name in ("download", "identify", "dedup") else text
        if name == "sample" and recipe.sample.total and recipe.sample.unit == "bytes":
            text = min(text, recipe.sample.total)
    cores = recipe.executor.workers
    return {
        "workdir": recipe.workdir,
        "tasks": recipe.executor.tasks,
        "workers": cores,
        "stages": rows,
        "seconds": sum(row["seconds"] for row in rows),
        "disk_bytes": sum(row["disk_bytes"] for row in rows),
    }


_INPUT = {"identify": "download", "dedup": "identify", "sample": "dedup", "tokenize": "sample"}


def _raw_text_bytes(recipe: Recipe, layout: Layout) -> float:
    stage: Any = build_stage("download", recipe, layout)
    works = stage.phases[0].plan()
    return sum(work.bytes for work in works) * TEXT_PER_FILE_BYTE


def _units(name: str, recipe: Recipe, layout: Layout) -> tuple[int | None, float | None]:
    """Units and bytes of a stage whose input is there."""
    if name == "download":
        stage: Any = build_stage("download", recipe, layout)
        works = stage.phases[0].plan()
        return len(works), sum(work.bytes for work in works) * TEXT_PER_FILE_BYTE
    source = _INPUT.get(name)
    if source and StageState(layout, source).complete():
        units = plan_units(layout.tree(source), languages=recipe.selected, unit_bytes=recipe.unit_bytes)
        return len(units), float(sum(unit.bytes for unit in units))
    return None, None


def _row(name: str, recipe: Recipe, layout: Layout, units: int | None, text: float) -> dict[str, Any]:
    complete = StageState(layout, name).complete() and storage.exists(layout.manifest(name))
    cores = recipe.executor.workers
    if units is not None:
        cores = min(cores, max(1, units))
    if name == "train":
        config = recipe.train
        active = 12 * config.model.layers * config.model.d_model**2
        head = recipe.tokenizer.vocab_size * config.model.d_model
        flops = 6.0 * (active + head) * config.tokens
        seconds, disk, text = flops / (TRAIN_FLOPS * recipe.executor.workers), _checkpoint_bytes(recipe), 0.0
    elif name == "tokenizer":
        text = min(text, recipe.tokenizer.train_bytes)
        seconds, disk = (
            (0.0 if recipe.tokenizer.model else text / 1e6 / RATES[name]),
            30.0 * recipe.tokenizer.vocab_size,
        )
    else:
        seconds, disk = text / 1e6 / RATES[name] / cores, text * DISK_SHARE[name]
    return {
        "stage": name,
        "state": "complete" if complete else "to do",
        "units": units,
        "tasks": min(recipe.executor.tasks, units) if units is not None else None,
        "text_bytes": round(text),
        "seconds": 0.0 if complete else round(seconds, 1),
        "disk_bytes": 0 if complete else round(disk),
    }


def _checkpoint_bytes(recipe: Recipe) -> float:
    config = recipe.train
    experts = len(config.model.moe_layers) * (config.model.experts - 1) * 2 * config.model.d_model * config.model.hidden
    dense = 12 * config.model.layers * config.model.d_model**2 + recipe.tokenizer.vocab_size * config.model.d_model
    # fp32 weights and two moments, in each checkpoint that is kept.
    return 12.0 * (experts + dense) * config.keep_checkpoints


def render(plan: dict[str, Any]) -> str:
    """A plan as a table."""
    table = [("stage", "state", "units", "tasks", "text", "time", "disk")]
    for row in plan["stages"]:
        table.append(
            (
                row["stage"],
                row["state"],
                "?" if row["units"] is None else str(row["units"]),
                "?" if row["tasks"] is None else str(row["tasks"]),
                human_bytes(row["text_bytes"]) if row["text_bytes"] else "",
                "about " + human_seconds(row["seconds"]) if row["seconds"] else "",
                human_bytes(row["disk_bytes"]) if row["disk_bytes"] else "",
            )
        )
    total = f"about {human_seconds(plan['seconds'])} with {plan['workers']} workers, {human_bytes(plan['disk_bytes'])}"
    return "\n".join([*align(table, left=2), "", f"In all {total} below {plan['workdir']}. Nothing has been done yet."])
