"""What a run will take before it is started: stages, units, tasks, bytes, time and disk.

The text of local shards is counted from their footers, that of remote ones guessed from the sizes of their files. Each
stage is taken to get what the one before it leaves, by the shares below, unless its input is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.layout import Layout
from lola_data.shards import open_parquet, plan_units
from pipelines.corpus import STAGES, build_stage, redone, select
from pipelines.progress import human_bytes, human_seconds
from pipelines.shard_pattern import PARQUET
from pipelines.state import StageState
from pipelines.status_table import align

if TYPE_CHECKING:
    from lola_data.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Rate:
    """Cost of a stage on one core, measured with the demo recipe on a machine with 2 cores (AMD EPYC, no GPU)."""

    text_mb_per_second: float
    seconds_per_unit: float = 0.0
    start_seconds: float = 1.0
    phases: int = 1
    disk_share: float = 0.0
    """Bytes on disk per byte of text that comes in."""
    left_share: float = 1.0
    """Share of the text that goes on to the next stage."""


RATES = {
    "download": Rate(200.0, 0.02, disk_share=0.55),
    "identify": Rate(22.0, 0.03, 3.0, disk_share=0.6, left_share=0.98),
    "dedup": Rate(8.0, 0.02, 2.0, phases=3, disk_share=0.6, left_share=0.95),
    "sample": Rate(60.0, 0.015, 1.5, phases=3, disk_share=0.6),
    "tokenizer": Rate(2.5),
    "tokenize": Rate(6.0, 0.02, 3.0, disk_share=0.9),
    "balance": Rate(10.0, 0.005, 4.0),
}
TRAIN_FLOPS = 1.1e10
"""Floating-point operations per second of one core in training, measured with the demo's model."""
TEXT_PER_FILE_BYTE = 1.7
"""Bytes of text per byte of a published shard: CulturaX is 27 TB of text in 16 TB of Parquet."""

_INPUT = {"identify": "download", "dedup": "identify", "sample": "dedup", "tokenize": "sample"}


def estimate(
    recipe: Recipe, *, only: list[str] | None = None, start: str | None = None, redo: list[str] | None = None
) -> dict[str, Any]:
    """The plan of a run as JSON: an entry per stage with its units, tasks, text, seconds and bytes on disk, and totals.

    Raises:
        LolaError: the source cannot be listed, or a language is not there.
    """
    layout = Layout(recipe.workdir)
    names, deleted = select(only or [], start), redone(redo)
    units, text = _source_size(recipe, layout)
    rows: list[dict[str, Any]] = []
    for name in STAGES:
        known = None if _INPUT.get(name) in deleted else _input_size(name, recipe, layout)
        units, text = known or (units, text)
        if name in names:
            rows.append(_row(name, recipe, layout, units, text, deleted))
        text *= RATES[name].left_share if name in RATES else 1.0
        if name == "sample" and recipe.sample.total and recipe.sample.unit == "bytes":
            text = min(text, recipe.sample.total)
    return {
        "workdir": recipe.workdir,
        "tasks": recipe.executor.tasks,
        "workers": recipe.executor.workers,
        "stages": rows,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "disk_bytes": sum(row["disk_bytes"] for row in rows),
    }


def _source_size(recipe: Recipe, layout: Layout) -> tuple[int, float]:
    """Shards of the source and bytes of text in them."""
    stage: Any = build_stage("download", recipe, layout)
    works = stage.phases[0].plan()
    if recipe.download.source in ("hub", "url"):
        return len(works), sum(work.bytes for work in works) * TEXT_PER_FILE_BYTE
    from pipelines.download import open_source

    root = open_source(recipe.download, layout).place
    text = 0
    for work in works:
        if not work.origin.endswith(PARQUET):
            text += round(work.bytes * TEXT_PER_FILE_BYTE)
            continue
        with open_parquet(storage.join(root, work.origin)) as file:
            text += sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
    return len(works), float(text)


