"""What a run will take before it is started: stages, units, tasks, core-hours, memory, time and disk.

What comes in is counted or guessed by :mod:`pipelines.source_size`; what each stage takes of it is told by
:mod:`pipelines.rates`. Each stage is taken to get what the one before it leaves, unless its input is there already.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.compile_cache import is_compiled
from lola_data.layout import Layout
from pipelines.corpus import STAGES, build_stage, redone, select
from pipelines.progress import human_bytes, human_seconds
from pipelines.rates import (
    AFTER_TRAINING_MB,
    BLOCK,
    BYTES_PER_TOKEN,
    RATES,
    START_SECONDS,
    TOKENIZER_MEMORY,
    TRAIN_FLOPS,
    TRAIN_MEMORY_MB,
    slowness,
)
from pipelines.source_size import size_of_source, size_of_tree
from pipelines.state import StageState
from pipelines.status_table import align

if TYPE_CHECKING:
    from lola_data.recipe import Recipe
    from lola_data.sections import ExecutorSection
    from pipelines.source_size import Size

_INPUT = {"identify": "download", "dedup": "identify", "sample": "dedup", "tokenize": "sample"}
_DRIVEN = ("tokenizer", "train", "balance")


def estimate(
    recipe: Recipe, *, only: list[str] | None = None, start: str | None = None, redo: list[str] | None = None
) -> dict[str, Any]:
    """The plan of a run as JSON: an entry per stage, and totals.

    Of a stage: ``units``, ``tasks``, ``text_bytes`` that come in, ``core_seconds``, ``seconds``, ``peak_bytes`` of
    memory of its largest task, ``disk_bytes`` that stay. ``slowness``: of this machine, beside that of the rates.

    Raises:
        LolaError: the source cannot be listed, or a language is not there.
    """
    layout = Layout(recipe.workdir)
    names, deleted = select(only or [], start), redone(redo)
    slow = slowness()
    size = size_of_source(recipe, layout)
    rows: list[dict[str, Any]] = []
    for name in STAGES:
        source = _INPUT.get(name)
        known = None if source is None or source in deleted else size_of_tree(source, recipe, layout)
        size = known or size
        if name in names:
            state = _state(name, recipe, layout, deleted)
            trains = any(row["stage"] == "train" and row["state"] == "to do" for row in rows)
            rows.append(_row(name, recipe, size, slow, state, trains=trains and recipe.executor.kind != "slurm"))
        size = size.cut(RATES[name].left_share if name in RATES else 1.0)
        if name == "sample" and recipe.sample.total and recipe.sample.unit == "bytes":
            size = size.cut(min(1.0, recipe.sample.total / max(1.0, size.text)))
    return {
        "workdir": recipe.workdir,
        "tasks": recipe.executor.tasks,
        "workers": recipe.executor.workers,
        "slowness": round(slow, 3),
        "stages": rows,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "core_hours": round(sum(row["core_seconds"] for row in rows) / 3600, 5),
        "peak_bytes": max((row["peak_bytes"] for row in rows), default=0),
        "disk_bytes": sum(row["disk_bytes"] for row in rows),
    }


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
    name: str, recipe: Recipe, size: Size, slow: float, state: str, *, trains: bool
) -> dict[str, Any]:  # fmt: skip
    section = recipe.executor.of_stage(name)
    sharded = name not in _DRIVEN
    units = (size.shards if name == "download" else size.units) if sharded else 1
    tasks = min(section.tasks, units) if sharded else 1
    row = {"stage": name, "state": state, "units": units, "tasks": tasks, "text_bytes": 0}
    if name == "train":
        work, cores = _training_seconds(recipe, len(size.by_language)), section.workers
        peak, disk = _training_memory(recipe), _checkpoint_bytes(recipe)
    else:
        text = size.text
        if name == "tokenizer":
            text = 0.0 if recipe.tokenizer.model else min(text, float(recipe.tokenizer.train_bytes))
        row["text_bytes"] = round(text)
        work = _core_seconds(name, section, text, units if sharded else size.units, tasks)
        cores = min(_at_a_time(section), tasks)
        peak, disk = _memory(name, recipe, size, trains=trains), _disk(name, recipe, size, tasks)
    done = state == "complete"
    return {
        **row,
        "core_seconds": 0.0 if done else round(slow * work, 2),
        "seconds": 0.0 if done else round(slow * work / cores, 1),
        "peak_bytes": 0 if done else round(peak),
        "disk_bytes": 0 if done else round(disk),
    }


def _at_a_time(section: ExecutorSection) -> int:
    """Tasks that run at the same time."""
    return (section.max_running or section.tasks) if section.kind == "slurm" else section.workers


def _core_seconds(name: str, section: ExecutorSection, text: float, units: int, tasks: int) -> float:
    rate = RATES[name]
    start = rate.per_task + (0.0 if section.kind == "local" else START_SECONDS)
    # Those that run at the same time each compile it; the next find it done.
    cold = rate.kernel is not None and not is_compiled(*rate.kernel)
    compiling = rate.compiling * min(_at_a_time(section), tasks) if cold else 0.0
    return compiling + rate.driver + text / 1e6 * rate.per_mb + units * rate.per_unit + rate.phases * tasks * start


def _memory(name: str, recipe: Recipe, size: Size, *, trains: bool = False) -> float:
    """Bytes of the largest task; ``trains``: this process has trained before.

    Matching holds the columns of a language, up to what its task may take.
    """
    base = RATES[name].memory_mb * 1e6
    if name == "dedup":
        from pipelines.forecast_run import dedup_peak

        largest = max(size.by_language.values(), default=0.0)
        return dedup_peak(round(base), largest, recipe.executor.memory_mb * 10**6)
    if name == "tokenizer" and not recipe.tokenizer.model:
        return base + TOKENIZER_MEMORY * min(size.text, recipe.tokenizer.train_bytes)
    if name == "balance" and trains:
        # One process does both.
        return max(base, _training_memory(recipe) + AFTER_TRAINING_MB * 1e6)
    return base


def _disk(name: str, recipe: Recipe, size: Size, tasks: int) -> float:
    """Bytes that stay: trees, records of units, logs of tasks."""
    rate = RATES[name]
    if name == "tokenizer":
        return 0.0 if recipe.tokenizer.model else 30.0 * recipe.tokenizer.vocab_size
    if name == "balance":
        return 150_000.0 + 5_000 * len(size.by_language)
    records = BLOCK * (rate.unit_files * size.units + 4 * rate.phases * tasks)
    if name == "download":
        return size.files + records
    if name == "tokenize":
        return size.text / _bytes_per_token(recipe) * (2 if recipe.tokenizer.vocab_size <= 1 << 16 else 4) + records
    return size.text * rate.disk_share + records


def _bytes_per_token(recipe: Recipe) -> float:
    few, more = BYTES_PER_TOKEN
    return few + more * log(recipe.tokenizer.vocab_size / 2560)


def _training_seconds(recipe: Recipe, languages: int) -> float:
    """Core-seconds on the cores of this recipe; a GPU is far faster. Text that is only scored takes a third."""
    from train.flops import flops_per_token

    train = recipe.train
    steps = train.tokens // (train.batch_size * train.model.seq_len) + 1
    scored = (1 + (steps // train.eval_every if train.eval_every else 0)) * train.eval_tokens * languages
    return flops_per_token(train.model, recipe.tokenizer.vocab_size) * (train.tokens + scored / 3) / TRAIN_FLOPS


def _parameters(recipe: Recipe) -> int:
    model = recipe.train.model
    feed_forward = 2 * model.d_model * model.hidden
    moe_layers = len(model.moe_layers)
    parameters = model.layers * 4 * model.d_model**2 + (model.layers - moe_layers) * feed_forward
    parameters += moe_layers * model.experts * feed_forward
    return parameters + model.vocab_rows(recipe.tokenizer.vocab_size) * model.d_model


def _training_memory(recipe: Recipe) -> float:
    """Bytes of a process on the CPU: weights, gradients and two moments in float32, and the scores of a batch."""
    model, micro = recipe.train.model, recipe.train.micro_batch or recipe.train.batch_size
    scores = 12.0 * micro * model.seq_len * model.vocab_rows(recipe.tokenizer.vocab_size)
    return TRAIN_MEMORY_MB * 1e6 + 16.0 * _parameters(recipe) + scores


def _checkpoint_bytes(recipe: Recipe) -> float:
    """Weights and two moments in float32, in each checkpoint that is kept; the best is mostly among the newest."""
    return 12.0 * _parameters(recipe) * recipe.train.keep_checkpoints


def render(plan: dict[str, Any]) -> str:
    """A plan as a table."""
    table = [("stage", "state", "units", "tasks", "text", "core time", "time", "memory", "disk")]
    for row in plan["stages"]:
        sizes = (row["text_bytes"], row["peak_bytes"], row["disk_bytes"])
        text, peak, disk = (human_bytes(size) if size else "" for size in sizes)
        work, wall = (human_seconds(row[key]) if row[key] else "" for key in ("core_seconds", "seconds"))
        units, tasks = f"{row['units']:,}", f"{row['tasks']:,}"
        table.append((row["stage"], row["state"], units, tasks, text, work, wall, peak, disk))
    lines = [*align(table, left=2), ""]
    if all(row["state"] == "complete" for row in plan["stages"]):
        lines.append(f"All of it is complete below {plan['workdir']}: the run has nothing to do.")
    else:
        lines.append(
            f"In all about {plan['core_hours']:,.3g} core-hours, {human_seconds(plan['seconds'])} with "
            f"{plan['workers']} workers, {human_bytes(plan['disk_bytes'])} below {plan['workdir']}; the largest task "
            f"takes {human_bytes(plan['peak_bytes'])} of memory. Nothing has been done yet."
        )
    other = [row["stage"] for row in plan["stages"] if row["state"] == "of another recipe"]
    if other:
        lines.append(f"`{other[0]}` was made with another recipe: the run will refuse it without `--redo {other[0]}`.")
    return "\n".join(lines)
