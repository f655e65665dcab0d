"""Trees on an object store, against a real S3 server on this machine."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import credentials, object_store, remote_trees, storage
from lola_data.errors import ShardError
from lola_data.frames import Frames, FrameWriter
from lola_data.schemas import DEDUPED
from lola_data.shards import ShardWriter, plan_units, read_batches
from tests.moto_store import SECRET, Store, moto_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEGA = 2**20


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with moto_store(monkeypatch) as found:
        yield found


def test_a_small_object_is_one_put_and_appears_at_the_end(store: Store) -> None:
    with storage.atomic_output("s3://bucket/a/b") as handle:
        handle.write(b"one ")
        handle.write(b"two")
        assert store.tree("a") == {}
    assert store.tree("a") == {"b": b"one two"}
    assert [one.method for one in store.requests if one.method in ("PUT", "POST")] == ["PUT"]


def test_a_large_object_goes_in_large_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 6 * MEGA)
    content = random.Random(3).randbytes(14 * MEGA)
    with storage.atomic_output("s3://bucket/large") as handle:
        for start in range(0, len(content), 100_000):
            handle.write(content[start : start + 100_000])
        assert store.tree("") == {}
    parts = [one for one in store.requests if one.method == "PUT" and "partNumber" in one.query]
    assert 1 < len(parts) <= 3
    assert store.tree("") == {"large": content}


@pytest.mark.parametrize("size", [10, 14 * MEGA])
def test_a_write_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 6 * MEGA)
    with pytest.raises(KeyError), storage.atomic_output("s3://bucket/x") as handle:
        handle.write(bytes(size))
        raise KeyError
    assert store.tree("") == {}
    assert store.filesystem.list_multipart_uploads("bucket") in ([], None)


def test_writers_that_are_open_at_the_same_time_do_not_meet(store: Store) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(storage.atomic_output(f"s3://bucket/{name}")) for name in "ab")
        first.write(b"1")
        with pytest.raises(KeyError), storage.atomic_output("s3://bucket/c") as third:
            third.write(b"3")
            raise KeyError
        second.write(b"2")
    assert store.tree("") == {"a": b"1", "b": b"2"}


def test_a_name_is_claimed_once(store: Store, tmp_path: Path) -> None:
    for place in ("s3://bucket/lock", str(tmp_path / "deep" / "lock")):
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda name, at=place: remote_trees.create_exclusive(at, name.encode()), "abcdefgh"))
        assert told.count(True) == 1
        assert storage.read_bytes(place) == "abcdefgh"[told.index(True)].encode()
        storage.remove(place)
        assert remote_trees.create_exclusive(place, b"again")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["lock"]


def test_a_tree_is_deleted_and_its_neighbours_are_not(store: Store, tmp_path: Path) -> None:
    for root in ("s3://bucket", str(tmp_path)):
        for path in ("w/a/1.json", "w/.hidden/2", "w/b[1]/3", "w2/4", "w.json"):
            storage.write_json(f"{root}/{path}", 1)
        remote_trees.remove_tree(f"{root}/w")
        remote_trees.remove_tree(f"{root}/w")
        assert list(remote_trees.sizes_below(root)) == ["w.json", "w2/4"]
        storage.remove(f"{root}/w.json")
        storage.remove(f"{root}/w.json")
        assert remote_trees.sizes_below(root) == {"w2/4": 2}
    with pytest.raises(ShardError, match="a whole bucket"):
        remote_trees.remove_tree("s3://bucket/")


def test_records_are_listed_once_and_read_in_one_request_each(store: Store) -> None:
    for number in range(20):
        storage.write_record(f"s3://bucket/state/done/de%2F{number:02d}.json", {"number": number})
    store.filesystem.pipe_file("bucket/state/done/empty.json", b"")
    store.requests.clear()
    found = remote_trees.read_json_files("s3://bucket/state/done")
    assert list(found.values()) == [{"number": number} for number in range(20)]
    assert [one.query.startswith("list-type=2") for one in store.requests if not one.is_read] == [True]
    assert len(store.reads()) == 20


def test_what_others_write_is_seen(store: Store) -> None:
    storage.write_record("s3://bucket/state/a.json", 1)
    assert storage.list_files("s3://bucket/state", ".json") == [("a.json", 1)]
    assert not storage.exists("s3://bucket/state/b.json")
    store.filesystem.pipe_file("bucket/state/b.json", b"22")
    assert storage.list_files("s3://bucket/state", ".json") == [("a.json", 1), ("b.json", 2)]
    assert storage.size("s3://bucket/state/b.json") == 2
    assert storage.list_files("s3://bucket/nothing", "") == []
    with pytest.raises(FileNotFoundError):
        storage.size("s3://bucket/state")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://bucket/state/c.json")


def shard_of(store: Store, groups: int, rows: int, text_bytes: int) -> tuple[int, pa.Table]:
    """``bucket/t/de/a.parquet``, of texts that do not compress: its bytes and content."""
    draw = random.Random(5)
    texts = [draw.randbytes(text_bytes).hex() for _ in range(groups * rows)]
    columns = {name: pa.nulls(len(texts), DEDUPED.field(name).type) for name in DEDUPED.names}
    columns |= {"id": pa.array([f"de/a/{row}" for row in range(len(texts))]), "text": pa.array(texts)}
    table = pa.table(columns, schema=DEDUPED)
    with storage.atomic_output("s3://bucket/t/de/a.parquet") as handle:
        pq.write_table(table, handle, row_group_size=rows, compression="none")
    size = storage.size("s3://bucket/t/de/a.parquet")
    store.requests.clear()
    return size, table


@pytest.mark.parametrize(("groups", "rows"), [(3, 400), (200, 6)])
def test_a_large_shard_is_read_in_few_large_requests(store: Store, groups: int, rows: int) -> None:
    size, table = shard_of(store, groups, rows, 17_500)
    assert size > 40 * MEGA
    (unit,) = plan_units("s3://bucket/t")
    assert [one.bytes for one in store.reads()] == [object_store.TAIL_BYTES]  # The footer.
    store.requests.clear()
    read = pa.Table.from_batches(read_batches("s3://bucket/t", unit, DEDUPED), DEDUPED)
    assert read.equals(table)
    reads = [one.bytes for one in store.reads()]
    assert reads[0] == object_store.TAIL_BYTES
    assert len(reads) <= 1 + 2
    assert min(reads[1:]) >= 8 * MEGA
    assert sum(reads[1:]) <= size
    assert [one.method for one in store.requests if not one.is_read] == ["HEAD"]


def test_a_part_of_a_shard_is_read_by_its_range(store: Store) -> None:
    size, table = shard_of(store, 4, 100, 12_000)
    units = plan_units("s3://bucket/t", unit_bytes=size // 3)
    assert len(units) == 4
    for number in (1, 3):
        store.requests.clear()
        read = pa.Table.from_batches(read_batches("s3://bucket/t", units[number], DEDUPED), DEDUPED)
        assert read.equals(table.slice(number * 100, 100))
        (tail, body) = [one.bytes for one in store.reads()]
        assert tail == object_store.TAIL_BYTES
        assert body <= size / 4 + 10_000


def test_of_a_column_no_other_is_read(store: Store) -> None:
    size, table = shard_of(store, 4, 100, 12_000)
    (unit,) = plan_units("s3://bucket/t")
    store.requests.clear()
    read = pa.Table.from_batches(read_batches("s3://bucket/t", unit, DEDUPED, columns=["id"]))
    assert read["id"].equals(table["id"])
    assert len(store.reads()) <= 1 + 4
    assert sum(one.bytes for one in store.reads()) < object_store.TAIL_BYTES + size / 50


def test_a_frame_is_read_by_its_range(store: Store) -> None:
    tables = [pa.table({"x": np.arange(200_000, dtype=np.int64) + number}) for number in range(5)]
    with FrameWriter("s3://bucket/f.frames", count=5) as writer:
        for number, table in enumerate(tables):
            writer.write(number, table)
    store.requests.clear()
    assert Frames("s3://bucket/f.frames", tables[0].schema).read(2).equals(tables[2])
    assert [one.bytes // 100_000 for one in store.reads()] == [object_store.TAIL_BYTES // 100_000, 16]
    store.requests.clear()
    assert [table["x"][0].as_py() for table in Frames("s3://bucket/f.frames", tables[0].schema)] == [0, 1, 2, 3, 4]
    assert len(store.reads()) <= 3


def test_a_shard_written_here_and_there_is_the_same(store: Store, tmp_path: Path) -> None:
    batch = pa.record_batch({"id": ["de/a/0"], "text": ["Würde"]})
    for path in ("s3://bucket/one.parquet", str(tmp_path / "one.parquet")):
        with ShardWriter(path, batch.schema) as writer:
            writer.write(batch)
    assert store.tree("")["one.parquet"] == (tmp_path / "one.parquet").read_bytes()
    storage.copy("s3://bucket/one.parquet", str(tmp_path / "two"))
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one.parquet").read_bytes()


@pytest.mark.parametrize(
    "url",
    [f"s3://AKIAKEY:{SECRET}@bucket/x", "s3://AKIAKEY:a/b+c/SeCrEtSeCrEt@bucket/x", f"https://user:{SECRET}@host/x"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    for call in (storage.exists, storage.read_bytes, lambda path: storage.list_files(path, "")):
        with pytest.raises(ShardError, match=r"://\*\*\*@.*has credentials in it") as error:
            call(url)
        assert SECRET not in str(error.value)
        assert "SeCrEt" not in str(error.value)
        assert "AKIAKEY" not in str(error.value)


def test_what_has_no_credentials_in_it_passes() -> None:
    for url in ("s3://bucket/a:b@c", "hf://datasets/u/n@main/x", "https://host:8000/a@b", "s3://bucket/u@x:y"):
        assert not credentials.in_address(url)
        assert credentials.redacted(url) == url


def test_secrets_of_the_environment_are_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", "hf_1234567890")
    assert credentials.redacted(f"bad key {SECRET}, hf_1234567890") == "bad key ***, ***"


def test_a_store_that_refuses_or_is_away_is_told_of_in_a_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShardError, match=r"s3://nobody/x: cannot be written: The specified bucket does not exist"):
        storage.write_json("s3://nobody/x", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    store.filesystem.clear_instance_cache()
    with pytest.raises(ShardError, match=r"s3://bucket/x: .*(?i:credentials)"):
        storage.read_bytes("s3://bucket/x")
