from __future__ import annotations

import itertools
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import ShardError, StageError
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW
from lola_data.shards import ShardWriter, Unit, plan_units, read_batches

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def raw(texts: list[str]) -> pa.Table:
    count = len(texts)
    return pa.table({"text": texts, "timestamp": ["t"] * count, "url": ["u"] * count, "source": ["s"] * count})


def read(root: Path, path: str = "de/a.parquet") -> pa.Table:
    units = [unit for unit in plan_units(str(root)) if unit.path == path]
    return pa.Table.from_batches([batch for unit in units for batch in read_batches(str(root), unit, RAW)], RAW)


def test_five_shapes_of_shard_read_as_one_schema(tmp_path: Path) -> None:
    """Case T17: columns are reconciled by name."""
    text = ["eins", "zwei"]
    tables = {
        "a": pa.table({"text": text, "url": ["u1", "u2"]}),
        "b": pa.table({"url": ["u1", "u2"], "text": text, "extra": [1, 2]}),
        "c": pa.table({"text": text, "url": pa.nulls(2)}),
        "e": pa.table({"text": pa.array(text, pa.large_string()), "url": pa.array(["u1", "u2"]).dictionary_encode()}),
    }
    for name, table in tables.items():
        write(tmp_path / "de" / f"{name}.parquet", table)
        found = read(tmp_path, f"de/{name}.parquet")
        assert found.schema == RAW
        assert found["text"].to_pylist() == text
        assert found["url"].to_pylist() == ([None, None] if name == "c" else ["u1", "u2"])
        assert found["source"].to_pylist() == [None, None]


def test_a_shard_without_text_is_refused_with_its_columns(tmp_path: Path) -> None:
    write(tmp_path / "de/a.parquet", pa.table({"content": ["x"], "url": ["u"]}))
    with pytest.raises(ShardError, match=r"de/a\.parquet: no column `text`.*content, url"):
        read(tmp_path)


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.array([["a"], ["b"]]), pa.array([b"a", b"b"])])
def test_text_of_another_type_is_refused(tmp_path: Path, column: pa.Array) -> None:
    write(tmp_path / "de/a.parquet", pa.table({"text": column}))
    with pytest.raises(ShardError, match=r"de/a\.parquet: column `text` is .*not string"):
        read(tmp_path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in ("text", "url"):
        arrays = [pa.array([letter]) for letter in "abc"]
        names = ["text", "url", name]
        write(tmp_path / "de/a.parquet", pa.Table.from_arrays(arrays, names=names))
        with pytest.raises(ShardError, match=rf"de/a\.parquet: 2 columns have the name `{name}`"):
            read(tmp_path)
    write(tmp_path / "de/a.parquet", pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "other", "other"]))
    assert read(tmp_path)["text"].to_pylist() == ["a"]


def test_a_column_name_that_is_no_text_fails_its_own_shard(tmp_path: Path) -> None:
    path = write(tmp_path / "de/a.parquet", pa.table({"text": ["x"], "colX": ["y"]}))
    path.write_bytes(path.read_bytes().replace(b"colX", b"col\xff"))
    write(tmp_path / "de/b.parquet", raw(["y"]))
    assert [unit.key for unit in plan_units(str(tmp_path))] == ["de/a", "de/b"]
    with pytest.raises(ShardError, match=r"de/a\.parquet: the name of a column is not valid UTF-8 \(b'col\\xff'\)"):
        read(tmp_path)
    assert read(tmp_path, "de/b.parquet").num_rows == 1


def test_rows_without_id_are_no_identified_shard(tmp_path: Path) -> None:
    write(tmp_path / "de/a.parquet", raw(["x"]))
    unit = plan_units(str(tmp_path))[0]
    with pytest.raises(ShardError, match="no column `id`"):
        list(read_batches(str(tmp_path), unit, IDENTIFIED))


@pytest.mark.parametrize("keep", [0, 1, 4, 0.5, 0.9, -1])
def test_truncated_shards_are_named_and_leave_the_others_planned(tmp_path: Path, keep: float) -> None:
    whole = write(tmp_path / "de/a.parquet", raw(["x" * 100] * 50)).read_bytes()
    cut = len(whole) + int(keep) if keep < 0 else int(keep * len(whole)) if 0 < keep < 1 else int(keep)
    (tmp_path / "de/a.parquet").write_bytes(whole[:cut])
    write(tmp_path / "de/b.parquet", raw(["y"]))
    units = plan_units(str(tmp_path))
    assert [unit.path for unit in units] == ["de/a.parquet", "de/b.parquet"]
    with pytest.raises(ShardError, match=r"de/a\.parquet.*again"):
        list(read_batches(str(tmp_path), units[0], RAW))
    assert sum(batch.num_rows for batch in read_batches(str(tmp_path), units[1], RAW)) == 1


