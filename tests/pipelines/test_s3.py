"""An object store as the source, against a real S3 server on this machine."""

from __future__ import annotations

import hashlib
import urllib.request
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from lola_data.errors import StageError
from pipelines import url_source
from tests.pipelines.download_cases import corpus, fetch, read_tree, shard, stage_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")

SECRET = "aVerySecretKeyThatMustNotBeShown"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket ``bucket`` and its file system; the environment is that of a user with credentials."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What it holds is kept for the whole process.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(url_source, "FIRST_WAIT_SECONDS", 0.01)
    fsspec.filesystem("s3").clear_instance_cache()
    filesystem = fsspec.filesystem("s3")
    filesystem.mkdir("bucket")
    yield filesystem
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def put(filesystem: Any, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        filesystem.pipe(f"bucket/c/{path}", content)


OPTIONS = ("download.source=url", "download.path=s3://bucket/c")


def test_every_file_arrives_as_it_is_there(tmp_path: Path, bucket: Any) -> None:
    files = corpus({"de": 3, "sw": 1})
    put(bucket, files)
    assert fetch(stage_of(tmp_path / "w", *OPTIONS)) == []
    assert read_tree(tmp_path / "w" / "raw") == files


def test_listed_digests_are_held_to(tmp_path: Path, bucket: Any) -> None:
    files = corpus({"de": 2})
    listing = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path.split('/')[1]}\n" for path in sorted(files))
    put(bucket, files | {"de/checksum.sha256": listing.encode()})
    assert fetch(stage_of(tmp_path / "one", *OPTIONS)) == []
    damaged = sorted(files)[0]
    put(bucket, {damaged: shard("other", rows=3)})
    bucket.invalidate_cache()
    (message,) = fetch(stage_of(tmp_path / "two", *OPTIONS))
    assert damaged in message
    assert "came wrong twice" in message
    assert "which checksum.sha256 lists" in message
    assert len(list((tmp_path / "two/scratch").rglob("*.parquet.*"))) == 2
    assert fetch(stage_of(tmp_path / "three", *OPTIONS, "download.checksums=false")) == []


def test_a_file_that_broke_off_is_gone_on_with(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = corpus({"de": 1})
    ((path, content),) = files.items()
    put(bucket, files)
    begun: list[int] = []
    opened_at = url_source._opened_at

    def noted(place: str, have: int) -> Any:
        begun.append(have)
        if len(begun) == 1:
            # As if the process had been killed here.
            partial = next((tmp_path / "w/scratch/download/partial/de").parent.rglob("*"), None)
            assert partial is not None
            (tmp_path / "w/scratch/download/partial" / f"{path}.{label}").write_bytes(content[:1000])
            raise OSError("connection lost")
        return opened_at(place, have)

    stage = stage_of(tmp_path / "w", *OPTIONS)
    (work,) = stage.phases[0].plan()
    label = work.label  # pyright: ignore[reportAttributeAccessIssue]
    assert label is not None
    monkeypatch.setattr(url_source, "_opened_at", noted)
    assert fetch(stage) == []
    assert begun == [0, 1000]
    assert read_tree(tmp_path / "w" / "raw") == files


def test_another_version_is_not_added_to(tmp_path: Path, bucket: Any) -> None:
    ((path, content),) = corpus({"de": 1}).items()
    put(bucket, {path: content})
    stage = stage_of(tmp_path / "w", *OPTIONS)
    (before,) = stage.phases[0].plan()
    put(bucket, {path: content[:-1] + b"x"})
    bucket.invalidate_cache()
    (after,) = stage_of(tmp_path / "w", *OPTIONS).phases[0].plan()
    assert before.label != after.label  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("path", "said"),
    [("s3://bucket/nothing", r"s3://bucket/nothing: no \*\.parquet files there"), ("s3://nobody/x", r"s3://nobody/x")],
)
def test_a_place_without_shards_is_named(tmp_path: Path, bucket: Any, path: str, said: str) -> None:
    with pytest.raises(StageError, match=said) as error:
        stage_of(tmp_path / "w", "download.source=url", f"download.path={path}").phases[0].plan()
    assert SECRET not in str(error.value)


def test_a_missing_language_is_named(tmp_path: Path, bucket: Any) -> None:
    put(bucket, corpus({"de": 1, "so": 1}))
    with pytest.raises(StageError, match=r"s3://bucket/c has no shards of `sw`; the nearest of its 2 folders is `so`"):
        stage_of(tmp_path / "w", *OPTIONS, "languages=[de, sw]").phases[0].plan()


def test_a_damaged_file_without_any_digest_is_set_aside_and_fetched_again(tmp_path: Path, bucket: Any) -> None:
    files = {"de/a.parquet": shard("a"), "de/b.parquet": shard("b", rows=30)[:-500]}
    put(bucket, files)
    (message,) = fetch(stage_of(tmp_path / "w", *OPTIONS))
    assert message.startswith("s3://bucket/c/de/b.parquet: not a complete Parquet file")
    assert message.count(str(tmp_path / "w/scratch/download/rejected/de/b.parquet")) == 2
    assert read_tree(tmp_path / "w" / "raw") == {"de/a.parquet": files["de/a.parquet"]}
