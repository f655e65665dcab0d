"""A tree of which only some pages are read, against the same tree read whole."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.balance import measure as balance
from lola_data.balance import sample as balance_sample
from lola_data.balance import tokens as balance_tokens
from lola_data.balance.measure import measure
from lola_data.balance.table import LEVELS
from lola_data.balance.text import estimate_lines, table_cells
from lola_data.errors import ShardError
from lola_data.sample_corpus import sample_root
from lola_data.schemas import IDENTIFIED
from tests.lola_data.balance.trees import write_pages, write_rows, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.measure import Balance

COUNTED = ("detected", "domains", "linked", "years", "removed", "rejected", "splits", "plan")
ESTIMATED = ("characters", "empty", *(name for name, _ in LEVELS))


def texts(count: int, seed: int = 0) -> list[str]:
    """Of lengths that differ much, in one to three bytes a character, now and then empty."""
    rng = random.Random(seed)
    letters = [rng.choices(alphabet, k=4000) for alphabet in ("abcde fgh ", "aßé ", "漢字。")]
    return [
        "" if rng.random() < 0.02 else "".join(rng.choice(letters)[: int(rng.lognormvariate(4, 1))])
        for _ in range(count)
    ]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two languages of 200 pages of 20 documents each, of which 40 are read; one that is read whole."""
    monkeypatch.setattr(balance_sample, "SAMPLE_BYTES", 1)
    monkeypatch.setattr(balance_sample, "LEAST_UNITS", 40)
    for number, lang in enumerate(("de", "zh")):
        write_pages(tmp_path / "raw", lang, texts(4000, number))
    write_pages(tmp_path / "raw", "yo", texts(60, 9))
    return tmp_path / "raw"


def rows_of(found: Balance) -> dict[str, dict[str, Any]]:
    return {row["lang"]: row for row in found.table().iter_rows(named=True)}


@pytest.mark.parametrize("root", ["sample", "pages"])
def test_a_language_of_few_pages_is_counted_as_if_all_were_read(tmp_path: Path, root: str) -> None:
    if root == "pages":
        write_pages(tmp_path / "raw", "de", texts(900))
    tree = sample_root() if root == "sample" else tmp_path / "raw"
    sampled, whole = measure(tree, exact=False), measure(tree, exact=True)
    assert sampled.exact
    assert sampled.estimated_columns() == frozenset()
    for name in (*COUNTED, "sizes", "lengths", "scripts"):
        assert getattr(sampled, name).equals(getattr(whole, name)), name
    assert sampled.table().equals(whole.table())


def test_what_does_not_hang_on_texts_is_counted(large: Path) -> None:
    sampled, whole = measure(large, exact=False), measure(large, exact=True)
    for name in COUNTED:
        assert getattr(sampled, name).equals(getattr(whole, name)), name
    counts = ["lang", "source", "documents", "elsewhere"]
    assert sampled.sizes.select(counts).equals(whole.sizes.select(counts))
    by_lang = [one.sizes.group_by("lang").agg(pl.col("bytes").sum()).sort("lang") for one in (sampled, whole)]
    assert by_lang[0].equals(by_lang[1])
    assert not sampled.exact
    assert whole.exact
    assert set(sampled.read["lang"]) == {"de", "zh"}
    assert set(sampled.read["documents"]) == {800}


def test_estimates_stay_within_their_intervals_about_as_often_as_they_say(large: Path) -> None:
    truth = rows_of(measure(large, exact=True))
    held: dict[str, list[bool]] = {name: [] for name in ESTIMATED}
    for seed in range(40):
        found = measure(large, exact=False, seed=seed, workers=1)
        assert found.estimated_columns() >= set(ESTIMATED)
        for lang, row in rows_of(found).items():
            for name in ESTIMATED:
                low, value, high = (row[name + end] for end in ("_low", "", "_high"))
                assert low <= value <= high
                if lang == "yo":
                    assert low == value == high == truth[lang][name]
                else:
                    held[name].append(low <= truth[lang][name] <= high)
    for name, inside in held.items():
        # Of 80 intervals of 95 % fewer than 68 hold with a chance below 1 in 10,000.
        assert sum(inside) >= 68, name


