"""Whether a tree of shards is still what it was: digests, Parquet footers, schemas, row counts, UTF-8.

In: a folder of raw shards (downloaded here, or by anything that left ``checksum.sha256`` files), a tree of any stage,
or a whole work folder. Out: every fault, by file. :mod:`pipelines.repair` mends those of raw shards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lola_data import checks, credentials, storage
from lola_data.errors import LolaError, ShardError, StageError
from lola_data.foreign_names import escaped, why_unsafe
from lola_data.layout import TREES
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW, REMOVED
from lola_data.shards import Unit, further_columns, open_parquet, read_batches
from lola_data.tokens import TokenShard
from pipelines.digests import LISTING, listed_digests, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SCHEMAS = {"download": RAW, "identify": IDENTIFIED, "dedup": DEDUPED, "sample": DEDUPED}


@dataclass(frozen=True, slots=True)
class Expected:
    """A file that should be there, and what is known of it."""

    path: Path
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
        root: local folder: a tree ``<lang>/*.parquet``, or a work folder.
        quick: compare sizes and read footers only.
        workers: threads.
        progress: called with (bytes done, bytes in all) after each file.

    Raises:
        StageError: not a local folder, or nothing to verify in it.
    """
    expected = list(expected_files(root))
    total = sum(_size(one.path) for one in expected)
    found, done = Verified(files=len(expected), bytes=total), 0
    with ThreadPoolExecutor(workers) as pool:
        for one, faults in zip(expected, pool.map(lambda one: look_at(one, quick=quick), expected), strict=True):
            found.faults += faults
            found.digests += one.sha256 is not None and not quick
            done += _size(one.path)
            if progress is not None:
                progress(done, total)
    found.faults += _unlisted(root, expected)
    found.faults.sort(key=lambda fault: (fault.path, fault.kind))
    return found


def expected_files(root: str) -> Iterator[Expected]:
    """The files that manifests and ``checksum.sha256`` lists below ``root`` name, and the shards that none does.

    Raises:
        StageError: not a local folder, or nothing to verify in it.
    """
    if storage.is_remote(root):
        raise StageError(
            f"{credentials.redacted(root)}: only local folders are verified; copy the tree here, or verify it where it "
            f"lies"
        )
    folder = storage.local_path(root)
    if not folder.is_dir():
        raise StageError(f"{root}: no such folder; name a tree <lang>/*.parquet or a work folder")
    places = (folder / "manifest.json", *(folder / tree / "manifest.json" for tree in _trees()))
    manifests = [path for path in places if path.exists()]
    if manifests:
        for path in manifests:
            yield from _named_in_manifest(path, checked_manifest(path))
        return
    shards = [(path, size) for path, size in storage.list_files(root, ".parquet") if path.count("/") == 1]
    if not shards:
        raise StageError(f"{root}: nothing to verify: no manifest.json and no shards <lang>/*.parquet in it")
    listings: dict[Path, dict[str, str]] = {}
    for path, size in shards:
        place = folder / path
        if place.parent not in listings:
            listing = place.parent / LISTING
            text = listing.read_text(encoding="utf-8", errors="replace") if listing.exists() else ""
            listings[place.parent] = listed_digests(text)
        yield Expected(place, "download", size, sha256=listings[place.parent].pop(place.name, None))
    for below, left in sorted(listings.items()):
        for name, digest in sorted(left.items()):
            yield Expected(below / name, "download", sha256=digest)


def _trees() -> list[str]:
    return [tree for stage, tree in TREES.items() if stage in (*_SCHEMAS, "tokenize")]


def checked_manifest(path: Path) -> dict[str, Any]:
    """The manifest at ``path``, with what is asked of it here.

    Raises:
        ShardError: it is not JSON, or not as a stage writes it.
    """
    manifest = storage.read_json(str(path))
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


