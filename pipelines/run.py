"""Runs one stage from wherever it stands to its end: fingerprint, plan, phases on the executor, manifest.

A stage is begun (:func:`open_stage`), its phases are done one after the other, and it is closed. :func:`run_stage` does
all of it; a scheduler's jobs do the pieces in processes of their own.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data import manifest as manifest_format
from lola_data import storage
from lola_data.errors import LolaError, StageError
from lola_data.layout import TREES, Layout
from lola_data.remote_trees import remove_tree
from pipelines.foreseen import beside_outcome, forecast_of, timing_of
from pipelines.phases import check_phase, do_phase, plan_phase
from pipelines.progress import human_seconds, say
from pipelines.stage import Stage
from pipelines.stage_checks import check_inputs, check_overlap, files_of, forget_lost_output, made_by_hand, up_to_date
from pipelines.state import StageState, digest, manifest_digest
from pipelines.usage import began as first_began
from pipelines.usage import leave_usage, reset_peak

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.sections import ExecutorSection

CARD_FILES = ("README.md", "croissant.json")
"""Files of `lola-data card`."""
WHOLE = "stage"
"""In the place of a phase: a failure of the stage as a whole."""
DRIVER = "driver"
"""Likewise: what planning and counting took."""
FORMAT = 4
"""Raised when a stage's output changes for the same recipe, so that old trees are not mixed with new ones."""


@dataclass(frozen=True, slots=True)
class DriverStage:
    """A stage that runs in the driver's own process: it trains a model or draws a page, and is done in one go.

    Args:
        name: as in :data:`lola_data.layout.TREES`.
        layout: of the corpus.
        settings: values of the recipe that decide the output.
        inputs: stages whose trees are read.
        action: does the work (resuming by itself if it can) and returns further keys of the manifest.
    """

    name: str
    layout: Layout
    settings: dict[str, Any]
    inputs: list[str]
    action: Callable[[], dict[str, Any]]

    def output_roots(self) -> list[str]:
        """Folders that belong to this stage alone."""
        return [self.layout.tree(self.name), self.layout.state(self.name), self.layout.logs(self.name)]


def fingerprint_of(stage: Stage | DriverStage, *, lineage: dict[str, str] | None = None) -> dict[str, Any]:
    """What decides a stage's output: its settings and the manifests of its inputs.

    Args:
        stage: which.
        lineage: for inputs that are not complete yet, what they will be: see :func:`lineage_of`.

    Raises:
        StageError: an input tree is missing or not complete, and no lineage is given.
    """
    return {
        "stage": stage.name,
        "format": FORMAT,
        "settings": stage.settings,
        "inputs": {name: _input_digest(stage, name, lineage) for name in stage.inputs},
    }


def lineage_of(stage: Stage | DriverStage, inputs: dict[str, str]) -> str:
    """What a stage's output will be, known before there is any: a digest of its settings and of its inputs' lineage."""
    return digest({"stage": stage.name, "format": FORMAT, "settings": stage.settings, "inputs": inputs})


def _input_digest(stage: Stage | DriverStage, name: str, lineage: dict[str, str] | None) -> Any:
    layout = stage.layout
    if name in layout.trees:
        # A card that was written beside the shards says nothing new.
        files = [file for file in storage.list_files(layout.tree(name), "") if file[0] not in CARD_FILES]
        if not files:
            raise StageError(f"{stage.name}: {layout.tree(name)}: nothing there; give the tree of {TREES[name]} shards")
        return digest(files)
    if made_by_hand(layout, name):
        return digest(storage.list_files(layout.tree(name), ".model"))
    if not StageState(layout, name).complete() or not storage.exists(layout.manifest(name)):
        if lineage is not None:
            return {"lineage": lineage[name]}
        raise StageError(f"{stage.name}: its input {layout.tree(name)} is not complete; run the stage `{name}` first")
    # The manifest holds the settings, the counts and the digests of all that came in from outside.
    return manifest_digest(storage.read_json(layout.manifest(name)))


def run_stage(
    stage: Stage | DriverStage, executor: ExecutorSection, *, lineage: dict[str, str] | None = None
) -> dict[str, Any]:
    """Bring a stage to its end and return its manifest. What is finished already is not done again.

    Args:
        stage: which.
        executor: where its tasks run.
        lineage: of its inputs, if it may have been begun before they were complete.

    Raises:
        StageError: input missing, recipe changed, or units failed (each named with its message and log).
    """
    from pipelines.executors import runner_of

    def work(phased: Stage) -> None:
        run = runner_of(executor)
        for step in phased.phases:
            do_phase(phased, step, run, executor.workers)

    return _run(stage, work, lineage)


def close_stage(stage: Stage, *, lineage: dict[str, str] | None = None, since: float | None = None) -> dict[str, Any]:
    """Write the manifest of a stage whose units are all finished, wherever that was done.

    ``since``: when that was begun at the earliest, seconds since 1970; the stage took from its first task after that.

    Raises:
        StageError: units are missing; each is named, with its message and log if it failed.
    """

    def work(phased: Stage) -> None:
        for step in phased.phases:
            # What was planned when it was begun counts: a shard that was mended since may look otherwise now.
            if step.state.plan(step.phase) is None:
                plan_phase(phased, step, keep_failures=True)
            check_phase(phased, step, {})

    return _run(stage, work, lineage, since)


