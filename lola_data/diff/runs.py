"""Two runs compared: two work folders in, what their recipes, stages and removals have different out.

Settings are those of the fingerprints, which hold what decides a stage's output. Raw shards are compared by the digests
and sizes that the manifests have; later trees document by document, by id; texts only in the last of them, and only
where the raw shards are not the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.diff.audit import Audit, audit
from lola_data.diff.trees import TreeDiff, compare_trees
from lola_data.errors import ShardError
from lola_data.inspect.places import removed_of, tree_of
from lola_data.inspect.rows import find_rows
from lola_data.layout import TREES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.diff.records import Match
    from lola_data.diff.trees import Sample
    from lola_data.layout import Layout

TEXT_STAGES = ("identify", "dedup", "sample")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs: stage, key, and the values as JSON text (``-`` where a run has none)."""

    stage: str
    key: str
    first: str
    second: str


@dataclass(frozen=True)
class RawDiff:
    """Raw shards of two runs, by what their manifests say.

    Attributes:
        first: shards of the first run.
        second: shards of the second.
        same: shards of one path and one content.
        changed: paths of those with other content.
        went: paths only in the first.
        came: paths only in the second.
    """

    first: int
    second: int
    same: int
    changed: tuple[str, ...]
    went: tuple[str, ...]
    came: tuple[str, ...]

    @property
    def alike(self) -> bool:
        """Whether both runs were made of the same shards."""
        return not (self.changed or self.went or self.came)


@dataclass
class RunDiff:
    """Two runs compared.

    Attributes:
        settings: those that differ.
        raw: their raw shards; None where a run has no manifest of them.
        stages: stage -> the comparison of its trees, for stages that both have.
        audits: what each run removed.
    """

    settings: list[Setting]
    raw: RawDiff | None
    stages: dict[str, TreeDiff]
    audits: tuple[Audit, Audit]

    @property
    def subject(self) -> str:
        """The last stage that both have."""
        return list(self.stages)[-1]


def compare_runs(
    first: Layout,
    second: Layout,
    *,
    languages: Sequence[str] = (),
    match_by: Match | None = None,
    samples: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RunDiff:
    """Compare two runs.

    Args:
        first: the run before.
        second: the run after.
        languages: only these folders (none: all).
        match_by: what documents are known by (None: their ids).
        samples: documents of each kind to show.
        seed: decides which.
        progress: called with shards done and shards in all, of one tree after the other.

    Raises:
        ShardError: the runs have no tree in common, or a shard cannot be read.
    """
    raw = compare_raw(first, second)
    places = {stage: (tree_of(first, stage), tree_of(second, stage)) for stage in TEXT_STAGES}
    shared = [stage for stage, pair in places.items() if None not in pair]
    if not shared:
        raise ShardError(
            f"{first.workdir} and {second.workdir}: no tree of text that both have; run `identify` in both"
        )
    stages: dict[str, TreeDiff] = {}
    for stage in shared:
        a, b = places[stage]
        assert a is not None
        assert b is not None
        last = stage == shared[-1]
        stages[stage] = compare_trees(
            a.of(languages),
            b.of(languages),
            match_by=match_by or "id",
            with_text=last and (raw is None or not raw.alike),
            samples=samples if last else 0,
            seed=seed,
            progress=progress,
        )
    subject = stages[shared[-1]]
    if subject.match == "id":
        subject.samples = _explained(subject.samples, first, second)
    audits = audit(first, languages=languages), audit(second, languages=languages)
    return RunDiff(compare_settings(first, second), raw, stages, audits)


def compare_settings(first: Layout, second: Layout) -> list[Setting]:
    """Settings of the recipes that differ, of the stages that both runs have begun."""
    found: list[Setting] = []
    for stage in TREES:
        ours, theirs = _settings(first, stage), _settings(second, stage)
        if ours is not None and theirs is not None:
            found += [Setting(stage, key, a, b) for key, a, b in differing(ours, theirs)]
    return found


def differing(first: Any, second: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """Keys (joined by dots) in which two JSON values differ, with both values as JSON text.

    >>> differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1.5, "c": 2}})
    [('a.b', '1', '1.5')]
    """
    if isinstance(first, dict) and isinstance(second, dict):
        found: list[tuple[str, str, str]] = []
        for key in sorted({*first, *second}):
            name = f"{prefix}.{key}" if prefix else str(key)
            found += differing(first.get(key, _MISSING), second.get(key, _MISSING), name)
        return found
    if first is not _MISSING and second is not _MISSING and first == second:
        return []
    return [(prefix, _as_json(first), _as_json(second))]


def _as_json(value: Any) -> str:
    return "-" if value is _MISSING else json.dumps(value, ensure_ascii=False)


def _settings(layout: Layout, stage: str) -> dict[str, Any] | None:
    path = layout.state(stage, "fingerprint.json")
    if storage.exists(path):
        return storage.read_json(path).get("settings", {})
    path = layout.manifest(stage)
    return storage.read_json(path).get("fingerprint", {}).get("settings") if storage.exists(path) else None


def compare_raw(first: Layout, second: Layout) -> RawDiff | None:
    """The raw shards of two runs, or None where one has no manifest of them."""
    ours, theirs = _raw_shards(first), _raw_shards(second)
    if ours is None or theirs is None:
        return None
    both = ours.keys() & theirs.keys()
    changed = [path for path in both if ours[path] != theirs[path]]
    return RawDiff(
        len(ours),
        len(theirs),
        len(both) - len(changed),
        tuple(sorted(changed)),
        tuple(sorted(ours.keys() - theirs.keys())),
        tuple(sorted(theirs.keys() - ours.keys())),
    )


def _raw_shards(layout: Layout) -> dict[str, tuple[Any, ...]] | None:
    """Path -> what tells the content: SHA-256, where the source has one, bytes and rows."""
    path = layout.manifest("download")
    if not storage.exists(path):
        return None
    manifest = storage.read_json(path)
    digests = {one["path"]: one.get("sha256") for one in manifest.get("source", {}).get("shards", [])}
    found: dict[str, tuple[Any, ...]] = {}
    for file in manifest.get("files", []):
        name = "/".join(file["path"].rsplit("/", 2)[-2:])
        found[name] = (digests.get(name), file["bytes"], file["rows"])
    return found


def _explained(samples: Sequence[Sample], first: Layout, second: Layout) -> list[Sample]:
    """The samples with what the other run did with those that it does not have."""
    went = _fates(second, [sample.row.id for sample in samples if sample.kind == "went" and sample.row.id])
    came = _fates(first, [sample.row.id for sample in samples if sample.kind == "came" and sample.row.id])
    fates = {"went": went, "came": came}
    return [replace(sample, why=fates.get(sample.kind, {}).get(sample.row.id or "", "")) for sample in samples]


def _fates(layout: Layout, ids: Sequence[str]) -> dict[str, str]:
    """What a run did with documents that are not in its last tree: where they were removed and why."""
    found: dict[str, str] = {}
    for stage in ("identify", "dedup"):
        place = removed_of(layout, stage)
        left = [name for name in ids if name not in found]
        if place is None or not left:
            continue
        for name, row in find_rows(place.shards, left, of_a_run=True).items():
            kept = f", {row.values['kept_id']} was kept" if row.values.get("kept_id") else ""
            found[name] = f"removed at {stage}: {row.values.get('reason')}{kept}"
    place = tree_of(layout, "dedup")
    left = [name for name in ids if name not in found]
    if place is not None and left:
        found |= dict.fromkeys(find_rows(place.shards, left, of_a_run=True), "not sampled")
    return found
