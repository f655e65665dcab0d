"""Sizes in footers and headers of pages, against what pyarrow reads and knows of the same files."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.balance.thrift import DATA, DATA_V2, DICTIONARY, PLAIN, page_header, text_bytes_by_group

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.thrift import Read

TEXTS = ["Straße", "", "漢字", "a" * 5000, "ọjọ́"] * 20


def reader(path: Path) -> Read:
    content = path.read_bytes()
    return lambda at, size: content[at:][:size] if at >= 0 else content[max(0, len(content) + at) :][:size]


def test_text_bytes_of_each_row_group(tmp_path: Path) -> None:
    nested = pa.array([[{"text": "no"}]] * len(TEXTS))
    table = pa.table({"other": TEXTS[::-1], "nested": nested, "text": TEXTS, "flag": [True, None] * 50})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    wanted = [sum(len(text.encode()) for text in TEXTS[start : start + 30]) for start in range(0, 100, 30)]
    assert text_bytes_by_group(reader(tmp_path / "a.parquet"), "text") == wanted


def test_a_nested_text_is_not_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"outer": [{"text": "abc"}], "text": ["de"]}), tmp_path / "a.parquet")
    assert text_bytes_by_group(reader(tmp_path / "a.parquet"), "text") == [2]


def test_writers_that_tell_no_sizes(tmp_path: Path) -> None:
    pl.DataFrame({"text": TEXTS}).write_parquet(tmp_path / "a.parquet")
    assert text_bytes_by_group(reader(tmp_path / "a.parquet"), "text") == [None]
    assert text_bytes_by_group(reader(tmp_path / "a.parquet"), "absent") == [None]


def test_footers_that_make_no_sense_are_not_understood(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet", row_group_size=7)
    content = (tmp_path / "a.parquet").read_bytes()
    for cut in (b"", b"PAR1", content[:-1], content[: len(content) // 2]):
        (tmp_path / "cut").write_bytes(cut)
        assert text_bytes_by_group(reader(tmp_path / "cut"), "text") is None
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rng = random.Random(3)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            damaged[rng.randrange(footer, len(content) - 8)] = rng.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        found = text_bytes_by_group(reader(tmp_path / "damaged"), "text")  # whatever it says: it comes to an end
        assert found is None or all(size is None or isinstance(size, int) for size in found)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_page_headers(tmp_path: Path, version: str) -> None:
    texts = pa.array([*TEXTS, None])
    pq.write_table(
        pa.table({"text": texts}), tmp_path / "a.parquet", use_dictionary=False, data_page_version=version,
        compression="none",
    )  # fmt: skip
    chunk = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    whole = reader(tmp_path / "a.parquet")(chunk.data_page_offset, 10**9)
    found = page_header(whole)
    assert found is not None
    header, length = found
    assert (header.kind, header.encoding) == (DATA if version == "1.0" else DATA_V2, PLAIN)
    assert (header.values, header.nulls) == (101, 1)
    assert length + header.packed == chunk.total_compressed_size
    assert header.packed == header.unpacked
    assert all(page_header(whole[:cut]) is None for cut in range(length))


def test_header_of_a_dictionary(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet", compression="none")
    chunk = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    found = page_header(reader(tmp_path / "a.parquet")(chunk.dictionary_page_offset, 10**6))
    assert found is not None
    assert (found[0].kind, found[0].values) == (DICTIONARY, len(set(TEXTS)))
    assert found[0].unpacked == sum(4 + len(text.encode()) for text in set(TEXTS))