def test_estimates_add_up_in_groups(large: Path) -> None:
    found = measure(large, exact=False)
    rows, total = rows_of(found), found.totals()
    assert found.lengths["documents"].sum() == total["documents"] == 8060
    assert sum(row["characters"] for row in rows.values()) == total["characters"]
    half = [(row["characters_high"] - row["characters_low"]) / 2 for row in rows.values()]
    assert (total["characters_high"] - total["characters_low"]) / 2 == pytest.approx(np.hypot(*sorted(half)[1:]))
    assert total["mean_length_low"] == pytest.approx(total["characters_low"] / 8060)
    sources = found.table("source")
    assert sources["bytes"].sum() == total["bytes"]
    assert found.estimated_columns("source") >= {"bytes", "share"}
    assert "bytes" not in found.estimated_columns()
    own = found.sizes.filter(pl.col("lang") == "de")
    spread = found.lengths.filter(pl.col("lang") == "de").group_by("source").agg(pl.col("documents").sum())
    assert dict(spread.iter_rows()) == dict(own.select("source", "documents").iter_rows())


def test_the_result_depends_on_the_seed_and_on_neither_threads_nor_place(large: Path, tmp_path: Path) -> None:
    one = measure(large, exact=False, workers=1)
    assert measure(large, exact=False, workers=4).table().equals(one.table())
    shutil.copytree(large, tmp_path / "elsewhere")
    assert measure(tmp_path / "elsewhere", exact=False).table().equals(one.table())
    assert not measure(large, exact=False, seed=1).table().equals(one.table())


@pytest.mark.parametrize(
    "options",
    [
        {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
        {"compression": "lz4"},
        {"use_dictionary": True, "data_page_version": "2.0"},
    ],
)
def test_row_groups_take_the_place_of_pages_where_these_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(balance_sample, "SAMPLE_BYTES", 1)
    write_pages(tmp_path / "raw", "de", texts(4000), row_group_size=20, **options)
    truth = rows_of(measure(tmp_path / "raw", exact=True))["de"]
    found = measure(tmp_path / "raw", exact=False)
    row = rows_of(found)["de"]
    assert found.read["documents"].to_list() == [20 * balance_sample.LEAST_UNITS]
    # Of texts written as differences the footer's sizes are wrong.
    assert ("bytes" in found.estimated_columns()) == ("column_encoding" in options)
    assert row.get("bytes_low", row["bytes"]) <= truth["bytes"] <= row.get("bytes_high", row["bytes"])
    assert row["characters_low"] <= truth["characters"] <= row["characters_high"]


def test_bytes_are_estimated_where_no_footer_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_sample, "SAMPLE_BYTES", 1)
    (tmp_path / "raw/de").mkdir(parents=True)
    rows = texts(4000)
    repeating = [rows[number % 1500] for number in range(4000)]
    pl.DataFrame({"text": repeating}).write_parquet(tmp_path / "raw/de/a.parquet", row_group_size=50)
    truth = rows_of(measure(tmp_path / "raw", exact=True))["de"]
    held: list[bool] = []
    for seed in range(25):
        found = measure(tmp_path / "raw", exact=False, seed=seed)
        assert {"bytes", "share", "characters"} <= found.estimated_columns()
        row = rows_of(found)["de"]
        held += [row[f"{name}_low"] <= truth[name] <= row[f"{name}_high"] for name in ("bytes", "characters")]
    assert sum(held) >= 41  # of 50


def test_a_remote_tree_is_sampled_by_row_groups(large: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(large), "/balance/raw", recursive=True)
    try:
        found = rows_of(measure("memory://balance/raw", exact=False))
    finally:
        memory.rm("/balance", recursive=True)
    # Ten row groups a language are all read, for fewer than 40 are not sampled.
    assert found["de"]["characters"] == rows_of(measure(large, exact=True))["de"]["characters"]


