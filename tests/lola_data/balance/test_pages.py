"""Pages read one by one, against pyarrow reading the whole."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lola_data.balance.pages import DamagedPage, find_pages, read_pages
from tests.lola_data.balance.test_thrift import reader

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.pages import ChunkPages
    from lola_data.balance.thrift import Read


def texts(count: int, *, nulls: float = 0.0, repeats: float = 0.2) -> list[str | None]:
    rng = random.Random(count)
    letters = "aßé漢字ไทย😀 \n"
    made = ["".join(rng.choices(letters, k=rng.randrange(0, 90))) for _ in range(count)]
    made = [rng.choice(made[:20]) if rng.random() < repeats else text for text in made]
    return [None if rng.random() < nulls else text for text in made]


def chunks(path: Path) -> list[tuple[Read, ChunkPages | None, pa.Array]]:
    """Of each row group: reader, pages, and the texts as pyarrow reads them, nulls as empty ones."""
    file = pq.ParquetFile(path)
    found = []
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        pages = find_pages(reader(path), meta.column(0), file.schema.column(0), meta.num_rows)
        column = file.read_row_group(group, columns=["text"])["text"].combine_chunks()
        found.append((reader(path), pages, column.cast(pa.large_string()).fill_null("")))
    return found


@pytest.mark.parametrize("nulls", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd"])
def test_every_page_has_the_texts_that_pyarrow_reads(
    tmp_path: Path, codec: Any, version: Any, dictionary: bool, nulls: float
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": pa.array(texts(3000, nulls=nulls), pa.string())}), path, compression=codec,
        data_page_version=version, use_dictionary=dictionary, row_group_size=1100, data_page_size=3000,
        write_batch_size=64, dictionary_pagesize_limit=20_000,
    )  # fmt: skip
    for read, chunk, wanted in chunks(path):
        assert chunk is not None
        assert len(chunk.pages) > 1 or nulls == 1.0
        found = list(read_pages(read, chunk, chunk.pages))
        assert pa.concat_arrays([page.take() for page in found]).equals(wanted)
        assert np.concatenate([page.sizes for page in found]).tolist() == pc.binary_length(wanted).to_pylist()
        assert np.concatenate([page.characters for page in found]).tolist() == pc.utf8_length(wanted).to_pylist()
        last = list(chunk.pages)[-1]
        alone = next(read_pages(read, chunk, [last]))
        assert alone.take().equals(wanted.slice(last.first_row, last.rows))
        odd = np.arange(last.rows) % 2 == 1
        assert alone.take(odd).equals(wanted.slice(last.first_row, last.rows).filter(pa.array(odd)))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("nullable", [False, True])
def test_headers_alone_tell_the_bytes_of_plain_pages(tmp_path: Path, version: Any, nullable: bool) -> None:
    schema = pa.schema([pa.field("text", pa.string(), nullable=nullable)])
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": texts(2000)}, schema=schema), path, use_dictionary=False, data_page_version=version,
        data_page_size=3000, write_batch_size=64,
    )  # fmt: skip
    [(_, chunk, wanted)] = chunks(path)
    assert chunk is not None
    told = [page.text_bytes for page in chunk.pages]
    sizes = pc.binary_length(wanted)
    assert told == [pc.sum(sizes.slice(page.first_row, page.rows)).as_py() for page in chunk.pages]


def test_a_dictionary_without_repeats_tells_its_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(500)]}), tmp_path / "a.parquet")
    [(_, chunk, wanted)] = chunks(tmp_path / "a.parquet")
    assert chunk is not None
    assert sum(page.text_bytes for page in chunk.pages) == pc.sum(pc.binary_length(wanted)).as_py()


def test_files_of_another_writer(tmp_path: Path) -> None:
    pl.DataFrame({"text": texts(900, nulls=0.1)}).write_parquet(tmp_path / "a.parquet", row_group_size=400)
    for read, chunk, wanted in chunks(tmp_path / "a.parquet"):
        assert chunk is not None
        assert pa.concat_arrays([page.take() for page in read_pages(read, chunk, chunk.pages)]).equals(wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
        {"column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}, "use_dictionary": False},
        {"compression": "lz4"},
    ],
)
def test_what_cannot_be_read_page_by_page_is_left_to_pyarrow(tmp_path: Path, options: dict[str, Any]) -> None:
    pq.write_table(pa.table({"text": texts(50)}), tmp_path / "a.parquet", **options)
    assert [chunk for _, chunk, _ in chunks(tmp_path / "a.parquet")] == [None]


@pytest.mark.parametrize("column", [pa.array([[b"x"]]), pa.array([1]), pa.nulls(1), pa.array([{"text": "x"}])])
def test_columns_that_are_no_strings(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    chunk = file.metadata.row_group(0).column(0)
    assert find_pages(reader(tmp_path / "a.parquet"), chunk, file.schema.column(0), 1) is None


@pytest.mark.parametrize("dictionary", [False, True])
def test_damage_ends_in_an_error_or_in_texts_never_in_a_crash(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": texts(300, nulls=0.2)}), path, use_dictionary=dictionary, compression="none",
        data_page_size=2000, write_batch_size=50,
    )  # fmt: skip
    content, rng = path.read_bytes(), random.Random(5)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[4 + rng.randrange(chunk.total_compressed_size)] = rng.randrange(256)
        (tmp_path / "b.parquet").write_bytes(damaged)
        file = pq.ParquetFile(tmp_path / "b.parquet")
        read = reader(tmp_path / "b.parquet")
        pages = find_pages(read, file.metadata.row_group(0).column(0), file.schema.column(0), 300)
        try:
            for page in read_pages(read, pages, pages.pages) if pages is not None else ():
                assert page.sizes.min() >= 0
                page.take()
        except DamagedPage:
            refused += 1
    assert refused
