"""Whether a tree of shards is still what it was: digests, Parquet footers, schemas, row counts, UTF-8.

In: a folder of raw shards (downloaded here, or by anything that left ``checksum.sha256`` files), a tree of any stage,
or a whole work folder, here or on a store. Out: every fault, by file. :mod:`pipelines.repair` mends those of raw
shards.

Of a store the trees are listed at once. A shard whose content is looked at is brought to a temporary folder first, so
that it is fetched once, in large pieces, for all that is asked of it.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lola_data import checks, storage
from lola_data.errors import LolaError, ShardError, StageError, StoreError
from lola_data.foreign_names import escaped, why_unsafe
from lola_data.layout import TREES
from lola_data.remote_tokens import open_token_shard
from lola_data.remote_trees import sizes_below
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW, REMOVED
from lola_data.shards import Unit, further_columns, open_parquet, read_batches
from pipelines.digests import LISTING, listed_digests, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_SCHEMAS = {"download": RAW, "identify": IDENTIFIED, "dedup": DEDUPED, "sample": DEDUPED}


@dataclass(frozen=True, slots=True)
class Expected:
    """A file that should be there, and what is known of it."""

    path: str
    """Local path or URL."""
    tree: str
    """The tree it lies in: the folder of the folders of languages."""
    stage: str | None = None
    bytes: int | None = None
    rows: int | None = None
    sha256: str | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file.

    ``kind``: missing, size, digest, parquet (footer, row group or schema), rows, utf8, tokens, or unlisted (no manifest
    knows the file, yet a later stage would read it).
    """

    path: str
    kind: str
    message: str


@dataclass
class Verified:
    """What was looked at, and the faults found, by path."""

    files: int = 0
    bytes: int = 0
    digests: int = 0
    """Files whose digest was known and compared."""
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        faults = [{"path": one.path, "kind": one.kind, "message": one.message} for one in self.faults]
        return {"files": self.files, "bytes": self.bytes, "digests": self.digests, "faults": faults}