def open_stage(
    stage: Stage | DriverStage, *, lineage: dict[str, str] | None = None, early: bool = False
) -> tuple[bool, bool]:
    """Begin a stage, or find it begun: its fingerprint is recorded and its inputs are looked at.

    Args:
        stage: which.
        lineage: of its inputs, if it may be begun, or have been, before they are complete.
        early: whether they need not be complete now.

    Returns:
        Whether there is anything to do, and whether it goes on from another fingerprint than it was begun with.

    Raises:
        StageError: an input is missing, or the recipe has changed.
    """
    state = StageState(stage.layout, stage.name)
    check_overlap(stage)
    fingerprint = fingerprint_of(stage, lineage=lineage if early else None)
    if isinstance(stage, Stage):
        state.join_lanes([step.phase for step in stage.phases])
        changed = state.begin(fingerprint, same_units=stage.same_units, grows=stage.grows, lineage=lineage)
    else:
        changed = state.begin(fingerprint, lineage=lineage)
    state.forget_failures(WHOLE)
    return not up_to_date(stage, state), changed


def prepare(stage: Stage | DriverStage) -> None:
    """Sweep up what killed writers left, and forget units whose output is gone. While nothing of the stage runs."""
    for root in stage.output_roots():
        storage.remove_temporaries(root)
    if isinstance(stage, Stage):
        for phase in stage.phases:
            forget_lost_output(stage, phase.phase)


def _run(
    stage: Stage | DriverStage, work: Callable[[Stage], None], lineage: dict[str, str] | None,
    since: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    state = StageState(stage.layout, stage.name)
    if not open_stage(stage, lineage=lineage)[0]:
        say(f"{stage.name}: up to date")
        return storage.read_json(stage.layout.manifest(stage.name))
    started, began = time.monotonic(), time.time()
    try:
        check_inputs(stage)
        prepare(stage)
        fingerprint = fingerprint_of(stage)
        if isinstance(stage, DriverStage):
            manifest = _drive(stage, state, fingerprint)
        else:
            work(stage)
            manifest = _close(stage, fingerprint)
            leave_usage(stage.layout, stage.name, DRIVER, 0, began, memory=False)
    except LolaError as error:
        leave_failure(stage, error)
        raise
    seconds = time.monotonic() - started
    if since is not None and (first := first_began(stage.layout, stage.name, since)) is not None:
        seconds = max(seconds, time.time() - first)
    storage.write_json(stage.layout.logs(stage.name, "timing.json"), timing_of(stage, manifest, seconds))
    say(f"{stage.name}: done in {human_seconds(seconds)}")
    return manifest


def leave_failure(stage: Stage | DriverStage, error: LolaError) -> None:
    """Keep what stopped a stage as a whole for `status`; units tell their own failures."""
    state = StageState(stage.layout, stage.name)
    phases = stage.phases if isinstance(stage, Stage) else []
    if not any(state.failures(phase.phase) for phase in phases):
        with suppress(LolaError):
            state.mark_failed(WHOLE, stage.name, message=str(error), log=stage.layout.logs(stage.name))


def _drive(stage: DriverStage, state: StageState, fingerprint: dict[str, Any]) -> dict[str, Any]:
    say(f"{stage.name}: started")
    began = time.time()
    reset_peak()
    manifest = {
        "format": manifest_format.FORMAT,
        "made_by": manifest_format.made_by(),
        "stage": stage.name,
        "fingerprint": fingerprint,
        **stage.action(),
    }
    leave_usage(stage.layout, stage.name, WHOLE, 0, began)
    storage.write_json(stage.layout.manifest(stage.name), manifest)
    state.mark_complete()
    return manifest


def _close(stage: Stage, fingerprint: dict[str, Any]) -> dict[str, Any]:
    forecast = forecast_of(stage)
    manifest = stage.write_manifest(fingerprint, lambda made: beside_outcome(forecast, made) if forecast else None)
    for line in summary(manifest):
        say(line)
    return manifest


def summary(manifest: dict[str, Any]) -> list[str]:
    """What a stage did, in a line or two."""
    totals = manifest["totals"]
    removed = ", ".join(f"{reason} {counts['documents']:,}" for reason, counts in totals["removed"].items())
    line = f"{manifest['stage']}: {totals['in']['documents']:,} documents in, {totals['out']['documents']:,} out"
    return [f"{line}; removed: {removed}" if removed else line]


def redo(stage: Stage | DriverStage) -> None:
    """Delete what a stage wrote, so that it starts afresh.

    Raises:
        StageError: an input lies in what would be deleted, or a file cannot be deleted.
        ShardError: the same of a remote work folder.
    """
    check_overlap(stage)
    if stage.layout.hidden and storage.exists(stage.layout.manifest(stage.name)):
        # The folder is the user's: what this stage put there goes, and nothing else.
        for path, _ in files_of(stage.layout, stage.name):
            storage.remove(storage.join(stage.layout.workdir, path))
    for root in stage.output_roots():
        if stage.name in stage.layout.trees and root == stage.layout.tree(stage.name):
            continue
        if storage.is_remote(root):
            remove_tree(root)
            continue
        path = storage.local_path(root)
        try:
            # A link to a folder stays: it says where the user wants the tree to lie.
            for child in [path] if path.is_dir() and not path.is_symlink() else path.iterdir() if path.is_dir() else []:
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        except OSError as error:
            raise StageError(
                f"{stage.name}: {error.filename or path} cannot be deleted: {error.strerror or error}. Delete it "
                f"yourself and run the same command again"
            ) from error
