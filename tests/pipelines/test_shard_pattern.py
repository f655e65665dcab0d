"""Which files are shards, of which language, and what they are called in the raw tree."""

from __future__ import annotations

import pytest

from lola_data.errors import RecipeError
from pipelines.shard_pattern import ShardPattern


@pytest.mark.parametrize(
    ("files", "names", "path", "expected"),
    [
        ("{lang}/**", {}, "de/de_part_00000.parquet", ("de", "de/de_part_00000.parquet")),
        ("{lang}/**", {}, "de/2020/a.parquet", ("de", "de/2020-a.parquet")),
        ("{lang}/**", {}, "de/a.jsonl.zst", ("de", "de/a.parquet")),
        ("{lang}/**", {}, "a.parquet", None),
        ("{lang}/**", {}, "de/.hidden.parquet", None),
        ("{lang}/**", {}, "de/checksum.sha256", None),
        ("{lang}/**", {}, "de/readme.txt", None),
        # mC4
        (
            "multilingual/c4-{lang}.tfrecord-*",
            {},
            "multilingual/c4-sw.tfrecord-00000-of-00008.json.gz",
            ("sw", "sw/c4-sw.tfrecord-00000-of-00008.parquet"),
        ),
        ("multilingual/c4-{lang}.tfrecord-*", {}, "en/c4-train.00000.json.gz", None),
        # OSCAR 23.01
        ("{lang}_meta/*", {}, "yo_meta/yo_meta.jsonl.zst", ("yo", "yo/yo_meta.parquet")),
        # FineWeb-2
        (
            "data/{lang}/train/*",
            {"de": "deu_Latn"},
            "data/deu_Latn/train/000_00000.parquet",
            ("de", "de/000_00000.parquet"),
        ),
        ("data/{lang}/train/*", {"de": "deu_Latn"}, "data/deu_Latn/test/000_00000.parquet", None),
        ("{lang}/{lang}_*", {}, "de/de_1.parquet", ("de", "de/de_1.parquet")),
        ("{lang}/{lang}_*", {}, "de/en_1.parquet", None),
        ("{lang}/part?.parquet", {}, "de/part1.parquet", ("de", "de/part1.parquet")),
        ("{lang}/part?.parquet", {}, "de/part12.parquet", None),
    ],
)
def test_match(files: str, names: dict[str, str], path: str, expected: tuple[str, str] | None) -> None:
    found = ShardPattern(files, names).match(path)
    assert (None if found is None else (found.lang, found.raw)) == expected


def test_a_language_with_parquet_has_no_other_shards() -> None:
    paths = ["de/a.parquet", "de/stats.json", "sw/a.jsonl", "sw/manifest.json"]
    assert [one.path for one in ShardPattern().matches(paths, None)] == ["de/a.parquet", "sw/a.jsonl"]
    assert [one.path for one in ShardPattern().matches(paths, ["sw"])] == ["sw/a.jsonl"]


def test_what_lies_beside_parquet_is_told() -> None:
    paths = ["de/b.jsonl.zst", "de/a.parquet", "de/stats.json", "de/b.json.gz", "sw/a.jsonl", "de/a.ndjson", "de/x.txt"]
    assert ShardPattern().beside(paths, None) == ["de/a.ndjson", "de/b.jsonl.zst"]
    assert ShardPattern().beside(paths, ["sw"]) == []
    assert ShardPattern("{lang}/*.jsonl").beside(paths, None) == []


def test_a_pattern_without_a_language_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"`files: data/\*` has no \{lang\}"):
        ShardPattern("data/*")