def verify(
    root: str, *, quick: bool = False, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Verified:
    """Look at every file below ``root``.

    Args:
        root: a tree ``<lang>/*.parquet``, or a work folder; a folder or a URL.
        quick: compare sizes and read footers only.
        workers: threads.
        progress: called with (bytes done, bytes in all) after each file.

    Raises:
        StageError: no such folder, or nothing to verify in it.
        ShardError: the store cannot be read, or the disk takes no copy of a shard that lies there.
    """
    expected = list(expected_files(root))
    sizes = sizes_of(expected)
    total = sum(sizes.get(one.path, 0) for one in expected)
    found, done = Verified(files=len(expected), bytes=total), 0
    with ThreadPoolExecutor(workers) as pool:
        looked = pool.map(lambda one: look_at(one, sizes, quick=quick), expected)
        for one, faults in zip(expected, looked, strict=True):
            found.faults += faults
            found.digests += one.sha256 is not None and not quick
            done += sizes.get(one.path, 0)
            if progress is not None:
                progress(done, total)
    found.faults += _unlisted(expected)
    found.faults.sort(key=lambda fault: (fault.path, fault.kind))
    return found


def expected_files(root: str) -> Iterator[Expected]:
    """The files that manifests and ``checksum.sha256`` lists below ``root`` name, and the shards that none does.

    Raises:
        StageError: no such folder, or nothing to verify in it.
        ShardError: a manifest that is damaged, or a store that cannot be read.
    """
    if storage.is_remote(root):
        folder, missing = root.rstrip("/"), "nothing is there"
    else:
        # As it is shown: `work`, not `./work/`.
        folder, missing = str(storage.local_path(root)), "no such folder"
    places = [_below(folder, name) for name in ("manifest.json", *(f"{tree}/manifest.json" for tree in _trees()))]
    manifests = [path for path in places if storage.exists(path)]
    if manifests:
        for path in manifests:
            yield from _named_in_manifest(path, checked_manifest(path))
        return
    if not storage.exists(folder) or not (storage.is_remote(folder) or Path(folder).is_dir()):
        raise StageError(f"{root}: {missing}; name a tree <lang>/*.parquet or a work folder")
    shards = [(path, size) for path, size in storage.list_files(folder, ".parquet") if path.count("/") == 1]
    if not shards:
        raise StageError(f"{root}: nothing to verify: no manifest.json and no shards <lang>/*.parquet in it")
    listings = {lang: _listed(folder, lang) for lang in sorted({path.partition("/")[0] for path, _ in shards})}
    for path, size in shards:
        lang, _, name = path.partition("/")
        yield Expected(_below(folder, path), folder, "download", size, sha256=listings[lang].pop(name, None))
    for lang, left in listings.items():
        for name, digest in sorted(left.items()):
            yield Expected(_below(folder, f"{lang}/{name}"), folder, "download", sha256=digest)


def _below(folder: str, path: str) -> str:
    return storage.join(folder, path) if storage.is_remote(folder) else str(Path(folder, path))


def _listed(folder: str, lang: str) -> dict[str, str]:
    """Digests by name, as the listing beside the shards of a language has them; without one, none."""
    try:
        content = storage.read_bytes(_below(folder, f"{lang}/{LISTING}"))
    except FileNotFoundError:
        return {}
    return listed_digests(content.decode("utf-8", "replace"))


def _trees() -> list[str]:
    return [tree for stage, tree in TREES.items() if stage in (*_SCHEMAS, "tokenize")]


def checked_manifest(path: str) -> dict[str, Any]:
    """The manifest at ``path``, with what is asked of it here.

    Raises:
        ShardError: it is not JSON, or not as a stage writes it.
    """
    manifest = storage.read_json(path)
    wrong = _wrong_in(manifest)
    if wrong:
        raise ShardError(
            f"{path}: not a manifest as a stage writes it: {wrong}. It was changed since: bring it back, or "
            f"make the tree again with `--redo`"
        )
    return manifest


def _wrong_in(manifest: Any) -> str | None:
    if not isinstance(manifest, dict):
        return f"it is {type(manifest).__name__}, not an object"
    if manifest.get("stage") not in TREES:
        return f"`stage` is {manifest.get('stage')!r}"
    if not isinstance(manifest.get("fingerprint"), dict) or not isinstance(
        manifest["fingerprint"].get("settings"), dict
    ):
        return "`fingerprint.settings` is missing"
    if manifest["stage"] not in (*_SCHEMAS, "tokenize"):
        return None
    lists = {"files": manifest.get("files"), "shards": manifest.get("shards", [])}
    if manifest["stage"] == "download":
        source = manifest.get("source")
        lists["source.shards"] = source.get("shards") if isinstance(source, dict) else None
    for name, rows in lists.items():
        if not isinstance(rows, list):
            return f"`{name}` is missing"
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                return f"`{name}[{number}].path` is missing"
            if why := why_unsafe(row["path"]):
                return f"`{name}[{number}].path` ({escaped(row['path'])}) has {why}"
            if name == "files" and not isinstance(row.get("bytes"), int):
                return f"`files[{number}].bytes` is missing"
    return None


def _named_in_manifest(path: str, manifest: dict[str, Any]) -> Iterator[Expected]:
    stage = manifest.get("stage")
    if stage not in (*_SCHEMAS, "tokenize"):
        return
    tree = storage.parent(path)
    # Paths in a manifest are relative to the work folder, which is the tree itself where that stands alone.
    alone = stage == "download" and not all(file["path"].startswith("raw/") for file in manifest.get("files", []))
    base = tree if alone else storage.parent(tree)
    digests = {shard["path"]: shard.get("sha256") for shard in manifest.get("source", {}).get("shards", [])}
    for shard in manifest.get("shards", []):
        digests |= {f"{shard['path']}.{suffix}": digest for suffix, digest in shard.get("sha256", {}).items()}
    for file in manifest.get("files", []):
        removed = file["path"].startswith("removed/")
        inner = file["path"] if alone else file["path"].removeprefix(f"{TREES[stage]}/")
        above = "/".join(file["path"].split("/")[:-2])
        yield Expected(
            _below(base, file["path"]), _below(base, above) if above else base, stage, file["bytes"],
            file.get("rows"), digests.get(inner), removed,
        )  # fmt: skip


def sizes_of(expected: Iterable[Expected]) -> dict[str, int]:
    """Bytes of the files that are there, by path; of those on a store, in a request for each thousand of a tree."""
    found: dict[str, int] = {}
    listed: set[str] = set()
    for one in expected:
        if not storage.is_remote(one.path):
            path = Path(one.path)
            if path.is_file():
                found[one.path] = path.stat().st_size
        elif one.tree not in listed:
            listed.add(one.tree)
            found |= {_below(one.tree, path): size for path, size in sizes_below(one.tree).items()}
    return found


def look_at(one: Expected, sizes: Mapping[str, int], *, quick: bool = False) -> list[Fault]:
    """The faults of one file; ``sizes`` as :func:`sizes_of` gives them.

    Raises:
        ShardError: the store cannot be read, or the disk takes no copy of what lies there.
    """
    name = storage.shown(one.path)
    size = sizes.get(one.path)
    if size is None:
        return [Fault(name, "missing", "not there")]
    if one.bytes is not None and size != one.bytes:
        return [Fault(name, "size", f"{size:,} bytes instead of {one.bytes:,}")]
    is_text = one.path.endswith(".parquet") and one.stage in _SCHEMAS
    try:
        with _at_hand(one.path, needed=is_text and not quick) as here:
            if one.sha256 and not quick and (digest := sha256_of(here)) != one.sha256:
                return [Fault(name, "digest", f"sha256 {digest} instead of {one.sha256}")]
            if is_text:
                return _parquet_faults(one, here, name, quick)
        if one.path.endswith(".idx"):
            open_token_shard(one.path.removesuffix(".idx"))
    except FileNotFoundError:
        return [Fault(name, "missing", "not there any more")]
    except StoreError:
        raise
    except LolaError as error:
        return [Fault(name, "tokens", str(error))]
    return []


@contextmanager
def _at_hand(path: str, *, needed: bool) -> Iterator[str]:
    """The path of a file: of one on a store, if ``needed``, that of a copy here under its own name."""
    if not needed or not storage.is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lola-data-") as folder:
        here = str(Path(folder, path.rpartition("/")[2]))
        storage.copy(path, here)
        yield here


def _parquet_faults(one: Expected, here: str, name: str, quick: bool) -> list[Fault]:
    schema = REMOVED if one.removed else _SCHEMAS[one.stage or "download"]
    faults: list[Fault] = []
    try:
        with open_parquet(here) as file:
            rows, groups = file.metadata.num_rows, file.metadata.num_row_groups
            names = file.schema_arrow.names
        if one.rows is not None and rows != one.rows:
            faults.append(Fault(name, "rows", f"{rows:,} rows instead of {one.rows:,}"))
        lacking = [column for column in schema.names if column not in names] if one.stage != "download" else []
        if lacking:
            faults.append(Fault(name, "parquet", f"no column {', '.join(lacking)}; its columns are {', '.join(names)}"))
        elif not quick:
            folder, _, file_name = here.rpartition("/")
            stem = file_name.removesuffix(".parquet")
            whole = Unit(one.path.split("/")[-2], file_name, stem, 0, groups, 0, rows, 0)
            further = [] if one.removed else further_columns(folder, whole)
            faults += _utf8_faults(folder, name, whole, pa.schema([*schema, *further]))
    except StoreError:
        raise
    except ShardError as error:
        faults.append(Fault(name, "parquet", str(error).removeprefix(f"{here}: ").replace(here, name)))
    return faults


def _utf8_faults(folder: str, name: str, whole: Unit, schema: pa.Schema) -> list[Fault]:
    bad: dict[str, list[int]] = {}
    row = 0
    for batch in read_batches(folder, whole, schema):
        for column, kind in zip(schema.names, schema.types, strict=True):
            if pa.types.is_string(kind):
                mask = checks.invalid_utf8(batch.column(column))
                bad.setdefault(column, []).extend(int(at) + row for at in mask.nonzero()[0])
        row += batch.num_rows
    return [
        Fault(name, "utf8", f"`{column}` is not valid UTF-8 in {len(rows):,} rows, the first of them row {rows[0]:,}")
        for column, rows in bad.items()
        if rows
    ]


def _unlisted(expected: list[Expected]) -> list[Fault]:
    known = {_resolved(one.path) for one in expected}
    trees = {one.tree for one in expected if one.stage in _SCHEMAS and one.path.endswith(".parquet")}
    found: list[Fault] = []
    for tree in sorted(trees):
        for path in sizes_below(tree, ".parquet"):
            if path.count("/") == 1 and _resolved(_below(tree, path)) not in known:
                said = "no manifest knows it, yet later stages would read it"
                found.append(Fault(storage.shown(_below(tree, path)), "unlisted", said))
    return found


def _resolved(path: str) -> str:
    return path if storage.is_remote(path) else str(Path(path).resolve())
