"""The corpus graph: recipe -> stages in order -> run.

Each stage has a module with ``build(recipe, layout) -> Stage | DriverStage``, imported only when the stage is run.
A stage run alone and a stage run as part of the graph are the same code.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import RecipeError
from lola_data.layout import TREES, Layout
from pipelines.log_tail import with_tail
from pipelines.run import WHOLE, run_stage
from pipelines.run import redo as redo_stage
from pipelines.state import StageState
from pipelines.workdir_lock import workdir_lock

if TYPE_CHECKING:
    from lola_data.recipe import Recipe
    from pipelines.run import DriverStage
    from pipelines.stage import Stage

STAGES = tuple(TREES)
"""Names of the stages, in order."""

MODULES = {
    "download": "pipelines.download",
    "identify": "pipelines.identify",
    "dedup": "pipelines.dedup",
    "sample": "pipelines.sample",
    "tokenizer": "pipelines.driver_stages:tokenizer",
    "tokenize": "pipelines.tokenize",
    "train": "pipelines.driver_stages:train",
    "balance": "pipelines.driver_stages:balance",
}


def build_stage(name: str, recipe: Recipe, layout: Layout) -> Stage | DriverStage:
    """The stage of that name, set up by the recipe."""
    module, _, function = MODULES[name].partition(":")
    return getattr(import_module(module), function or "build")(recipe, layout)


def select(only: list[str], start: str | None) -> list[str]:
    """The stages to run, in order.

    Raises:
        RecipeError: a name that is no stage, or no stage left.
    """
    for name in [*only, *([start] if start else [])]:
        if name not in STAGES:
            raise RecipeError(f"no stage `{name}`; the stages are {', '.join(STAGES)}")
    chosen = [name for name in STAGES[STAGES.index(start) if start else 0 :] if not only or name in only]
    if not chosen:
        raise RecipeError(f"nothing to run: `--only {' '.join(only)}` names no stage from `--from {start}` on")
    return chosen


def run_corpus(
    recipe: Recipe, *, only: list[str] | None = None, start: str | None = None, redo: list[str] | None = None,
    share: tuple[int, range] | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Run the graph, or part of it, and return the manifests of the stages that were run.

    Args:
        recipe: what to make.
        only: these stages only; their inputs must be complete.
        start: this stage and all after it.
        redo: delete the output of these stages, and of all after them, first.
        share: tasks of all machines that share this run, and those of this one.

    Raises:
        LolaError: with what went wrong and what to do; everything finished so far is kept.

    On Slurm the graph is submitted, and there are no manifests yet.
    """
    layout = Layout(recipe.workdir)
    names = select(only or [], start)
    deleted = redone(redo)
    _check_redo(recipe, layout, names, deleted)
    manifests: dict[str, dict[str, Any]] = {}
    with workdir_lock(layout) if share is None or not share[1].start else nullcontext():
        for name in deleted:
            redo_stage(build_stage(name, recipe, layout))
        if share is not None:
            from pipelines.shared_run import run_shared

            return run_shared(recipe, layout, names, *share)
        if recipe.executor.kind == "slurm":
            from pipelines.slurm_submit import submit_corpus

            submit_corpus(recipe, layout, names)
            return {}
        for name in names:
            manifests[name] = run_stage(build_stage(name, recipe, layout), recipe.executor.of_stage(name))
    return manifests


def redone(redo: list[str] | None) -> tuple[str, ...]:
    """The stages that ``--redo`` deletes: those named and all after the first of them.

    Raises:
        RecipeError: a name that is no stage.
    """
    return STAGES[min(STAGES.index(name) for name in select(redo, None)) :] if redo else ()


def _check_redo(recipe: Recipe, layout: Layout, names: list[str], deleted: tuple[str, ...]) -> None:
    """Raise RecipeError where a stage is to run whose input would be deleted and not made again."""
    for name in names:
        for source in build_stage(name, recipe, layout).inputs if deleted else []:
            if source in deleted and source not in names:
                raise RecipeError(
                    f"--redo {deleted[0]} deletes what `{source}` has made, which `{name}` reads and this command does "
                    f"not make again. Nothing has been deleted; run the stages from `{deleted[0]}` on"
                )


def status(layout: Layout) -> list[dict[str, Any]]:
    """What each stage below a work folder has done: state, units, counts per language, failures."""
    rows: list[dict[str, Any]] = []
    for name in STAGES:
        rows.append(_stage_status(layout, name))
    return rows


def _stage_status(layout: Layout, name: str) -> dict[str, Any]:
    state = StageState(layout, name)
    if state.recorded_fingerprint() is None:
        return {"stage": name, "state": "not started", "phases": [], "failures": []}
    phases: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = [*state.failures(WHOLE)]
    for phase in state.phases():
        planned = state.plan(phase) or []
        phases.append({"phase": phase, "units": len(planned), "done": len(state.done_keys(phase))})
        failures += state.failures(phase)
    failures = [{**failure, "tail": with_tail(failure["log"])} for failure in failures]
    complete = state.complete()
    # A graph that is submitted as a whole is begun as a whole.
    waits = not phases and not storage.list_files(layout.tree(name), "")
    row: dict[str, Any] = {
        "stage": name,
        "state": "complete" if complete else "failed" if failures else "waiting" if waits else "incomplete",
        "tree": layout.tree(name),
        "phases": phases,
        "failures": failures,
    }
    if complete and storage.exists(layout.manifest(name)):
        manifest = storage.read_json(layout.manifest(name))
        row["languages"] = manifest.get("languages", {})
        row["totals"] = manifest.get("totals", {})
    if storage.exists(layout.logs(name, "timing.json")):
        timing = storage.read_json(layout.logs(name, "timing.json"))
        row["seconds"] = timing["seconds"]
        if "forecast" in timing:
            row["forecast"], row["outcome"] = timing["forecast"], timing["outcome"]
    return row
