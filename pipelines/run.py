"""Runs one stage from wherever it stands to its end: fingerprint, plan, phases on the executor, manifest."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data import manifest as manifest_format
from lola_data import storage
from lola_data.errors import LolaError, StageError
from lola_data.layout import TREES, Layout
from pipelines.executors import run_phase
from pipelines.foreseen import beside_outcome, forecast_of, timing_of
from pipelines.progress import human_bytes, human_seconds, phase_bar, say
from pipelines.stage import Stage
from pipelines.state import StageState, digest, manifest_digest
from pipelines.usage import leave_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lola_data.sections import ExecutorSection
    from pipelines.stage import ShardStep, Work

CARD_FILES = ("README.md", "croissant.json")
"""Files of `lola-data card`."""
WHOLE = "stage"
"""In the place of a phase: a failure of the stage as a whole."""
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


def fingerprint_of(stage: Stage | DriverStage) -> dict[str, Any]:
    """What decides a stage's output: its settings and the manifests of its inputs.

    Raises:
        StageError: an input tree is missing or not complete.
    """
    return {
        "stage": stage.name,
        "format": FORMAT,
        "settings": stage.settings,
        "inputs": {name: _input_digest(stage, name) for name in stage.inputs},
    }


def _input_digest(stage: Stage | DriverStage, name: str) -> str:
    layout = stage.layout
    if name in layout.trees:
        # A card that was written beside the shards says nothing new.
        files = [file for file in storage.list_files(layout.tree(name), "") if file[0] not in CARD_FILES]
        if not files:
            raise StageError(f"{stage.name}: {layout.tree(name)}: nothing there; give the tree of {TREES[name]} shards")
        return digest(files)
    if _made_by_hand(layout, name):
        return digest(storage.list_files(layout.tree(name), ".model"))
    if not StageState(layout, name).complete() or not storage.exists(layout.manifest(name)):
        raise StageError(f"{stage.name}: its input {layout.tree(name)} is not complete; run the stage `{name}` first")
    # The manifest holds the settings, the counts and the digests of all that came in from outside.
    return manifest_digest(storage.read_json(layout.manifest(name)))


def _made_by_hand(layout: Layout, name: str) -> bool:
    """Whether a tree is one that `lola-data tokenizer train` has put where the stage would have."""
    if name != "tokenizer" or StageState(layout, name).recorded_fingerprint() is not None:
        return False
    return storage.exists(storage.join(layout.tree(name), "tokenizer.model"))


def run_stage(stage: Stage | DriverStage, executor: ExecutorSection) -> dict[str, Any]:
    """Bring a stage to its end and return its manifest. What is finished already is not done again.

    Raises:
        StageError: input missing, recipe changed, or units failed (each named with its message and log).
    """
    state = StageState(stage.layout, stage.name)
    _check_overlap(stage)
    fingerprint = fingerprint_of(stage)
    if isinstance(stage, Stage):
        state.begin(fingerprint, same_units=stage.same_units, grows=stage.grows)
    else:
        state.begin(fingerprint)
    state.forget_failures(WHOLE)
    if _up_to_date(stage, state):
        say(f"{stage.name}: up to date")
        return storage.read_json(stage.layout.manifest(stage.name))
    started = time.monotonic()
    try:
        manifest = _work(stage, state, fingerprint, executor)
    except LolaError as error:
        # Units tell their own failures; what stops the stage as a whole is kept for `status`.
        phases = stage.phases if isinstance(stage, Stage) else []
        if not any(state.failures(phase.phase) for phase in phases):
            log = stage.layout.logs(stage.name)
            with suppress(LolaError):
                state.mark_failed(WHOLE, stage.name, message=str(error), log=log)
        raise
    seconds = time.monotonic() - started
    storage.write_json(stage.layout.logs(stage.name, "timing.json"), timing_of(stage, manifest, seconds))
    say(f"{stage.name}: done in {human_seconds(seconds)}")
    return manifest


def _work(
    stage: Stage | DriverStage, state: StageState, fingerprint: dict[str, Any], executor: ExecutorSection
) -> dict[str, Any]:
    _check_inputs(stage)
    for root in stage.output_roots():
        storage.remove_temporaries(root)
    if isinstance(stage, DriverStage):
        say(f"{stage.name}: started")
        before = _processor_seconds()
        manifest = {
            "format": manifest_format.FORMAT,
            "made_by": manifest_format.made_by(),
            "stage": stage.name,
            "fingerprint": fingerprint,
            **stage.action(),
        }
        leave_usage(stage.layout, stage.name, WHOLE, 0, _processor_seconds() - before)
        storage.write_json(stage.layout.manifest(stage.name), manifest)
        state.mark_complete()
        return manifest
    for phase in stage.phases:
        _forget_lost_output(stage, phase.phase)
    for phase in stage.phases:
        _run_phase(stage, phase, executor)
    forecast = forecast_of(stage)
    manifest = stage.write_manifest(fingerprint, lambda made: beside_outcome(forecast, made) if forecast else None)
    for line in summary(manifest):
        say(line)
    return manifest


def _processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _check_overlap(stage: Stage | DriverStage) -> None:
    """Raise StageError where a folder that is read is one that the stage writes, and `--redo` deletes."""
    places = [stage.layout.trees[name] for name in stage.inputs if name in stage.layout.trees]
    places += [stage.settings["path"]] if stage.name == "download" and stage.settings.get("path") else []
    for place in places:
        if storage.is_remote(place):
            if place.rstrip("/") in (root.rstrip("/") for root in stage.output_roots()):
                raise StageError(_overlap(stage, place, place))
            continue
        read = storage.local_path(place).resolve()
        for root in stage.output_roots():
            written = None if storage.is_remote(root) else storage.local_path(root).resolve()
            if written is not None and (read == written or written in read.parents or read in written.parents):
                raise StageError(_overlap(stage, place, root))


def _overlap(stage: Stage | DriverStage, place: str, root: str) -> str:
    return (
        f"{stage.name}: {place} is to be read, but {root} is where the stage writes. Set another `workdir`, or move "
        f"the shards to a folder of their own"
    )


def _check_inputs(stage: Stage | DriverStage) -> None:
    """Raise StageError unless every file that the manifests of the inputs name is there, whole.

    A driver stage says itself what it makes of a tree that is not there at all.
    """
    if storage.is_remote(stage.layout.workdir):
        return
    for name in stage.inputs:
        tree = storage.local_path(stage.layout.tree(name))
        if (
            name in stage.layout.trees
            or _made_by_hand(stage.layout, name)
            or (isinstance(stage, DriverStage) and not tree.exists())
        ):
            continue
        for path, size in _files_of(stage.layout, name):
            if not path.is_file() or path.stat().st_size != size:
                raise StageError(
                    f"{stage.name}: {path} {'is not what' if path.exists() else 'is gone that'} the stage `{name}` "
                    f"made. Run the whole recipe, or that stage: it makes again what is missing, and nothing else"
                )


def _files_of(layout: Layout, name: str) -> list[tuple[Path, int]]:
    manifest = storage.local_path(layout.manifest(name))
    if not manifest.exists():
        return [(manifest, 0)]
    root = storage.local_path(layout.workdir)
    files = storage.read_json(str(manifest)).get("files", [])
    return [(root / file["path"], file["bytes"]) for file in files if file["path"].startswith(layout.file(name, ""))]


def _up_to_date(stage: Stage | DriverStage, state: StageState) -> bool:
    """Whether a stage is finished and all its output there; what is not is forgotten, to be made again."""
    if not state.complete() or not storage.exists(stage.layout.manifest(stage.name)):
        return False
    # Intermediate files are deleted at the end, so of a finished stage only the last phase's output is looked for.
    if isinstance(stage, Stage) and _forget_lost_output(stage, stage.phases[-1].phase):
        return False
    if not storage.is_remote(stage.layout.workdir):
        for path, size in _files_of(stage.layout, stage.name):
            if not path.is_file() or path.stat().st_size != size:
                state.forget_completion()
                return False
    if isinstance(stage, Stage):
        for phase in stage.phases:
            state.forget_failures(phase.phase)
        stage.delete_scratch()
    return True


def _forget_lost_output(stage: Stage, phase: str) -> int:
    """Forget units whose output has gone or changed its size since, so that they are done again."""
    state = StageState(stage.layout, stage.name)
    if storage.is_remote(stage.layout.workdir):
        return 0
    forgotten = 0
    for report in state.reports(phase):
        for file in report.files:
            path = storage.local_path(storage.join(stage.layout.workdir, file.path))
            if not path.is_file() or path.stat().st_size != file.bytes:
                state.forget(phase, report.key)
                forgotten += 1
                break
    return forgotten


def _run_phase(stage: Stage, step: ShardStep, executor: ExecutorSection) -> None:
    state = StageState(stage.layout, stage.name)
    works = step.plan()
    plan = [work.to_json() for work in works]
    recorded = state.plan(step.phase)
    if recorded is not None and recorded != plan and not _only_mended(step, recorded, works):
        raise StageError(
            f"{stage.name}: the shards it reads have changed since it was begun ({len(recorded)} units of work then, "
            f"{len(plan)} now). Run with `--redo {stage.name}`"
        )
    state.write_plan(step.phase, plan)
    if not works and len(stage.phases) > 1:
        return  # A phase that this corpus has no use for.
    sizes = {work.key: work.bytes for work in works}
    if len(sizes) != len(works):
        twice = next(key for key, count in Counter(work.key for work in works).items() if count > 1)
        raise StageError(f"{stage.name}: two shards would be written under one name, {twice}; rename one of them")
    done = state.done_keys(step.phase) & sizes.keys()
    left = [work for work in works if work.key not in done]
    label = stage.name if len(stage.phases) == 1 else f"{stage.name} ({step.phase})"
    say(
        f"{label}: {len(left)} of {len(works)} units to do, {human_bytes(sum(work.bytes for work in left))}"
        if left
        else f"{label}: nothing left to do"
    )
    state.forget_failures(step.phase)
    if not left:
        return

    for line in step.announce(left, executor.workers):
        say(line)

    def completed() -> int:
        return sum(sizes.get(key, 0) for key in state.done_keys(step.phase)) + step.under_way()

    with phase_bar(label, sum(sizes.values()), completed) as update:
        lost = run_phase(
            step,
            tasks=min(executor.tasks, len(left)),
            workers=executor.workers,
            logging_dir=stage.layout.logs(stage.name, step.phase),
            on_poll=update,
        )
    _raise_failures(stage, step, lost, expected=set(sizes))


def _only_mended(step: ShardStep, recorded: list[dict[str, Any]], works: Sequence[Work]) -> bool:
    """Whether all that is finished is planned as it was; what is not may have been mended since."""
    done = step.state.done_keys(step.phase)
    before = {work.key: work.to_json() for work in map(step.work_from_json, recorded) if work.key in done}
    return before == {work.key: work.to_json() for work in works if work.key in done}


def _raise_failures(stage: Stage, step: ShardStep, lost: dict[int, str], *, expected: set[str]) -> None:
    state = StageState(stage.layout, stage.name)
    failures = state.failures(step.phase)
    missing = expected - state.done_keys(step.phase)
    if not missing:
        return
    lines = [f"{failure['message']} [log: {failure['log']}]" for failure in failures]
    lines += [f"task {rank} {reason}" for rank, reason in sorted(lost.items())]
    shown = lines[:10] + ([f"... and {len(lines) - 10} more: lola-data status"] if len(lines) > 10 else [])
    raise StageError(
        f"{stage.name}: {len(missing)} of {len(expected)} units failed; the others are done and kept. "
        f"Mend the cause and run the same command again.\n  " + "\n  ".join(shown)
    )


def summary(manifest: dict[str, Any]) -> list[str]:
    """What a stage did, in a line or two."""
    totals = manifest["totals"]
    removed = ", ".join(f"{reason} {counts['documents']:,}" for reason, counts in totals["removed"].items())
    line = f"{manifest['stage']}: {totals['in']['documents']:,} documents in, {totals['out']['documents']:,} out"
    return [f"{line}; removed: {removed}" if removed else line]


def redo(stage: Stage | DriverStage) -> None:
    """Delete what a stage wrote, so that it starts afresh. Local work folders only.

    Raises:
        StageError: the work folder is remote, an input lies in what would be deleted, or a file cannot be deleted.
    """
    if storage.is_remote(stage.layout.workdir):
        raise StageError(f"{stage.layout.workdir}: --redo deletes local folders only; delete the remote ones yourself")
    _check_overlap(stage)
    if stage.layout.hidden:
        # The folder is the user's: what this stage put there goes, and nothing else.
        for path, _ in _files_of(stage.layout, stage.name):
            path.unlink(missing_ok=True)
    for root in stage.output_roots():
        path = storage.local_path(root)
        if stage.name in stage.layout.trees and path == storage.local_path(stage.layout.tree(stage.name)):
            continue
        try:
            # A link to a folder stays: it says where the user wants the tree to lie.
            for child in [path] if path.is_dir() and not path.is_symlink() else path.iterdir() if path.is_dir() else []:
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        except OSError as error:
            raise StageError(
                f"{stage.name}: {error.filename or path} cannot be deleted: {error.strerror or error}. Delete it "
                f"yourself and run the same command again"
            ) from error