def test_labels_of_identified_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_sample, "SAMPLE_BYTES", 1)
    rng = random.Random(4)
    rows = [
        {"text": text, "claimed_lang": rng.choice(["de", "de", "als"]), "lang": rng.choice(["de", "de", "nl", None]),
         "script": rng.choice(["Latn", "Cyrl"]), "source": rng.choice("ab")}
        for text in texts(3000)
    ]  # fmt: skip
    write_rows(tmp_path / "identified/de/a.parquet", IDENTIFIED, rows, group=20)
    sampled, whole = measure(tmp_path / "identified", exact=False), measure(tmp_path / "identified", exact=True)
    keys = ["lang", "source", "claimed", "detected", "documents"]
    assert sampled.detected.select(keys).equals(whole.detected.select(keys))
    assert sampled.scripts.equals(whole.scripts)
    assert sampled.confusions().equals(whole.confusions())
    assert sampled.detected["bytes"].sum() == pytest.approx(whole.detected["bytes"].sum(), rel=0.05)


def test_only_large_trees_are_sampled_unless_told(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(large).exact
    monkeypatch.setattr(balance, "EXACT_BELOW", 1000)
    assert not measure(large).exact
    assert measure(large, exact=True).exact


def test_tokens_of_a_sampled_tree(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tokenizer(tmp_path / "a.model")
    monkeypatch.setattr(balance_tokens, "SAMPLE_BYTES", 10_000)
    monkeypatch.setattr(balance_tokens, "SAMPLE_DOCUMENTS", 100)
    truth = rows_of(measure(large, exact=True, tokens=model))
    assert measure(large, exact=True, tokens=model).exact
    held = 0
    for seed in range(10):
        found = measure(large, exact=False, tokens=model, seed=seed)
        assert {"tokens", "bytes_per_token"} <= found.estimated_columns()
        encoded = dict(found.encoded.select("lang", "documents").iter_rows())
        assert 50 < encoded["de"] < 200
        held += sum(
            row["tokens_low"] <= truth[lang]["tokens"] <= row["tokens_high"]
            for lang, row in rows_of(found).items()
            if lang != "yo"
        )
        row = rows_of(found)["de"]
        assert row["bytes_per_token_low"] < row["bytes_per_token"] < row["bytes_per_token_high"]
    assert held >= 15  # of 20


def test_estimates_are_marked(large: Path) -> None:
    found = measure(large, exact=False)
    headers, _, rows = table_cells(found, "language")
    shown = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    for name in ("mean chars", "p50", "p99", "empty"):
        assert shown["de"][name].startswith("~"), name
        assert not shown["yo"][name].startswith("~"), name
    assert not any(shown["de"][name].startswith("~") for name in ("documents", "bytes", "share"))
    assert shown["total"]["mean chars"].startswith("~")
    _, _, sources = table_cells(found, "source")
    by_source = {row[0]: row for row in sources}
    assert by_source["mC4"][3].startswith("~")
    assert by_source["total"][3] == shown["total"]["bytes"]
    assert any(line.startswith("~ estimated from a sample") for line in estimate_lines(found))
    assert estimate_lines(measure(large, exact=True)) == []


def test_a_damaged_page_is_named(large: Path) -> None:
    path = large / "de/de_part_00000.parquet"
    content = bytearray(path.read_bytes())
    meta = pq.read_metadata(path)
    for group in range(meta.num_row_groups):
        chunk = meta.row_group(group).column(0)
        middle = chunk.data_page_offset + chunk.total_compressed_size // 2
        content[middle : middle + 900] = b"\xff" * 900
    path.write_bytes(bytes(content))
    with pytest.raises(ShardError, match=r"de_part_00000\.parquet: row group \d+ cannot be read .*build this shard"):
        measure(large, exact=False)


def test_shards_without_rows_or_texts(tmp_path: Path) -> None:
    write_pages(tmp_path / "raw", "de", [])
    (tmp_path / "raw/nl").mkdir()
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "raw/nl/a.parquet")
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), tmp_path / "raw/nl/b.parquet")
    rows = rows_of(measure(tmp_path / "raw", exact=False))
    assert (rows["de"]["documents"], rows["nl"]["documents"], rows["nl"]["empty"]) == (0, 5, 5)
    pq.write_table(pa.table({"text": [1]}), tmp_path / "raw/nl/c.parquet")
    with pytest.raises(ShardError, match=r"c\.parquet: column `text` is int64"):
        measure(tmp_path / "raw", exact=False)