def test_a_damaged_row_group_is_named_with_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "de/a.parquet", raw([f"{n} " * 200 for n in range(40)]), row_group_size=10)
    group = pq.ParquetFile(path).metadata.row_group(3).column(0)
    content = bytearray(path.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(bytes(content))
    with pytest.raises(ShardError, match=r"de/a\.parquet: row group 3 \(bytes [\d,]+ to [\d,]+\)"):
        read(tmp_path)


def test_text_files_called_parquet(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    (tmp_path / "de/a.parquet").write_text("not parquet at all, but long enough to have a footer length")
    with pytest.raises(ShardError, match="not a complete Parquet file"):
        read(tmp_path)


def test_big_shards_are_split_at_row_groups_whatever_the_tasks(tmp_path: Path) -> None:
    texts = [f"{number:05d}" * 50 for number in range(1000)]
    write(tmp_path / "de/a.parquet", raw(texts), row_group_size=100, compression="none", use_dictionary=False)
    units = plan_units(str(tmp_path), unit_bytes=60_000)
    assert len(units) > 3
    assert [unit.name for unit in units] == [f"a-{number:05d}" for number in range(len(units))]
    assert units[0].first_row == 0
    for before, after in itertools.pairwise(units):
        assert after.first_group == before.last_group
        assert after.first_row == before.first_row + before.rows
    assert read(tmp_path)["text"].to_pylist() != []
    joined = [
        text for unit in units for batch in read_batches(str(tmp_path), unit, RAW) for text in batch[0].to_pylist()
    ]
    assert joined == texts


def test_batches_are_bounded_in_bytes_and_a_huge_document_still_passes(tmp_path: Path) -> None:
    texts = ["a" * 1000] * 500 + ["b" * 3_000_000] + ["c" * 1000] * 500
    write(tmp_path / "de/a.parquet", raw(texts), use_dictionary=False, compression="none")
    unit = plan_units(str(tmp_path))[0]
    batches = list(read_batches(str(tmp_path), unit, RAW, batch_bytes=100_000))
    assert max(batch.num_rows for batch in batches) < 100
    assert [text for batch in batches for text in batch[0].to_pylist()] == texts


def test_languages_are_chosen_by_folder_and_empty_shards_give_no_work(tmp_path: Path) -> None:
    write(tmp_path / "de/a.parquet", raw(["x"]))
    write(tmp_path / "sw/a.parquet", raw(["y"]))
    write(tmp_path / "yo/a.parquet", raw([]))
    assert [unit.lang for unit in plan_units(str(tmp_path))] == ["de", "sw"]
    assert [unit.lang for unit in plan_units(str(tmp_path), languages=["sw"])] == ["sw"]


def test_a_shard_outside_a_language_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", raw(["x"]))
    with pytest.raises(StageError, match=r"a\.parquet.*<lang>/<shard>"):
        plan_units(str(tmp_path))


def test_the_same_batches_give_the_same_file(tmp_path: Path) -> None:
    batches = raw(["eins", "zwei", "drei"]).cast(RAW).to_batches(max_chunksize=1)
    for name in ("one", "two"):
        with ShardWriter(str(tmp_path / name), RAW) as writer:
            for batch in batches:
                writer.write(batch)
        assert writer.rows == 3
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_row_groups_are_cut_by_bytes(tmp_path: Path) -> None:
    batch = raw(["x" * 1000] * 10).cast(RAW).to_batches()[0]
    with ShardWriter(str(tmp_path / "x"), RAW, row_group_bytes=30_000) as writer:
        for _ in range(9):
            writer.write(batch)
    metadata = pq.ParquetFile(tmp_path / "x").metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [30, 30, 30]


def test_an_empty_shard_can_be_written_and_read(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "x.parquet"), RAW):
        pass
    assert pq.read_table(tmp_path / "x.parquet").schema.names == RAW.names


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    """The kernel's own limit on file size stands for a disk that fills up while a shard is written."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            with ShardWriter(str(tmp_path / "x.parquet"), RAW, row_group_bytes=10_000) as writer:
                for _ in range(100):
                    writer.write(raw([os.urandom(5000).hex()]).cast(RAW).to_batches()[0])
        except ShardError as error:
            os._exit(0 if "x.parquet" in str(error) and "run the same command again" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_units_survive_json() -> None:
    unit = Unit("de", "de/a.parquet", "a-00001", 2, 4, 200, 150, 12345)
    assert Unit(**unit.to_json()) == unit
    assert (unit.key, unit.shard) == ("de/a-00001", "a")


def test_long_strings_are_compressed_and_codes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "de" / "a.parquet"
    rows = [
        {"id": f"de/a/{row}", "text": "x" * 999, "lang": "de", "lang_score": row / 7, "cluster_size": 1}
        for row in range(500)
    ]
    with ShardWriter(str(path), DEDUPED) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=DEDUPED))
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    zstd = {"id", "text", "timestamp", "url", "source"}
    assert {name: column.compression for name, column in columns.items()} == {
        name: "ZSTD" if name in zstd else "UNCOMPRESSED" for name in DEDUPED.names
    }
    # Five hundred times the number 1 takes no more than the page headers do.
    assert columns["cluster_size"].total_compressed_size < 100
    assert pq.read_table(path).to_pylist() == pa.Table.from_pylist(rows, schema=DEDUPED).to_pylist()


def test_a_plan_sees_that_a_shard_was_written_anew(tmp_path: Path) -> None:
    for rows in (3, 5):
        with ShardWriter(str(tmp_path / "de" / "a.parquet"), RAW) as writer:
            writer.write(pa.RecordBatch.from_pylist([{"text": "x"}] * rows, schema=RAW))
        assert [unit.rows for unit in plan_units(str(tmp_path))] == [rows]
