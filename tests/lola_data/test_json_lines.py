"""JSON lines against the standard library's reading of the same lines, and every way in which they can be wrong."""

from __future__ import annotations

import bz2
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lola_data import json_lines
from lola_data.errors import ShardError
from lola_data.json_lines import REST, first_object, read_json_lines

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = {"text": "text", "url": "meta.url"}


def write(path: Path, content: bytes) -> Path:
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(packed.get(path.suffix, bytes)(content))
    return path


def read(path: Path, columns: dict[str, str] | None = None, **options: Any) -> list[dict[str, Any]]:
    batches = read_json_lines(path, columns or COLUMNS, shown="there.jsonl", **options)
    return [row for batch in batches for row in batch.to_pylist()]


ROWS = [
    {"text": "eins", "meta": {"url": "https://a.example/", "other": [1, 2]}, "n": 1},
    {"text": "", "meta": None},
    {"text": None, "meta": {}},
    {"n": 2},
    {"text": 'quotes " and \\ and \n and \u2028 and 漢字 \U0001f600', "meta": {"url": "u"}},
]
EXPECTED = [
    {"text": row.get("text"), "url": (row.get("meta") or {}).get("url")}  # pyright: ignore[reportAttributeAccessIssue]
    for row in ROWS
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "ndjson", "jsonl.gz", "jsonl.zst", "jsonl.bz2"])
def test_every_packing_reads_the_same(tmp_path: Path, ending: str) -> None:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    assert read(write(tmp_path / f"a.{ending}", content)) == EXPECTED


@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", block)
    content = b"\xef\xbb\xbf\n" + b"\r\n\n".join(json.dumps(row).encode() for row in ROWS)
    assert read(write(tmp_path / "a.jsonl", content)) == EXPECTED


def test_several_frames_in_one_archive(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(gzip.compress(line) for line in lines))
    compressor = zstandard.ZstdCompressor()
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(compressor.compress(line) for line in lines))
    assert read(tmp_path / "a.jsonl.gz") == read(tmp_path / "a.jsonl.zst") == EXPECTED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"text": st.none() | st.text(), "meta": st.none() | st.dictionaries(st.text(), st.text())}
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_any_objects_are_read_as_the_standard_library_reads_them(
    tmp_path: Path, rows: list[dict[str, Any]], ascii_only: bool
) -> None:
    content = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(content)
    expected = [{"text": row.get("text"), "url": (row.get("meta") or {}).get("url")} for row in rows]
    assert read(tmp_path / "a.jsonl") == expected


def test_the_rest_is_kept_as_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    rows = read(path, rest=True)
    assert [{name: row[name] for name in COLUMNS} for row in rows] == EXPECTED
    assert json.loads(rows[0][REST]) == {"meta": {"other": [1, 2]}, "n": 1}
    assert json.loads(rows[3][REST]) == {"n": 2}


def test_numbers_and_objects_in_optional_columns_become_text(tmp_path: Path) -> None:
    content = (
        b'{"text": "a", "meta": {"url": 17}}\n{"text": "b", "meta": {"url": {"x": [1]}}}\n{"text": "c", "meta": 3}\n'
    )
    assert [row["url"] for row in read(write(tmp_path / "a.jsonl", content))] == ["17", '{"x": [1]}', None]


def test_what_is_not_utf8_comes_through_as_it_is(tmp_path: Path) -> None:
    # Whether such a row is dropped or fails is for the checks of a later stage to decide.
    content = b'{"text": "a\xff\xfeb"}\n{"text": "\\ud800"}\n'
    batches = list(read_json_lines(write(tmp_path / "a.jsonl", content), COLUMNS, shown="x"))
    texts = [bytes(value.as_buffer()) for batch in batches for value in batch.column("text")]
    assert texts == [b"a\xff\xfeb", b"\xed\xa0\x80"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": "b"\n', r"there\.jsonl: line 2 is not a JSON object"),
        (b'{"text": "a"}\n\n[1, 2]\n', r"line 3 is a list, not a JSON object"),
        (b'{"text": "a"}\n"b"\n', r"line 2 is a string, not a JSON object"),
        (b'{"text": "a"}\n{"text": 17}\n', r"line 2: `text` is a number, not a string"),
        (b'{"text": "a"}\n{"text": {"de": "b"}}\n', r"line 2: `text` is an object, not a string"),
        (b'{"text": "a"} {"text": "b"}\n', r"line 1 is not a JSON object"),
        (b'{"text":\n "a"}\n', r"line 1 is not a JSON object"),
        (b"PAR1\x00\x01\n", r"line 1 is not a JSON object"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ShardError, match=said):
        read(write(tmp_path / "a.jsonl", content))


def test_a_line_that_is_wrong_is_named_in_later_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 100)
    content = b'{"text": "a"}\n' * 500 + b'{"text": \n' + b'{"text": "a"}\n' * 5
    with pytest.raises(ShardError, match=r"line 501 is not"):
        read(write(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2"])
def test_an_archive_that_is_cut_off_is_named(tmp_path: Path, ending: str) -> None:
    lines = "".join(json.dumps({"text": f"{number:x}" * 50}) + "\n" for number in range(5000)).encode()
    path = write(tmp_path / f"a.jsonl.{ending}", lines)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardError, match=r"there\.jsonl: (the archive is damaged or cut off|line [\d,]+ is not)"):
        read(path)


def test_no_archive_at_all_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"not packed")
    with pytest.raises(ShardError, match=r"there\.jsonl: the archive is damaged"):
        read(tmp_path / "a.jsonl.zst")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(json_lines, "LONGEST_LINE", 2**12)
    with pytest.raises(ShardError, match="line 2 is longer than"):
        read(write(tmp_path / "a.jsonl", b'{"text": "a"}\n' + b'{"text": "' + b"a" * 2**14))


def test_a_document_of_100_mb(tmp_path: Path) -> None:
    text = "ein Satz. " * 10_000_000
    path = write(tmp_path / "a.jsonl", json.dumps({"text": text}).encode() + b'\n{"text": "b"}\n')
    assert [row["text"] for row in read(path)] == [text, "b"]


def test_first_object(tmp_path: Path) -> None:
    assert first_object(write(tmp_path / "a.jsonl", b'\n\n{"a": 1}\n{"b": 2}\n'), shown="x") == {"a": 1}
    assert first_object(write(tmp_path / "b.jsonl", b"\n"), shown="x") == {}
