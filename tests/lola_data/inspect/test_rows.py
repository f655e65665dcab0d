"""Rows by number and by id: those asked for, as they are, without reading the row groups of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.balance.trees import Shard
from lola_data.errors import ShardError
from lola_data.inspect.rows import DocumentId, find_ids, find_rows, may_hold_rows_of, parse_id, raw_rows, read_rows
from lola_data.schemas import IDENTIFIED, RAW
from lola_data.shards import ShardWriter
from tests.lola_data.balance.trees import write_rows

if TYPE_CHECKING:
    from pathlib import Path


def identified(path: Path, numbers: list[int], *, name: str = "de/a", group: int = 4) -> None:
    rows = [{"id": f"{name}/{number}", "text": f"text {number}"} for number in numbers]
    write_rows(path, IDENTIFIED, rows, group=group)


def damage_all_but(path: Path, group: int) -> None:
    """Overwrite the pages of every other row group, so that reading one of them fails."""
    metadata = pq.read_metadata(path)
    with path.open("r+b") as handle:
        for other in range(metadata.num_row_groups):
            if other != group:
                for number in range(metadata.num_columns):
                    chunk = metadata.row_group(other).column(number)
                    start = chunk.dictionary_page_offset or chunk.data_page_offset
                    handle.seek(start)
                    handle.write(b"\xff" * chunk.total_compressed_size)


def test_rows_by_number(tmp_path: Path) -> None:
    path = tmp_path / "de/a.parquet"
    identified(path, list(range(11)))
    found = read_rows(str(path), "de", [10, 0, 5, 5, 99])
    assert {number: (row.id, row.text, row.group) for number, row in found.items()} == {
        0: ("de/a/0", b"text 0", 0),
        5: ("de/a/5", b"text 5", 1),
        10: ("de/a/10", b"text 10", 2),
    }


def test_other_row_groups_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "de/a.parquet"
    identified(path, [*range(100, 140)], group=10)
    damage_all_but(path, 2)
    assert read_rows(str(path), "de", [21])[21].text == b"text 121"
    assert find_ids(str(path), "de", ["de/a/121"]) == {"de/a/121": 21}
    with pytest.raises(ShardError, match="row group 0"):
        read_rows(str(path), "de", [3])
    with pytest.raises(ShardError, match="row group 1"):
        find_ids(str(path), "de", ["de/a/115"])
    # An id beyond all statistics is not there, and nothing is read to find that out.
    assert find_ids(str(path), "de", ["de/a/99", "yo/a/1"]) == {}


@given(st.sets(st.integers(0, 400), max_size=60), st.sets(st.integers(0, 400), max_size=30))
def test_ids_are_found_wherever_they_are(
    tmp_path_factory: pytest.TempPathFactory, there: set[int], asked: set[int]
) -> None:
    path = tmp_path_factory.mktemp("t") / "de/a.parquet"
    numbers = sorted(there)
    identified(path, numbers)
    expected = {f"de/a/{number}": numbers.index(number) for number in asked & there}
    assert find_ids(str(path), "de", [f"de/a/{number}" for number in asked]) == expected


def test_ids_without_statistics_and_of_the_stages_own_writer(tmp_path: Path) -> None:
    table = pa.table({"id": [f"de/a/{n}" for n in range(9)], "text": ["x"] * 9})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, write_statistics=False)
    assert find_ids(str(tmp_path / "a.parquet"), "de", ["de/a/7"]) == {"de/a/7": 7}
    with ShardWriter(str(tmp_path / "b.parquet"), IDENTIFIED, row_group_bytes=1) as writer:
        for number in range(5):
            row = {"id": f"de/a/{number}", "text": "x"}
            writer.write(pa.RecordBatch.from_pylist([row], schema=IDENTIFIED))
    damage_all_but(tmp_path / "b.parquet", 3)
    assert find_ids(str(tmp_path / "b.parquet"), "de", ["de/a/3"]) == {"de/a/3": 3}


def test_text_that_is_not_utf8_comes_as_it_is(tmp_path: Path) -> None:
    values = pa.array([b"good", b"\xff\xfe", None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, values.buffers(), null_count=1)
    url = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\x80", b""], pa.binary()).buffers())
    pq.write_table(pa.table({"text": text, "url": url}), tmp_path / "a.parquet")
    found = read_rows(str(tmp_path / "a.parquet"), "de", [0, 1, 2])
    assert [found[n].text for n in range(3)] == [b"good", b"\xff\xfe", None]
    assert found[1].values["url"] == "\\x80"


def test_other_string_types_and_unknown_columns(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "b"], pa.large_string()),
        "source": pa.array(["s", "t"]).dictionary_encode(),
        "nested": pa.array([[1], [2]]),
        "id": pa.array(["de/a/0", "de/a/1"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    row = read_rows(str(tmp_path / "a.parquet"), "de", [1])[1]
    assert (row.text, row.values) == (b"b", {"source": "t", "id": "de/a/1"})
    assert find_ids(str(tmp_path / "a.parquet"), "de", ["de/a/1"]) == {"de/a/1": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("de/a/0", DocumentId("de", "a", 0)), ("de/a/12", DocumentId("de", "a", 12)), ("de/a/01", None), ("de/a", None),
     ("de/a/b", None), ("/a/1", None), ("de/a/1/2", None), ("de/a/-1", None), ("", None)],
)  # fmt: skip
def test_parse_id(text: str, expected: DocumentId | None) -> None:
    assert parse_id(text) == expected


@pytest.mark.parametrize(
    ("lang", "file", "expected"),
    [("de", "a", True), ("de", "a-00001", True), ("de", "a-00001-00002", True), ("nl", "a.from-de", True),
     ("nl", "a-00001.from-de", True), ("nl", "a.from-de-00003", True), ("nl", "a", False), ("de", "ab", False),
     ("de", "a-1", False), ("nl", "a.from-yo", False), ("de", "b", False)],
)  # fmt: skip
def test_files_that_may_hold_rows_of_a_raw_shard(lang: str, file: str, expected: bool) -> None:
    shard = Shard(f"/t/{lang}/{file}.parquet", lang, 1)
    assert may_hold_rows_of(shard, DocumentId("de", "a", 3)) is expected


def test_files_of_other_shards_are_not_opened_in_a_run(tmp_path: Path) -> None:
    identified(tmp_path / "de/a.parquet", [1, 2])
    (tmp_path / "de/b.parquet").write_bytes(b"not Parquet")
    shards = [Shard(str(tmp_path / f"de/{name}.parquet"), "de", 1) for name in ("a", "b")]
    assert find_rows(shards, ["de/a/2"], of_a_run=True)["de/a/2"].text == b"text 2"
    assert find_rows(shards, ["de/c/2"], of_a_run=True) == {}
    with pytest.raises(ShardError):
        find_rows(shards, ["de/c/2"], of_a_run=False)


def test_raw_rows_are_where_the_id_says(tmp_path: Path) -> None:
    write_rows(tmp_path / "de/a.parquet", RAW, [{"text": f"t{n}"} for n in range(5)])
    found = raw_rows(str(tmp_path), ["de/a/3", "de/a/5", "de/b/0", "xx/a/0", "nonsense"])
    assert {name: row.text for name, row in found.items()} == {"de/a/3": b"t3"}