def _input_size(name: str, recipe: Recipe, layout: Layout) -> tuple[int, float] | None:
    """Units and bytes of a stage whose input is there."""
    source = _INPUT.get(name)
    if source is None or not StageState(layout, source).complete():
        return None
    units = plan_units(layout.tree(source), languages=recipe.selected, unit_bytes=recipe.unit_bytes)
    return len(units), float(sum(unit.bytes for unit in units))


def _state(name: str, recipe: Recipe, layout: Layout, deleted: tuple[str, ...]) -> str:
    state = StageState(layout, name)
    recorded = state.recorded_fingerprint()
    if name in deleted or recorded is None:
        return "to do"
    made = state.complete() and storage.exists(layout.manifest(name))
    if made and recorded["settings"] != build_stage(name, recipe, layout).settings:
        return "of another recipe"
    return "complete" if made else "to do"


def _row(
    name: str, recipe: Recipe, layout: Layout, units: int, text: float, deleted: tuple[str, ...]
) -> dict[str, Any]:
    state = _state(name, recipe, layout, deleted)
    complete = state == "complete"
    sharded = name in ("download", *_INPUT)
    cores = min(recipe.executor.workers, max(1, units)) if sharded else 1
    if name == "train":
        seconds, disk, text = _training_seconds(recipe), _checkpoint_bytes(recipe), 0.0
    else:
        rate = RATES[name]
        if name == "tokenizer":
            text = 0.0 if recipe.tokenizer.model else min(text, recipe.tokenizer.train_bytes)
        work = text / 1e6 / rate.text_mb_per_second + units * rate.phases * rate.seconds_per_unit
        seconds, disk = rate.phases * rate.start_seconds + work / cores, text * rate.disk_share
    return {
        "stage": name,
        "state": state,
        "units": units if sharded else 1,
        "tasks": min(recipe.executor.tasks, units) if sharded else 1,
        "text_bytes": round(text),
        "seconds": 0.0 if complete else round(seconds, 1),
        "disk_bytes": 0 if complete else round(disk),
    }


def _training_seconds(recipe: Recipe) -> float:
    """6 operations per active parameter and token, on the cores of this recipe (a GPU is far faster)."""
    model = recipe.train.model
    active = model.layers * (4 * model.d_model**2 + 2 * model.d_model * model.hidden)
    active += model.vocab_rows(recipe.tokenizer.vocab_size) * model.d_model
    return 6.0 * active * recipe.train.tokens / (TRAIN_FLOPS * recipe.executor.workers)


def _checkpoint_bytes(recipe: Recipe) -> float:
    """Weights and two moments in float32, in each checkpoint that is kept."""
    model = recipe.train.model
    feed_forward = 2 * model.d_model * model.hidden
    moe_layers = len(model.moe_layers)
    parameters = model.layers * 4 * model.d_model**2 + (model.layers - moe_layers) * feed_forward
    parameters += moe_layers * model.experts * feed_forward
    parameters += model.vocab_rows(recipe.tokenizer.vocab_size) * model.d_model
    return 12.0 * parameters * recipe.train.keep_checkpoints


def render(plan: dict[str, Any]) -> str:
    """A plan as a table."""
    table = [("stage", "state", "units", "tasks", "text", "time", "disk")]
    for row in plan["stages"]:
        table.append(
            (
                row["stage"],
                row["state"],
                str(row["units"]),
                str(row["tasks"]),
                human_bytes(row["text_bytes"]) if row["text_bytes"] else "",
                human_seconds(row["seconds"]) if row["seconds"] else "",
                human_bytes(row["disk_bytes"]) if row["disk_bytes"] else "",
            )
        )
    total = (
        f"about {human_seconds(plan['seconds'])} with {plan['workers']} workers and {human_bytes(plan['disk_bytes'])}"
    )
    lines = [*align(table, left=2), "", f"In all {total} below {plan['workdir']}. Nothing has been done yet."]
    other = [row["stage"] for row in plan["stages"] if row["state"] == "of another recipe"]
    if other:
        lines.append(f"`{other[0]}` was made with another recipe: the run will refuse it without `--redo {other[0]}`.")
    return "\n".join(lines)