def _named_in_manifest(path: Path, manifest: dict[str, Any]) -> Iterator[Expected]:
    stage = manifest.get("stage")
    if stage not in (*_SCHEMAS, "tokenize"):
        return
    tree = path.parent
    # Paths in a manifest are relative to the work folder, which is the tree itself where that stands alone.
    alone = stage == "download" and not all(file["path"].startswith("raw/") for file in manifest.get("files", []))
    base = tree if alone else tree.parent
    digests = {shard["path"]: shard.get("sha256") for shard in manifest.get("source", {}).get("shards", [])}
    for shard in manifest.get("shards", []):
        digests |= {f"{shard['path']}.{suffix}": digest for suffix, digest in shard.get("sha256", {}).items()}
    for file in manifest.get("files", []):
        removed = file["path"].startswith("removed/")
        inner = file["path"] if alone else file["path"].removeprefix(f"{TREES[stage]}/")
        yield Expected(base / file["path"], stage, file["bytes"], file.get("rows"), digests.get(inner), removed)


def look_at(one: Expected, *, quick: bool = False) -> list[Fault]:
    """The faults of one file."""
    name = storage.shown(one.path)
    if not one.path.is_file():
        return [Fault(name, "missing", "not there")]
    size = one.path.stat().st_size
    if one.bytes is not None and size != one.bytes:
        return [Fault(name, "size", f"{size:,} bytes instead of {one.bytes:,}")]
    if one.sha256 and not quick and (digest := sha256_of(one.path)) != one.sha256:
        return [Fault(name, "digest", f"sha256 {digest} instead of {one.sha256}")]
    if one.path.suffix == ".parquet" and one.stage in _SCHEMAS:
        return _parquet_faults(one, name, quick)
    if one.path.suffix == ".idx":
        try:
            TokenShard(str(one.path.with_suffix("")))
        except LolaError as error:
            return [Fault(name, "tokens", str(error))]
    return []


def _parquet_faults(one: Expected, name: str, quick: bool) -> list[Fault]:
    schema = REMOVED if one.removed else _SCHEMAS[one.stage or "download"]
    faults: list[Fault] = []
    try:
        with open_parquet(str(one.path)) as file:
            rows, groups = file.metadata.num_rows, file.metadata.num_row_groups
            names = file.schema_arrow.names
        if one.rows is not None and rows != one.rows:
            faults.append(Fault(name, "rows", f"{rows:,} rows instead of {one.rows:,}"))
        lacking = [column for column in schema.names if column not in names] if one.stage != "download" else []
        if lacking:
            faults.append(Fault(name, "parquet", f"no column {', '.join(lacking)}; its columns are {', '.join(names)}"))
        elif not quick:
            whole = Unit(one.path.parent.name, one.path.name, one.path.stem, 0, groups, 0, rows, 0)
            further = [] if one.removed else further_columns(str(one.path.parent), whole)
            faults += _utf8_faults(one.path, name, whole, pa.schema([*schema, *further]))
    except ShardError as error:
        faults.append(Fault(name, "parquet", str(error).removeprefix(f"{one.path}: ")))
    return faults


def _utf8_faults(path: Path, name: str, whole: Unit, schema: pa.Schema) -> list[Fault]:
    bad: dict[str, list[int]] = {}
    row = 0
    for batch in read_batches(str(path.parent), whole, schema):
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


def _unlisted(root: str, expected: list[Expected]) -> list[Fault]:
    known = {one.path.resolve() for one in expected}
    trees = {one.path.parent.parent for one in expected if one.stage in _SCHEMAS and one.path.suffix == ".parquet"}
    found: list[Fault] = []
    for tree in sorted(trees):
        for path, _ in storage.list_files(str(tree), ".parquet"):
            if path.count("/") == 1 and (tree / path).resolve() not in known:
                said = "no manifest knows it, yet later stages would read it"
                found.append(Fault(storage.shown(tree / path), "unlisted", said))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
