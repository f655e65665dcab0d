"""What lies under a path: local folder or fsspec URL in, the trees of shards a balance can be taken of out.

Understood are a work folder of a run (``raw/``, ``identified/``, ``deduped/``, ``sampled/``, ``tokens/`` and what was
removed), one such tree, one language folder of it, one Parquet file, folders of Megatron token shards, and one Megatron
dataset, given as the prefix of its .idx and .bin files or as one of them. Only listings and the small ``plan.json`` are
read here; nothing is counted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from fsspec.implementations.local import LocalFileSystem

from lola_data.errors import RecipeError, ShardError
from lola_data.remote_objects import filesystem_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import fsspec

TEXT_STAGES = ("raw", "identified", "deduped", "sampled")
"""Folders of text trees in a work folder, in the order of the pipeline."""
REMOVING_STAGES = ("identify", "dedup")
"""Folders of ``removed/`` in the order of the pipeline."""

_EXPECTED = (
    "expected <language>/*.parquet, a work folder of `lola-data run`, one .parquet file, token shards "
    "<split>/<language>_00000.idx, or the prefix of a Megatron dataset"
)
IDS_SUFFIX = ".ids.parquet"
"""Ending of the files that name the documents of a token shard."""
# Megatron's preprocessing adds the key of the JSON and the level to the name it is given: de_text_document.
_TOKEN_SHARD = re.compile(r"(?P<lang>.+?)(?:_\d+)?(?:(?:_text)?_(?:document|sentence))?\.idx")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its ``path`` or URL, its language, its ``size`` in bytes on disk, and the split of a token shard."""

    path: str
    lang: str
    size: int
    split: str = ""


@dataclass(frozen=True)
class Tree:
    """A tree of shards. ``languages`` are all of its folders, those without a shard included."""

    name: str
    kind: Literal["text", "tokens", "removed"]
    root: str
    shards: tuple[Shard, ...]
    languages: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(shard.size for shard in self.shards)


@dataclass(frozen=True)
class Found:
    """The trees of one measurement in the order of the pipeline (or as given), what was removed on the way, by stage,
    and the sampling plan, one mapping per language. ``joined``: the trees are stages of one and the same run."""

    trees: tuple[Tree, ...]
    removed: dict[str, Tree] = field(default_factory=dict)
    plan: tuple[dict[str, Any], ...] = ()
    joined: bool = False


def find_trees(paths: Iterable[str], *, raw: str | None = None) -> Found:
    """The trees that ``paths`` hold. Language folders and files of one tree, as a shell makes of ``raw/*``, are joined.

    Args:
        paths: local paths or fsspec URLs.
        raw: the tree of raw shards that the one work folder among ``paths`` was made from, when it lies elsewhere.

    Raises:
        ShardError: a path that does not exist, holds no shards, or whose protocol is unknown or not installed.
        RecipeError: ``raw`` without exactly one work folder.
    """
    trees: list[Tree] = []
    works: list[Found] = []
    for given in paths:
        fs, root = _open(given)
        dataset = _dataset(fs, root, given)
        if dataset is not None:
            trees.append(dataset)
            continue
        folders, files = _listing(fs, root, given)
        work = _work_folder(fs, root, folders)
        if work is not None:
            works.append(work)
            trees.extend(work.trees)
        else:
            trees.append(_tree(fs, root, folders, files, given))
    trees = _merge(trees)
    if raw is not None:
        if len(works) != 1 or len(trees) != len(works[0].trees):
            raise RecipeError(f"raw {raw}: it belongs to one work folder; give just that folder with it")
        return _with_raw(works[0], raw)
    if len(works) == 1 and len(trees) == len(works[0].trees):
        return works[0]
    if len({tree.name for tree in trees}) < len(trees):
        names = _distinct_names([tree.root for tree in trees])
        trees = [replace(tree, name=name) for name, tree in zip(names, trees, strict=True)]
    return Found(tuple(trees))


def _with_raw(work: Found, raw: str) -> Found:
    fs, root = _open(raw)
    tree = replace(_tree(fs, root, *_listing(fs, root, raw), raw), name="raw")
    return replace(work, trees=(tree, *(other for other in work.trees if other.name != "raw")))


