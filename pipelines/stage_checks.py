"""What is looked at before a stage begins: that it does not write where it reads, that its inputs are whole, and that
its own output is still there."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.errors import StageError
from lola_data.remote_trees import objects_below
from pipelines.stage import Stage
from pipelines.state import StageState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.layout import Layout
    from pipelines.run import DriverStage


def made_by_hand(layout: Layout, name: str) -> bool:
    """Whether a tree is one that `lola-data tokenizer train` has put where the stage would have."""
    if name != "tokenizer" or StageState(layout, name).recorded_fingerprint() is not None:
        return False
    return storage.exists(storage.join(layout.tree(name), "tokenizer.model"))


def check_overlap(stage: Stage | DriverStage) -> None:
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


def check_inputs(stage: Stage | DriverStage) -> None:
    """Raise StageError unless every file that the manifests of the inputs name is there, whole.

    A driver stage says itself what it makes of a tree that is not there at all.
    """
    layout = stage.layout
    for name in stage.inputs:
        if (
            name in layout.trees
            or made_by_hand(layout, name)
            or (not isinstance(stage, Stage) and not storage.exists(layout.tree(name)))
        ):
            continue
        if lost := _lost(layout, name):
            gone = not storage.exists(lost)
            raise StageError(
                f"{stage.name}: {lost} {'is gone that' if gone else 'is not what'} the stage `{name}` made. Run the "
                f"whole recipe, or that stage: it makes again what is missing, and nothing else"
            )


def files_of(layout: Layout, name: str) -> list[tuple[str, int]]:
    """Files that the manifest of a stage names, with their sizes; paths below the work folder."""
    files = storage.read_json(layout.manifest(name)).get("files", [])
    return [(file["path"], file["bytes"]) for file in files if file["path"].startswith(layout.file(name, ""))]


def _lost(layout: Layout, name: str) -> str | None:
    """A file of a stage that is not there, or not as large as its manifest says; None: all are."""
    if not storage.exists(layout.manifest(name)):
        return layout.manifest(name)
    # Rows that were removed lie outside of the stage's tree; their units' records may be lost with them.
    removed = layout.removed(name).removeprefix(layout.workdir.rstrip("/")).strip("/")
    kept = storage.read_json(layout.manifest(name)).get("files", [])
    files = files_of(layout, name)
    files += [(file["path"], file["bytes"]) for file in kept if file["path"].startswith(f"{removed}/")]
    sizes = _sizes(layout, [path for path, _ in files])
    return next((storage.join(layout.workdir, path) for path, size in files if sizes.get(path) != size), None)


def _sizes(layout: Layout, paths: Sequence[str]) -> dict[str, int]:
    """Sizes of those files, given below the work folder, that are there. On a store, by listing their folders."""
    if not storage.is_remote(layout.workdir):
        sizes: dict[str, int] = {}
        for path in paths:
            with suppress(OSError):
                sizes[path] = storage.size(storage.join(layout.workdir, path))
        return sizes
    found: dict[str, int] = {}
    for top in {path.split("/", 1)[0] for path in paths}:
        below = objects_below(storage.join(layout.workdir, top), hidden=True)
        found |= {f"{top}/{path}": one.size for path, one in below.items()}
    return found


def up_to_date(stage: Stage | DriverStage, state: StageState) -> bool:
    """Whether a stage is finished and all its output there; what is not is forgotten, to be made again."""
    if not state.complete() or not storage.exists(stage.layout.manifest(stage.name)):
        return False
    # Intermediate files are deleted at the end, so of a finished stage only the last phase's output is looked for.
    if isinstance(stage, Stage) and forget_lost_output(stage, stage.phases[-1].phase):
        return False
    if _lost(stage.layout, stage.name):
        state.forget_completion()
        return False
    if isinstance(stage, Stage):
        for phase in stage.phases:
            state.forget_failures(phase.phase)
        stage.delete_scratch()
    return True


def forget_lost_output(stage: Stage, phase: str) -> int:
    """Forget units whose output has gone or changed its size since, so that they are done again."""
    state = StageState(stage.layout, stage.name)
    reports = state.reports(phase)
    sizes = _sizes(stage.layout, [file.path for report in reports for file in report.files])
    lost = [report.key for report in reports if any(sizes.get(file.path) != file.bytes for file in report.files)]
    for key in lost:
        state.forget(phase, key)
    return len(lost)
