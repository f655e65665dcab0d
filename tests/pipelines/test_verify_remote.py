"""`lola-data verify` of what lies on an object store: what it finds on a disk, in few large requests."""

from __future__ import annotations

import io
import json
import tempfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import object_store, storage
from lola_data.errors import ShardError, StageError, StoreError
from lola_data.layout import Layout
from lola_data.recipe import parse_recipe
from lola_data.schemas import RAW
from pipelines.download import build
from pipelines.repair import repair
from pipelines.verify import verify
from tests.console import lola
from tests.moto_store import SECRET, Store, moto_store
from tests.pipelines.download_cases import corpus, fetch, shard, stage_of, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = corpus({"de": 4, "sw": 1})
FIRST, SECOND, THIRD, FOURTH, FIFTH = sorted(FILES)
REMOTE = "s3://bucket/w"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    # Damaged shards that lie on a store are set aside among the temporary files.
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with moto_store(monkeypatch) as found:
        yield found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder of raw shards."""
    source = write_tree(tmp_path / "source", FILES)
    stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
    assert fetch(stage) == []
    stage.write_manifest({"settings": stage.settings})
    return tmp_path / "w"


def not_utf8() -> bytes:
    bad = pa.array([b"gut", b"schl\xff"], pa.binary()).view(pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table({"text": bad, **{name: pa.nulls(2, pa.string()) for name in RAW.names[1:]}}), out)
    return out.getvalue()


def sent(store: Store, root: Path, to: str = "bucket/w") -> None:
    for path in root.rglob("*"):
        if path.is_file():
            store.filesystem.pipe_file(f"{to}/{path.relative_to(root).as_posix()}", path.read_bytes())


def faults_at(root: str, **how: Any) -> list[tuple[str, str, str]]:
    base = f"{root.rstrip('/')}/"
    return [
        (one.path.removeprefix(base), one.kind, one.message.replace(base, "ROOT/"))
        for one in verify(root, **how).faults
    ]


@pytest.mark.parametrize("quick", [False, True])
def test_the_findings_are_those_of_a_folder_on_a_disk(store: Store, work: Path, quick: bool) -> None:
    raw = work / "raw"
    for path, content in {
        FIRST: bytes(byte ^ (number == 40) for number, byte in enumerate(FILES[FIRST])),
        FOURTH: FILES[FOURTH][:-10],
        FIFTH: not_utf8(),
        "de/stranger.parquet": shard("x"),
    }.items():
        (raw / path).unlink(missing_ok=True)
        (raw / path).write_bytes(content)
    (raw / SECOND).unlink()
    manifest = json.loads((raw / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == f"raw/{FIFTH}":
            file["bytes"] = len(not_utf8())
        if file["path"] == f"raw/{THIRD}":
            file["rows"] += 1
    for one in manifest["source"]["shards"]:
        if one["path"] == FIFTH:
            del one["sha256"]
    (raw / "manifest.json").write_text(json.dumps(manifest))
    sent(store, work)
    kinds = {path: kind for path, kind, _ in faults_at(REMOTE, quick=quick)}
    assert kinds == {
        f"raw/{SECOND}": "missing",
        f"raw/{THIRD}": "rows",
        f"raw/{FOURTH}": "size",
        f"raw/{FIFTH}": "rows",
        "raw/de/stranger.parquet": "unlisted",
        **({} if quick else {f"raw/{FIRST}": "digest", f"raw/{FIFTH}": "utf8"}),
    }
    assert faults_at(REMOTE, quick=quick) == faults_at(str(work), quick=quick)
    # The tree by itself, and without any record of what it should be.
    assert faults_at(f"{REMOTE}/raw/") == faults_at(str(raw))
    (raw / "manifest.json").unlink()
    storage.remove(f"{REMOTE}/raw/manifest.json")
    (raw / "de" / "checksum.sha256").write_text(f"{'0' * 64}  {THIRD.split('/')[1]}\n{'1' * 64}  gone.parquet\n")
    sent(store, raw / "de", "bucket/w/raw/de")
    found = faults_at(f"{REMOTE}/raw")
    assert found == faults_at(str(raw))
    assert {(path, kind) for path, kind, _ in found} >= {(THIRD, "digest"), ("de/gone.parquet", "missing")}


def test_an_object_is_read_once_in_large_requests(store: Store, tmp_path: Path) -> None:
    files = {f"de/{number}.parquet": shard(f"text {number} ", rows=rows) for number, rows in enumerate((20_000, 9, 5))}
    large = len(files["de/0.parquet"])
    assert large > object_store.BLOCK_BYTES
    sent(store, write_tree(tmp_path / "t", files), "bucket/t")
    store.requests.clear()
    assert verify("s3://bucket/t").faults == []
    reads = [(one.path.removeprefix("/bucket/t/"), one.bytes) for one in store.reads(".parquet")]
    block = object_store.BLOCK_BYTES
    assert sorted(reads) == sorted(
        [("de/0.parquet", block), ("de/0.parquet", large - block)]
        + [(path, len(files[path])) for path in ("de/1.parquet", "de/2.parquet")]
    )
    # Sizes come from listings: of a file nothing is asked but when it is opened.
    assert [one.path for one in store.requests if one.method == "HEAD" and "/de/" in one.path] == [
        one for one in dict.fromkeys(one.path for one in store.requests if one.method == "HEAD") if "/de/" in one
    ]


def test_raw_shards_are_mended_there(store: Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", FILES)
    recipe = parse_recipe("", overrides=["download.source=local", f"download.path={source}"])
    stage = build(recipe, Layout(REMOTE))
    assert fetch(stage) == []
    stage.write_manifest({"settings": stage.settings})
    assert lola("verify", REMOTE).code == 0
    store.filesystem.pipe_file(f"bucket/w/raw/{FIRST}", FILES[FIRST][:-1] + b"x")
    store.filesystem.rm_file(f"bucket/w/raw/{SECOND}")
    outcome = lola("verify", REMOTE, "--json")
    assert outcome.code == 1
    assert {fault["path"]: fault["kind"] for fault in json.loads(outcome.stdout)["faults"]} == {
        f"{REMOTE}/raw/{FIRST}": "digest",
        f"{REMOTE}/raw/{SECOND}": "missing",
    }
    # The source has nothing better: what is there stays.
    (source / FIRST).write_bytes(FILES[SECOND])
    mended, left = repair(REMOTE, verify(REMOTE).faults)
    assert mended == [f"{REMOTE}/raw/{SECOND}"]
    assert ["not repaired" in fault.message for fault in left] == [True]
    assert store.tree("w/raw")[FIRST] == FILES[FIRST][:-1] + b"x"
    (source / FIRST).write_bytes(FILES[FIRST])
    outcome = lola("verify", REMOTE, "--repair")
    assert outcome.code == 0, outcome.stderr
    assert f"{REMOTE}/raw/{FIRST}: fetched again" in outcome.stdout
    assert {path: content for path, content in store.tree("w/raw").items() if path in FILES} == FILES


@pytest.mark.parametrize("where", ["s3://bucket/none", "s3://nobody/none"])
def test_a_place_that_is_none_is_told(store: Store, where: str) -> None:
    with pytest.raises(StageError, match=f"{where}: nothing is there"):
        verify(where)


def test_a_store_that_fails_is_no_fault_of_a_file(store: Store, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(store, work)

    def fails(self: object, start: int, end: int) -> bytes:
        raise StoreError("s3://bucket/w: the store does not answer")

    monkeypatch.setattr(object_store.RemoteFile, "_request", fails)
    for quick in (False, True):
        with pytest.raises(ShardError, match="does not answer"):
            verify(REMOTE, quick=quick)
    outcome = lola("verify", REMOTE)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert SECRET not in outcome.stderr