def _open(given: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = filesystem_of(given)
    return fs, root.rstrip("/") or "/"


def _listing(fs: fsspec.AbstractFileSystem, root: str, given: str) -> tuple[list[str], dict[str, int]]:
    """Folders, and files with their sizes, right under ``root``, sorted; hidden and underscored names left out."""
    try:
        entries: list[dict[str, Any]] = fs.ls(root, detail=True)
    except FileNotFoundError as error:
        raise ShardError(f"{given}: no such file or folder; {_EXPECTED}") from error
    except OSError as error:
        raise ShardError(
            f"{given}: cannot be listed ({error.strerror or error}); check the path and its rights"
        ) from error
    folders: list[str] = []
    files: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        path = str(entry["name"]).rstrip("/")
        if path == root and entry["type"] == "directory":
            continue
        if _name(path).startswith((".", "_")):
            continue
        if entry["type"] == "directory":
            folders.append(path)
        else:
            files[path] = int(entry.get("size") or 0)
    return folders, files


def _name(path: str) -> str:
    return PurePosixPath(path).name or path.strip("/")


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _work_folder(fs: fsspec.AbstractFileSystem, root: str, folders: list[str]) -> Found | None:
    """The trees of a run, when ``root`` is its work folder."""
    by_name = {_name(folder): folder for folder in folders}
    trees: list[Tree] = []
    for stage in (*TEXT_STAGES, "tokens"):
        if stage in by_name:
            found = _folder_tree(fs, by_name[stage], *_listing(fs, by_name[stage], by_name[stage]))
            if found is not None:
                trees.append(found)
    if not trees:
        return None
    removed: dict[str, Tree] = {}
    if "removed" in by_name:
        for folder in _listing(fs, by_name["removed"], by_name["removed"])[0]:
            tree = _folder_tree(fs, folder, *_listing(fs, folder, folder))
            if tree is not None and tree.kind == "text":
                name = _name(folder)
                removed[name] = replace(tree, kind="removed")
    ordered = {stage: removed[stage] for stage in (*REMOVING_STAGES, *sorted(removed)) if stage in removed}
    plan = _read_plan(fs, f"{by_name['sampled']}/plan.json") if "sampled" in by_name else ()
    return Found(tuple(trees), ordered, plan, joined=True)


def _tree(fs: fsspec.AbstractFileSystem, root: str, folders: list[str], files: dict[str, int], given: str) -> Tree:
    found = _folder_tree(fs, root, folders, files)
    if found is not None:
        return found
    home = _parent(root) if root in files else root  # a single file lists itself
    shards = _parquet(fs, files, _name(home))
    if shards:
        above = _parent(home)
        return Tree(_name(above) or "corpus", "text", above, tuple(shards), (_name(home),))
    what = "not a Parquet file" if root in files else "no shards here"
    raise ShardError(f"{given}: {what}; {_EXPECTED}")


def _dataset(fs: fsspec.AbstractFileSystem, root: str, given: str) -> Tree | None:
    """The tree of one Megatron dataset: its prefix is given, or its .idx or .bin file. None if it is none."""
    prefix = root.removesuffix(".idx").removesuffix(".bin")
    index, ids = f"{prefix}.idx", f"{prefix}.bin"
    if not fs.exists(index):
        if prefix != root and fs.exists(ids):
            raise ShardError(f"{given}: a Megatron dataset is a pair of files .idx and .bin, and {index} is missing")
        return None
    if prefix == root and fs.exists(root):  # a folder that has the name of a dataset beside it
        return None
    match = _TOKEN_SHARD.fullmatch(_name(index))
    lang = match["lang"] if match is not None else _name(prefix)
    size = sum(int(fs.info(path).get("size") or 0) for path in (index, ids) if fs.exists(path))
    home = _parent(index)
    return Tree(_name(home) or "tokens", "tokens", home, (Shard(_url(fs, index), lang, size),), (lang,))


def _folder_tree(fs: fsspec.AbstractFileSystem, root: str, folders: list[str], files: dict[str, int]) -> Tree | None:
    """The tree of <language>/*.parquet or [<split>/]<language>_00000.idx under ``root``, or None when it has none."""
    text: list[Shard] = []
    tokens = _token_shards(fs, files, "")
    languages: list[str] = []
    for folder in folders:
        below, inside = _listing(fs, folder, folder)
        parquet = _parquet(fs, inside, _name(folder))
        text.extend(parquet)
        tokens.extend(_token_shards(fs, inside, _name(folder)))
        if parquet or not (below or inside):
            languages.append(_name(folder))
    if text:
        return Tree(_name(root) or "corpus", "text", root, tuple(text), tuple(languages))
    if tokens:
        return Tree(_name(root), "tokens", root, tuple(tokens), tuple(sorted({shard.lang for shard in tokens})))
    return None


def _parquet(fs: fsspec.AbstractFileSystem, files: dict[str, int], lang: str) -> list[Shard]:
    # <lang>_00000.ids.parquet beside token shards holds the ids of their documents, and no text.
    return [
        Shard(_url(fs, path), lang, size)
        for path, size in files.items()
        if path.endswith(".parquet") and not path.endswith(IDS_SUFFIX)
    ]


def _token_shards(fs: fsspec.AbstractFileSystem, files: dict[str, int], split: str) -> list[Shard]:
    shards: list[Shard] = []
    for path, size in files.items():
        match = _TOKEN_SHARD.fullmatch(_name(path))
        if match is not None:
            both = size + files.get(f"{path.removesuffix('.idx')}.bin", 0)
            shards.append(Shard(_url(fs, path), match["lang"], both, split))
    return shards


def _url(fs: fsspec.AbstractFileSystem, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)


def _merge(trees: list[Tree]) -> list[Tree]:
    """Trees of the same root as one, so that a language given twice counts once."""
    merged: dict[tuple[str, str], Tree] = {}
    for tree in trees:
        seen = merged.get((tree.root, tree.kind))
        if seen is not None:
            shards = {shard.path: shard for shard in (*seen.shards, *tree.shards)}
            languages = tuple(sorted({*seen.languages, *tree.languages}))
            whole = tuple(shards[path] for path in sorted(shards))
            merged[tree.root, tree.kind] = replace(seen, shards=whole, languages=languages)
        else:
            merged[tree.root, tree.kind] = tree
    return list(merged.values())


def _distinct_names(roots: list[str]) -> list[str]:
    """The shortest endings of the paths that tell all of them apart."""
    parts = [PurePosixPath(root).parts for root in roots]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return roots


def _read_plan(fs: fsspec.AbstractFileSystem, path: str) -> tuple[dict[str, Any], ...]:
    """Rows of the sampling plan: ``languages`` is a list of objects with ``lang``, or an object keyed by language."""
    if not fs.exists(path):
        return ()
    try:
        plan = json.loads(fs.cat_file(path))
        languages = plan["languages"]
        rows = [{"lang": k, **v} for k, v in languages.items()] if isinstance(languages, dict) else list(languages)
        return tuple({"lang": str(row["lang"]), **row} for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path}: not a sampling plan ({error!r}); run the sample stage again") from error
