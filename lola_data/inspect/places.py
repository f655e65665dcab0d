"""What a path given to look at holds: a local path or fsspec URL in, the shards to read and the run they belong to out.

Understood is what :func:`lola_data.balance.trees.find_trees` understands, and the trees of removed rows
(``removed/<stage>/<lang>/``), each as a whole, by language or by file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lola_data import storage
from lola_data.balance.trees import REMOVING_STAGES, Found, Shard, Tree, find_trees
from lola_data.errors import RecipeError, ShardError
from lola_data.inspect.rows import columns_of, row_counts
from lola_data.layout import TREES, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["text", "removed", "tokens"]
_OPENED_AT_A_TIME = 16
"""Footers are small and far away: the wait for them is what counts."""


@dataclass(frozen=True)
class Place:
    """A tree to read documents from.

    Attributes:
        name: of the tree: ``sampled``, ``removed/dedup``, or the last folder of its path.
        kind: what a row of it is.
        root: folder or URL of the tree.
        shards: its files, sorted.
        workdir: the work folder that the tree is part of, if it is.
    """

    name: str
    kind: Kind
    root: str
    shards: tuple[Shard, ...]
    workdir: str | None

    @property
    def languages(self) -> list[str]:
        """Folders with a shard, sorted."""
        return sorted({shard.lang for shard in self.shards})

    @property
    def layout(self) -> Layout | None:
        """Paths of the run, if the tree is part of one."""
        return None if self.workdir is None else Layout(self.workdir)

    def of(self, languages: Sequence[str]) -> Place:
        """The place with the shards of these languages only; none: all."""
        return replace(self, shards=tuple(s for s in self.shards if s.lang in languages)) if languages else self


def find_places(path: str, *, removed: bool = False) -> list[Place]:
    """The trees to read of ``path``: of a work folder the last tree of text, or, with ``removed``, what each stage
    removed; otherwise the one that is there.

    Raises:
        ShardError: nothing there, or no removed rows though they are asked for.
    """
    if path.rstrip("/").rpartition("/")[2] == "removed":
        return _removed_of(path.rstrip("/").rpartition("/")[0] or ".", path)
    found = find_trees([path])
    if found.joined:
        return _removed_places(found, path) if removed else [_last(found, path)]
    place = _place(found.trees[0])
    if removed and place.kind != "removed":
        home = f" its work folder {place.workdir}" if place.workdir else " a work folder"
        raise ShardError(f"{path}: has no removed rows; name{home}, or removed/<stage> in it")
    return [place]


def work_folder(path: str) -> str | None:
    """``path`` if it is the work folder of a run."""
    try:
        found = find_trees([path])
    except ShardError:
        if storage.exists(storage.join(path, "state")):
            return path
        raise
    return path.rstrip("/") if found.joined else None


def tree_of(layout: Layout, stage: str) -> Place | None:
    """The tree that a stage of a run wrote, or None where there is none yet."""
    return _tree_at(layout.tree(stage), layout.workdir, TREES[stage])


def removed_of(layout: Layout, stage: str) -> Place | None:
    """The rows that a stage of a run removed, or None where there are none."""
    place = _tree_at(layout.removed(stage), layout.workdir, f"removed/{stage}")
    return None if place is None else replace(place, kind="removed")


def _tree_at(root: str, workdir: str, name: str) -> Place | None:
    if not storage.exists(root):
        return None
    try:
        tree = find_trees([root]).trees[0]
    except ShardError:
        return None  # Nothing in it, so far.
    kind = "tokens" if tree.kind == "tokens" else "text"
    return Place(name, kind, _root(tree), tree.shards, workdir)


def _last(found: Found, path: str) -> Place:
    texts = [tree for tree in found.trees if tree.kind == "text"]
    if not texts:
        raise ShardError(f"{path}: has no tree of text; name {path.rstrip('/')}/tokens for the token shards")
    return _place(texts[-1])


def _removed_places(found: Found, path: str) -> list[Place]:
    places = [replace(_place(tree), name=f"removed/{stage}", kind="removed") for stage, tree in found.removed.items()]
    if not places:
        raise ShardError(f"{path}: has no removed rows: no stage has removed any, or none has run that would")
    return places


def _removed_of(workdir: str, path: str) -> list[Place]:
    layout = Layout(workdir)
    places = [place for stage in REMOVING_STAGES if (place := removed_of(layout, stage)) is not None]
    if not places:
        raise ShardError(f"{path}: no removed rows there")
    return places


def _place(tree: Tree) -> Place:
    root = _root(tree)
    parent, _, name = root.rpartition("/")
    above, _, folder = parent.rpartition("/")
    if tree.kind == "tokens":
        split = parent if folder == TREES["tokenize"] else root  # One split of the tree was named.
        home = split.rpartition("/")[0]
        name = split.rpartition("/")[2]
        return Place(name, "tokens", split, tree.shards, home if _is_work_folder(home) else None)
    names = columns_of(tree.shards[0].path)
    if "text" not in names and {"id", "reason"} <= set(names):
        workdir = above if folder == "removed" else None
        return Place(f"removed/{name}" if workdir else tree.name, "removed", root, tree.shards, workdir)
    workdir = parent if name in TREES.values() and _is_work_folder(parent) else None
    return Place(tree.name, "text", root, tree.shards, workdir)


def _is_work_folder(path: str) -> bool:
    return bool(path) and any(storage.exists(storage.join(path, name)) for name in ("state", "removed"))


def _root(tree: Tree) -> str:
    """The root of a tree with its protocol, which its shards have."""
    shard = tree.shards[0]
    depth = 1 if tree.kind == "tokens" and not shard.split else 2
    return shard.path.rsplit("/", depth)[0]


def check_languages(places: Sequence[Place], languages: Sequence[str], path: str) -> None:
    """Raise RecipeError where one of ``languages`` has no shard in any of the places; the nearest is named."""
    check_language_names(sorted({lang for place in places for lang in place.languages}), languages, path)


def check_language_names(there: Sequence[str], languages: Sequence[str], path: str) -> None:
    """The same for the names of the languages that are there."""
    import difflib

    for lang in languages:
        if lang not in there:
            near = difflib.get_close_matches(lang, there, n=1, cutoff=0.0)
            some = ", ".join(there[:12]) + (" ..." if len(there) > 12 else "")
            raise RecipeError(
                f"--lang {lang}: {path} has no documents of it here; the nearest of its {len(there)} languages is "
                f"{near[0]!r} ({some})"
            )


def rows_of_shards(place: Place) -> list[int]:
    """Rows of each shard of a place, in order: from the manifest beside the tree where that still describes the file,
    else from the file's footer."""
    known = _manifest_rows(place)
    counts = [known.get((_ending(shard), shard.size)) for shard in place.shards]
    left = [number for number, count in enumerate(counts) if count is None]

    def rows(number: int) -> int:
        return sum(row_counts(place.shards[number].path))

    with ThreadPoolExecutor(_OPENED_AT_A_TIME) as pool:
        for number, count in zip(left, pool.map(rows, left), strict=True):
            counts[number] = count
    return [int(count or 0) for count in counts]


def _manifest_rows(place: Place) -> dict[tuple[str, int], int]:
    """Rows by ``<lang>/<file>`` and size, as the stage recorded them; empty without a manifest that says so."""
    stages = {folder: stage for stage, folder in TREES.items()}
    name = place.name.removeprefix("removed/") if place.kind == "removed" else stages.get(place.name, "")
    if place.layout is None or name not in TREES:
        return {}
    path = place.layout.manifest(name)
    if not storage.exists(path):
        return {}
    files: list[dict[str, Any]] = storage.read_json(path).get("files", [])
    start = f"{place.name}/"
    return {(file["path"].removeprefix(start), file["bytes"]): file["rows"] for file in files
            if file["path"].startswith(start)}  # fmt: skip


def _ending(shard: Shard) -> str:
    return "/".join(shard.path.rsplit("/", 2)[-2:])


def shown_path(place: Place, path: str) -> str:
    """A file of a place as a reader knows it: ``sampled/yo/yo_part_00000.parquet``."""
    return f"{place.name}/{path.removeprefix(place.root).lstrip('/')}"
