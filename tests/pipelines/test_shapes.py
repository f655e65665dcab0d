"""Shards of other shapes through the download stage: the raw shards that come of them, or a refusal that says why."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lola_data.schemas import RAW
from tests.pipelines.download_cases import fetch, manifest_of, read_tree, shard, stage_of, write_tree

if TYPE_CHECKING:
    from pathlib import Path


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def bring(tmp_path: Path, files: dict[str, bytes], *options: str) -> list[str]:
    source = write_tree(tmp_path / "source", files)
    return fetch(stage_of(tmp_path / "w", "download.source=local", f"download.path={source}", *options))


def raw(tmp_path: Path, path: str) -> pa.Table:
    return pq.read_table(tmp_path / "w" / "raw" / path)


def parquet(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


MC4 = [
    {"text": "Habari ya dunia", "timestamp": "2019-04-21T06:14:44Z", "url": "https://a.example/1"},
    {"text": "Siku njema", "timestamp": "2018-01-02T03:04:05Z", "url": "https://b.example/2"},
]
OSCAR = [
    {
        "content": "Ọjọ́ ire o",
        "warc_headers": {
            "warc-record-id": "<urn:uuid:1>",
            "warc-date": "2022-11-27T01:02:03Z",
            "warc-target-uri": "https://yo.example/",
            "warc-identified-content-language": "yor",
            "content-length": 321,
        },
        "metadata": {
            "identification": {"label": "yo", "prob": 0.91},
            "harmful_pp": 1000.5,
            "quality_warnings": ["tiny"],
            "categories": None,
            "sentence_identifications": [{"label": "yo", "prob": 0.9}, None],
        },
    }
]


class TestJson:
    def test_mc4(self, tmp_path: Path) -> None:
        files = {"multilingual/c4-sw.tfrecord-00000-of-00001.json.gz": gzip.compress(lines(MC4))}
        options = ['download.files="multilingual/c4-{lang}.tfrecord-*"', "download.source_name=mC4"]
        assert bring(tmp_path, files, *options, "download.extra_columns=drop") == []
        table = raw(tmp_path, "sw/c4-sw.tfrecord-00000-of-00001.parquet")
        assert table.schema.equals(RAW)
        assert table.to_pylist() == [{**row, "source": "mC4"} for row in MC4]

    def test_oscar(self, tmp_path: Path) -> None:
        packed = zstandard.ZstdCompressor().compress(lines(OSCAR))
        assert bring(tmp_path, {"yo_meta/yo_meta.jsonl.zst": packed}, 'download.files="{lang}_meta/*"') == []
        (row,) = raw(tmp_path, "yo/yo_meta.parquet").to_pylist()
        assert row["text"] == OSCAR[0]["content"]
        assert row["url"] == "https://yo.example/"
        assert row["timestamp"] == "2022-11-27T01:02:03Z"
        assert row["source"] is None
        rest = json.loads(row["extra"])
        assert rest["metadata"] == OSCAR[0]["metadata"]
        assert "content" not in rest
        assert rest["warc_headers"]["warc-record-id"] == "<urn:uuid:1>"

    def test_other_names(self, tmp_path: Path) -> None:
        rows = [{"body": "Guten Tag", "meta": {"link": "https://de.example/"}, "n": 3}]
        columns = "download.columns={text: body, url: meta.link}"
        assert bring(tmp_path, {"de/a.jsonl": lines(rows)}, columns, "download.extra_columns=drop") == []
        assert raw(tmp_path, "de/a.parquet").to_pylist() == [
            {"text": "Guten Tag", "timestamp": None, "url": "https://de.example/", "source": None}
        ]

    def test_the_manifest_has_the_digests_of_both_files(self, tmp_path: Path) -> None:
        content = lines(MC4)
        source = write_tree(tmp_path / "source", {"sw/a.jsonl": content})
        stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
        assert fetch(stage) == []
        (entry,) = manifest_of(stage)["source"]["shards"]
        assert entry["origin_sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["sha256"] == hashlib.sha256((tmp_path / "w" / "raw" / "sw" / "a.parquet").read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (lines([{"body": "x"}]), r"sw/a\.jsonl: no column or field `text`; it has body.*`columns`"),
            (lines([{"text": None}, {"text": None}]), r"sw/a\.jsonl: no row has a text"),
            (lines(MC4)[:-10], r"sw/a\.jsonl: line 2 is not a JSON object"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_named_and_the_others_finish(
        self, tmp_path: Path, content: bytes, said: str
    ) -> None:
        (message,) = bring(tmp_path, {"sw/a.jsonl": content, "sw/b.jsonl": lines(MC4)})
        assert re.search(said, message)
        assert list(read_tree(tmp_path / "w" / "raw")) == ["sw/b.parquet"]

    def test_a_column_map_that_leads_nowhere_is_named(self, tmp_path: Path) -> None:
        (message,) = bring(tmp_path, {"sw/a.jsonl": lines(MC4)}, "download.columns={text: body}")
        assert "no column or field `body` for `text`; it has text, timestamp, url" in message


class TestParquet:
    TEXT = ("eins", "zwei", None)

    def test_other_names_and_types(self, tmp_path: Path) -> None:
        when = [datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), None, datetime(2021, 1, 2, tzinfo=UTC)]
        columns = {
            "id": [1, 2, 3],
            "content": pa.array(self.TEXT, pa.large_string()),
            "date": pa.array(when, pa.timestamp("s")),
            "meta": [{"url": "u1", "n": 1}, {"url": None, "n": 2}, None],
            "origin": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
        east = [datetime(2020, 1, 2, 0, 30, tzinfo=timezone(timedelta(hours=2)))]
        zoned = {"text": ["x"], "date": pa.array(east, pa.timestamp("us", "Europe/Helsinki"))}
        assert bring(tmp_path / "zoned", {"de/a.parquet": parquet(zoned)}, "download.columns={timestamp: date}") == []
        assert raw(tmp_path / "zoned", "de/a.parquet")["timestamp"].to_pylist() == ["2020-01-01T22:30:00Z"]
        mapping = "download.columns={text: content, timestamp: date, url: meta.url, source: origin}"
        assert bring(tmp_path, {"de/a.parquet": parquet(columns)}, mapping) == []
        table = raw(tmp_path, "de/a.parquet")
        assert table.column_names == ["text", "timestamp", "url", "source", "id", "meta"]
        assert table.select(["text", "url", "source", "id"]).to_pylist() == [
            {"text": "eins", "url": "u1", "source": "a", "id": 1},
            {"text": "zwei", "url": None, "source": "b", "id": 2},
            {"text": None, "url": None, "source": "a", "id": 3},
        ]
        assert table["timestamp"].to_pylist() == ["2020-01-02T03:04:05", None, "2021-01-02T00:00:00"]

    def test_extra_columns_are_kept_or_dropped_as_told(self, tmp_path: Path) -> None:
        columns = {"text": list(self.TEXT), "score": [0.5, 0.25, 1.0], "tags": [["a"], [], None]}
        file = parquet(columns)
        assert bring(tmp_path / "kept", {"de/a.parquet": file}) == []
        assert (tmp_path / "kept/w/raw/de/a.parquet").read_bytes() == file
        assert bring(tmp_path / "dropped", {"de/a.parquet": file}, "download.extra_columns=drop") == []
        assert raw(tmp_path / "dropped", "de/a.parquet").schema.equals(RAW)
        assert bring(tmp_path / "named", {"de/a.parquet": file}, "download.source_name=Crawl") == []
        table = raw(tmp_path / "named", "de/a.parquet")
        assert table.column_names == [*RAW.names, "score", "tags"]
        assert table["tags"].to_pylist() == [["a"], [], None]
        assert table["source"].to_pylist() == ["Crawl"] * 3

    @pytest.mark.parametrize(
        ("columns", "mapping", "said"),
        [
            ({"body": ["x"]}, "{text: content}", "no column or field `content` for `text`; it has body"),
            ({"text": [1]}, "{url: text}", "`text` is int64, not string; name another column for `text`"),
            ({"text": ["x"], "meta": [["a"]]}, "{url: meta}", "`meta` is list<"),
            ({"text": ["x"], "meta": [{"a": "b"}]}, "{url: meta.link}", "no `meta.link` for `url`"),
        ],
    )
    def test_a_shape_that_does_not_fit_is_refused(
        self, tmp_path: Path, columns: dict[str, Any], mapping: str, said: str
    ) -> None:
        (message,) = bring(tmp_path, {"de/a.parquet": parquet(columns)}, f"download.columns={mapping}")
        assert message.startswith(f"{tmp_path}/source/de/a.parquet: ")
        assert said in message
        assert read_tree(tmp_path / "w" / "raw") == {}

    def test_a_damaged_file_is_named_when_it_is_made_over(self, tmp_path: Path) -> None:
        whole = shard("de", rows=50)
        files = {"de/cut.parquet": whole[:-1000], "de/whole.parquet": whole}
        (message,) = bring(tmp_path, files, "download.extra_columns=drop")
        assert f"{tmp_path}/source/de/cut.parquet: not a complete Parquet file" in message
        assert list(read_tree(tmp_path / "w" / "raw")) == ["de/whole.parquet"]


def test_made_over_shards_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    files = {"sw/a.jsonl": lines(MC4 * 500), "sw/b.jsonl.gz": gzip.compress(lines(MC4))}
    assert bring(tmp_path / "one", files) == bring(tmp_path / "two", files) == []
    assert read_tree(tmp_path / "one/w/raw") == read_tree(tmp_path / "two/w/raw")


def test_what_is_read_from_inside_a_column_leaves_the_rest_to_be_kept(tmp_path: Path) -> None:
    meta = [{"when": f"2020-01-0{day}", "x": day} for day in (1, 2)]
    file = parquet({"content": ["eins", "zwei"], "meta": meta})
    options = ("download.columns={text: content, timestamp: meta.when}",)
    assert bring(tmp_path, {"de/a.parquet": file}, *options) == []
    table = raw(tmp_path, "de/a.parquet")
    assert table.column_names == ["text", "timestamp", "url", "source", "meta"]
    assert table["timestamp"].to_pylist() == ["2020-01-01", "2020-01-02"]
    assert table["meta"].to_pylist() == meta


def test_a_column_with_a_dot_in_its_name(tmp_path: Path) -> None:
    file = parquet({"text": ["eins"], "meta.link": ["https://a.example"], "meta": [{"link": "another"}]})
    assert bring(tmp_path, {"de/a.parquet": file}, "download.columns={url: meta.link}") == []
    table = raw(tmp_path, "de/a.parquet")
    assert table["url"].to_pylist() == ["https://a.example"]
    assert table["meta"].to_pylist() == [{"link": "another"}]


def test_a_shard_without_text_is_told_of_columns(tmp_path: Path) -> None:
    (message,) = bring(tmp_path, {"de/a.parquet": parquet({"content": ["eins"]})})
    assert "its columns are content" in message
    assert "`columns: {text: NAME}`" in message
