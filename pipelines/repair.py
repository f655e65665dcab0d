"""Raw shards that were damaged since they came, fetched again from where they came from.

In: a tree that the stage ``download`` wrote, and its faults as :mod:`pipelines.verify` finds them. Out: the same files
with the digests on record; what was damaged is set aside in the scratch folder, which is one of this machine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lola_data import storage
from lola_data.errors import LolaError, StageError
from lola_data.layout import Layout
from lola_data.sections import DownloadSection
from pipelines.download import STAGE, FetchStep, scratch_folder
from pipelines.sources import RawShard
from pipelines.verify import Fault, checked_manifest, expected_files, look_at, sizes_of

FETCHED_AGAIN = frozenset({"missing", "size", "digest", "parquet", "rows"})
"""Kinds of faults that a sound copy mends. Text that is not UTF-8 was published so."""

_RECORD = "the manifest does not tell what the source has; begin afresh with `lola-data download ... --redo`"


def repair(root: str, faults: list[Fault]) -> tuple[list[str], list[Fault]]:
    """Fetch again what is wrong among raw shards: (paths that are sound again, faults that remain).

    A damaged file is set aside in the scratch folder. What arrives must have the digest that is on record.

    Raises:
        StageError: no record of where the shards came from.
    """
    layout = Layout.found_at(root)
    if layout is None or not storage.exists(layout.manifest(STAGE)):
        raise StageError(
            f"{root}: it is not on record where these shards came from, so they cannot be fetched again; only what "
            f"`lola-data download` or `lola-data run` brought can be repaired"
        )
    manifest = checked_manifest(layout.manifest(STAGE))
    on_record = {one.path: one for one in expected_files(root)}
    step = _step_of(layout, manifest)
    works = _works(step, manifest)
    by_path = {_in_tree(layout, work.path): work for work in works}
    mended: list[str] = []
    left: list[Fault] = []
    for path in dict.fromkeys(fault.path for fault in faults):
        own = [fault for fault in faults if fault.path == path]
        work = by_path.get(path)
        if work is None or not FETCHED_AGAIN & {fault.kind for fault in own}:
            left += own
            continue
        aside = scratch_folder(layout) / "damaged" / work.path
        _set_aside(path, aside)
        try:
            step.process(work)
            still = look_at(on_record[path], sizes_of([on_record[path]]))
            if not still:
                mended.append(path)
            left += [
                replace(one, message=f"{one.message}, also after it was fetched again: {_RECORD}") for one in still
            ]
        except LolaError as error:
            # What lies on a store was copied, and is replaced only by what is whole.
            if aside.exists() and not storage.is_remote(path):
                aside.replace(path)
            left.append(Fault(path, own[0].kind, f"{own[0].message}; not repaired: {error}"))
    return mended, left


def _in_tree(layout: Layout, path: str) -> str:
    tree = layout.tree(STAGE)
    return storage.join(tree, path) if storage.is_remote(tree) else str(storage.local_path(tree) / path)


def _set_aside(path: str, aside: Path) -> None:
    aside.parent.mkdir(parents=True, exist_ok=True)
    if not storage.is_remote(path):
        if Path(path).exists():
            Path(path).replace(aside)
    elif storage.exists(path):
        storage.copy(path, str(aside))


def _step_of(layout: Layout, manifest: dict[str, Any]) -> FetchStep:
    settings = manifest["fingerprint"]["settings"]
    known = {name: value for name, value in settings.items() if name in DownloadSection.model_fields}
    commit = manifest["source"].get("commit")
    section = DownloadSection(**{**known, **({"revision": commit} if commit else {})})
    return FetchStep(layout, section=section, languages=settings.get("languages"), seed=settings.get("seed", 0))


def _works(step: Any, manifest: dict[str, Any]) -> list[RawShard]:
    """The shards as they were planned, each with the digest of what came of it."""
    planned = {value["path"]: RawShard(**value) for value in step.state.plan(step.phase) or []}
    works: list[RawShard] = []
    for shard in manifest["source"]["shards"]:
        work = planned.get(shard["path"])
        digest = shard.get("origin_sha256") or shard.get("sha256")
        if work is not None:
            works.append(work if work.digest or not digest else _with_digest(work, digest))
    return works


def _with_digest(work: RawShard, digest: str) -> RawShard:
    return replace(work, digest=f"sha256:{digest}")
