"""The balance against figures counted by hand, and against a plain Python count of the same rows."""

from __future__ import annotations

import math
import random
import shutil
import statistics
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.balance import rows as balance_rows
from lola_data.balance import sums as balance_sums
from lola_data.balance import table as balance_table
from lola_data.balance.measure import measure
from lola_data.balance.warnings import warnings_of
from lola_data.errors import RecipeError, ShardError
from lola_data.sample_corpus import sample_root
from lola_data.schemas import DEDUPED, IDENTIFIED, RAW, REMOVED
from lola_data.tokens import TokenShardWriter
from tests.lola_data.balance.trees import write_rows, write_run, write_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.measure import Balance


def rows_of(balance: Balance, by: Any = "language") -> dict[str, dict[str, Any]]:
    key = "lang" if by == "language" else by
    return {row[key]: row for row in balance.table(by).iter_rows(named=True)}


def kinds(balance: Balance, **options: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for warning in warnings_of(balance, **options):
        found.setdefault(warning.kind, []).append(warning.lang)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "work")
    return tmp_path / "work"


def test_one_raw_tree(run: Path) -> None:
    balance = measure(run / "raw")
    assert (balance.stages, balance.subject, balance.joined) == (("raw",), "raw", False)
    de = rows_of(balance)["de"]
    assert (de["name"], de["script"], de["family"]) == ("German", "Latn", "Indo-European")
    # Guten Tag 9, Straße 6 (7 bytes), Grüße aus Köln 14 (17 bytes), bonjour 7, "" 0, Guten  Tag 10
    assert (de["documents"], de["empty"], de["characters"], de["bytes"]) == (6, 1, 46, 50)
    assert de["mean_length"] == pytest.approx(46 / 6)
    assert de["p50_length"] == 8  # between 7 and 9
    assert de["p90_length"] == pytest.approx(12)  # halfway from 10 to 14
    total = 50 + len("Ẹ káàárọ̀ọjọ́".encode()) + 5
    assert de["share"] == pytest.approx(50 / total)
    assert balance.totals()["bytes"] == total
    assert de["removed"] is None
    assert de["tokens"] is None


def test_all_stages_of_a_run_side_by_side(run: Path) -> None:
    balance = measure(run)
    assert balance.stages == ("raw", "identified", "deduped", "sampled", "tokens")
    assert balance.subject == "sampled"
    rows = rows_of(balance)
    stages = [f"{stage}_documents" for stage in balance.stages]
    assert [rows["de"][stage] for stage in stages] == [6, 4, 3, 2, 2]
    assert [rows["yo"][stage] for stage in stages] == [2, 2, 2, 2, 2]
    assert [rows["cy"][stage] for stage in stages] == [1, 0, 0, 0, 0]
    assert [rows["br"][stage] for stage in stages] == [0, 1, 1, 1, 1]
    assert (rows["de"]["tokens"], rows["yo"]["tokens"], rows["br"]["tokens"]) == (7, 11, 2)
    assert rows["de"]["bytes_per_token"] == pytest.approx(16 / 7)
    assert (rows["de"]["removed"], rows["de"]["removed_share"]) == (3, 0.5)
    assert (rows["br"]["removed"], rows["br"]["removed_share"]) == (0, 0.0)
    assert (rows["de"]["target_share"], rows["de"]["epochs"]) == (0.5, 0.75)
    assert rows["cy"]["target_share"] is None
    assert balance.splits.filter(split="valid").rows() == [("tokens", "valid", "yo", 1, 6)]


def test_everything_that_left_has_a_reason(run: Path) -> None:
    left = measure(run).removed.rows()
    assert sorted(left) == [
        ("dedup", "de", "OSCAR-2109", "near", 1, 10),
        ("identify", "cy", "mC4", "relabelled", 1, 5),
        ("identify", "de", "mC4", "empty", 1, 0),
        ("identify", "de", "mC4", "wrong_language", 1, 7),
        ("sample", "de", "OSCAR-2109", "not_sampled", 1, 17),
    ]


def test_detected_languages_are_counted_whether_removed_moved_or_kept(run: Path) -> None:
    balance = measure(run)
    # German: 4 kept (one detected as Dutch) and one removed as French are judged; "und" is no judgement.
    assert balance.confusions().rows() == [("cy", "br", 1, 1.0), ("de", "fr", 1, 0.2), ("de", "nl", 1, 0.2)]
    identified = measure(run / "identified")
    assert rows_of(identified)["de"]["elsewhere"] == 1
    assert rows_of(identified)["br"]["elsewhere"] == 0


def test_groups_add_up_to_the_whole(run: Path) -> None:
    balance = measure(run)
    for by in ("script", "family", "source"):
        table = balance.table(by)
        assert table["documents"].sum() == balance.totals()["documents"] == 5
        assert table["share"].sum() == pytest.approx(1)
        assert table["removed"].sum() == 3
    family = rows_of(balance, "family")
    assert (family["Indo-European"]["languages"], family["Indo-European"]["documents"]) == (2, 3)
    assert family["Indo-European"]["target_share"] == 0.75
    # Epochs of what dedup left: German 33 bytes at 0.75, Breton 5 at 2.
    assert family["Indo-European"]["epochs"] == pytest.approx((33 * 0.75 + 5 * 2) / 38)
    source = rows_of(balance, "source")
    assert set(source) == {"mC4", "OSCAR-2109"}
    assert (source["OSCAR-2109"]["documents"], source["OSCAR-2109"]["first_documents"]) == (0, 2)
    assert source["mC4"]["p50_length"] == 6  # demat 5, Straße 6, Guten Tag 9, and two of Yoruba (9 and 5)


def test_evenness_is_that_of_the_bytes_of_every_language_listed(run: Path) -> None:
    balance = measure(run)
    assert balance.evenness("raw").languages == 4
    sizes = [rows_of(balance)[lang]["sampled_bytes"] for lang in ("br", "cy", "de", "yo")]
    shares = np.array(sizes) / sum(sizes)
    entropy = -sum(share * np.log(share) for share in shares if share)
    assert balance.evenness().entropy == pytest.approx(entropy)
    target = balance.target_evenness()
    assert target is not None
    assert target.effective_languages == pytest.approx(2**1.5)  # 1/2, 1/4, 1/4
    assert measure(run / "raw").target_evenness() is None


def test_a_raw_tree_that_lies_elsewhere_is_joined(run: Path, tmp_path: Path) -> None:
    whole = measure(run)
    (run / "raw").rename(tmp_path / "shards")
    apart = measure(run, raw=tmp_path / "shards")
    assert apart.stages == whole.stages
    assert apart.table().equals(whole.table())
    assert "rows_lost" not in kinds(apart)
    with pytest.raises(RecipeError, match="one work folder"):
        measure(tmp_path / "shards", raw=tmp_path / "shards")


def test_token_shards_alone(run: Path) -> None:
    balance = measure(run / "tokens")
    assert (balance.unit, balance.subject) == ("tokens", "tokens")
    rows = rows_of(balance)
    assert {lang: (row["documents"], row["tokens"], row["bytes"]) for lang, row in rows.items()} == {
        "yo": (2, 11, None),
        "de": (2, 7, None),
        "br": (1, 2, None),
    }
    assert rows["yo"]["share"] == pytest.approx(11 / 20)
    assert rows_of(measure(run / "tokens" / "valid"))["yo"]["tokens"] == 6


def test_language_folders_and_files_of_one_tree_are_one_tree(run: Path) -> None:
    by_shell = measure(*sorted((run / "raw").iterdir()))
    assert by_shell.stages == ("raw",)
    assert by_shell.table().equals(measure(run / "raw").table())
    shard = run / "raw/de/de_part_00000.parquet"
    assert rows_of(measure(shard, shard))["de"]["documents"] == 4


def test_trees_of_the_same_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other")
    balance = measure(run / "raw", tmp_path / "other" / "raw")
    assert balance.stages == ("work/raw", "other/raw")
    assert not balance.joined
    assert rows_of(balance)["de"]["work/raw_documents"] == 6


def test_a_remote_tree_counts_the_same(run: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(run / "raw"), "/balance/raw", recursive=True)
    try:
        assert measure("memory://balance/raw").table().equals(measure(run / "raw").table())
    finally:
        memory.rm("/balance", recursive=True)


def test_the_result_depends_on_neither_threads_nor_row_groups_nor_batches(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure(run, workers=1)
    assert measure(run, workers=5).table().equals(expected.table())
    monkeypatch.setattr(balance_rows, "_BATCH_ROWS", 1)
    monkeypatch.setattr(balance_sums, "_PENDING_ROWS", 2)
    monkeypatch.setattr(balance_sums, "_PENDING_PARTS", 2)
    again = measure(run, workers=2)
    for name in ("sizes", "lengths", "detected", "scripts", "domains", "linked", "years", "removed", "rejected"):
        assert getattr(again, name).equals(getattr(expected, name)), name


def test_figures_equal_a_plain_count_of_random_text(tmp_path: Path) -> None:
    rng = random.Random(7)
    letters = "aßé漢字ไทย😀 "
    texts = ["".join(rng.choices(letters, k=rng.randrange(0, 400))) for _ in range(999)]
    sources = [rng.choice(["mC4", "OSCAR-2019", None]) for _ in texts]
    rows = [{"text": text, "source": source} for text, source in zip(texts, sources, strict=True)]
    write_rows(tmp_path / "raw/ja/a.parquet", RAW, rows[:500], group=37)
    write_rows(tmp_path / "raw/ja/b.parquet", RAW, rows[500:], group=1000)
    balance = measure(tmp_path / "raw")
    row = rows_of(balance)["ja"]
    lengths = [len(text) for text in texts]
    assert row["bytes"] == sum(len(text.encode()) for text in texts)
    assert row["characters"] == sum(lengths)
    assert row["empty"] == texts.count("")
    assert row["p50_length"] == statistics.median(lengths)
    assert [row["p10_length"], row["p90_length"]] == pytest.approx(list(np.percentile(lengths, [10, 90])))
    counted = {name: found["documents"] for name, found in rows_of(balance, "source").items()}
    assert counted == Counter(source or "(none)" for source in sources)


def test_text_of_any_string_type_and_missing_columns(tmp_path: Path) -> None:
    texts = ["één", "zwei", None]
    for name, kind in (
        ("a", pa.large_string()),
        ("b", pa.dictionary(pa.int32(), pa.string())),
        ("c", pa.string_view()),
    ):
        (tmp_path / "raw/nl").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": pa.array(texts).cast(kind)}), tmp_path / f"raw/nl/{name}.parquet")
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "raw/nl/d.parquet")
    row = rows_of(measure(tmp_path / "raw"))["nl"]
    assert (row["documents"], row["characters"], row["bytes"], row["empty"]) == (11, 21, 27, 5)


@pytest.mark.parametrize(
    ("values", "names"), [([3, 3, None], ["3"]), ([True, False, True], ["false", "true"]), ([0.5, 0.5, 0.5], ["0.5"])]
)
def test_labels_that_are_numbers_are_read_as_words(tmp_path: Path, values: list[Any], names: list[str]) -> None:
    (tmp_path / "raw/de").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a", "b", "c"], "source": values}), tmp_path / "raw/de/a.parquet")
    groups = measure(tmp_path / "raw").table("source").sort("source")
    assert [name for name in groups["source"] if name in names] == names
    assert groups["documents"].sum() == 3


def test_a_file_beside_the_language_folders_and_hidden_ones_are_not_shards(run: Path) -> None:
    expected = measure(run / "raw").table()
    pq.write_table(pa.table({"x": [1]}), run / "raw/provenance.parquet")
    (run / "raw/de/.half.parquet").write_bytes(b"PAR1")
    (run / "raw/_logs").mkdir()
    assert measure(run / "raw").table().equals(expected)


def test_invalid_utf8_is_counted_in_text_and_refused_in_labels(tmp_path: Path) -> None:
    broken = pa.array([b"ab\xff"]).view(pa.string())
    (tmp_path / "raw/de").mkdir(parents=True)
    pq.write_table(pa.table({"text": broken}), tmp_path / "raw/de/a.parquet")
    assert rows_of(measure(tmp_path / "raw"))["de"]["bytes"] == 3
    pq.write_table(pa.table({"text": ["x"], "source": broken}), tmp_path / "raw/de/a.parquet")
    with pytest.raises(ShardError, match=r"a\.parquet: column `source` has bytes that are not UTF-8"):
        measure(tmp_path / "raw")


def test_sources_beyond_the_limit_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_sums, "MAX_SOURCES", 4)
    rows = [{"text": "x", "source": source} for source in "aaabbcdefg"]
    write_rows(tmp_path / "raw/de/a.parquet", RAW, rows)
    source = {name: row["documents"] for name, row in rows_of(measure(tmp_path / "raw"), "source").items()}
    assert source == {"a": 3, "b": 2, balance_sums.OTHER_SOURCES: 5}


def test_a_large_domain_survives_the_limit_on_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_sums, "MAX_DOMAINS", 4)
    monkeypatch.setattr(balance_sums, "_PENDING_ROWS", 10)
    urls = [f"https://{'big' if i % 2 else f'small{i}'}.org/{i}" for i in range(100)]
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": "x", "url": url} for url in urls], group=10)
    domains = dict(measure(tmp_path / "raw").domains.select("domain", "documents").iter_rows())
    assert len(domains) <= 4
    assert 50 - 100 / 4 <= domains["big.org"] <= 50


def test_the_embedded_sample_counted_in_plain_python(tmp_path: Path) -> None:
    """Every figure of the table, against a loop over the rows."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(sample_root().glob("*/*.parquet")):
        rows.setdefault(path.parent.name, []).extend(pq.read_table(path).to_pylist())
    balance = measure(sample_root())
    table = rows_of(balance)
    assert set(table) == set(rows)
    sizes = {lang: sum(len(row["text"].encode()) for row in own) for lang, own in rows.items()}
    for lang, own in rows.items():
        lengths = [len(row["text"]) for row in own]
        found = table[lang]
        assert (found["documents"], found["bytes"], found["characters"]) == (len(own), sizes[lang], sum(lengths))
        assert found["empty"] == lengths.count(0)
        assert found["share"] == pytest.approx(sizes[lang] / sum(sizes.values()))
        assert found["mean_length"] == pytest.approx(statistics.fmean(lengths))
        percentiles = [found[f"p{level}_length"] for level in (10, 50, 90, 99)]
        assert percentiles == pytest.approx(list(np.percentile(lengths, [10, 50, 90, 99])))
    documents = {
        "source": Counter((lang, row["source"]) for lang, own in rows.items() for row in own),
        "domain": Counter(
            (lang, (urlsplit(row["url"]).hostname or "").removeprefix("www."))
            for lang, own in rows.items() for row in own if row["url"]
        ),
        "year": Counter((lang, int(row["timestamp"][:4])) for lang, own in rows.items() for row in own
                        if row["timestamp"]),
    }  # fmt: skip
    for name, frame in (("source", balance.sizes), ("domain", balance.domains), ("year", balance.years)):
        assert {row[:2]: row[2] for row in frame.select("lang", name, "documents").iter_rows()} == documents[name]
    assert balance.scripts["documents"].sum() == sum(map(len, rows.values()))
    letters: Counter[str] = Counter()
    for row in rows["sr"]:
        names = [unicodedata.name(letter, "").split()[0] for letter in row["text"] if letter.isalpha()]
        letters[{"CYRILLIC": "Cyrl", "LATIN": "Latn"}[statistics.mode(names)]] += 1
    assert dict(balance.scripts.filter(lang="sr").select("script", "documents").iter_rows()) == letters
    shares = [size / sum(sizes.values()) for size in sorted(sizes.values())]
    even = balance.evenness()
    assert even.entropy == pytest.approx(-sum(share * math.log(share) for share in shares))
    differences = sum(abs(one - other) for one in shares for other in shares)
    assert even.gini == pytest.approx(differences / (2 * len(shares)))
    assert even.smallest_100_share == pytest.approx(sum(shares[:100]))


def test_years_of_timestamps(tmp_path: Path) -> None:
    stamps = {
        "2019-09-17T15:03:38Z": 2019, " 2020/01/02": 2020, "2021": 2021, "20220131T000000": 2022,
        "2023-13-45": 2023, "1568733338": None, "17.09.2019": None, "": None, "201": None, None: None,
    }  # fmt: skip
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": "x", "timestamp": stamp} for stamp in stamps])
    years = measure(tmp_path / "raw").years
    assert years.rows() == [("de", year, 1) for year in stamps.values() if year]
    assert years.schema["year"] == pl.Int32


def test_timestamps_that_are_times_and_those_that_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "raw/de").mkdir(parents=True)
    times = pa.array([1_568_733_338, 1_600_000_000, None], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["x"] * 3, "timestamp": times}), tmp_path / "raw/de/a.parquet")
    pq.write_table(pa.table({"text": ["x"], "timestamp": [2019]}), tmp_path / "raw/de/b.parquet")
    assert measure(tmp_path / "raw").years.rows() == [("de", 2019, 1), ("de", 2020, 1)]


def test_domains_as_groups(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = measure(run / "raw").table("domain")
    assert table.rows() == [
        ("a.de", "de", 1, 3, 3 / 9),
        ("y.ng", "yo", 1, 2, 2 / 9),
        ("b.fr", "de", 1, 1, 1 / 9),
        ("(none)", None, None, 3, 3 / 9),
    ]
    monkeypatch.setattr(balance_table, "MAX_ROWS", 1)
    shown = measure(run / "raw").table("domain").select("domain", "documents").rows()
    assert shown == [("a.de", 3), ("(other domains)", 3), ("(none)", 3)]
    assert not measure(run / "tokens").table("domain").height


def test_domains_of_several_languages(tmp_path: Path) -> None:
    for lang, count in (("de", 2), ("nl", 3)):
        write_rows(tmp_path / f"raw/{lang}/a.parquet", RAW, [{"text": "x", "url": "https://a.org/"}] * count)
    assert measure(tmp_path / "raw").table("domain").rows() == [("a.org", "nl", 2, 5, 1.0)]


def test_scripts_are_told_by_letters_where_no_column_has_them(run: Path, tmp_path: Path) -> None:
    assert measure(run / "raw").scripts.rows() == [
        ("cy", "Latn", 1),
        ("de", "Latn", 5),
        ("de", "Zyyy", 1),
        ("yo", "Latn", 2),
    ]
    write_rows(tmp_path / "raw/sr/a.parquet", RAW, [{"text": text} for text in ["добро"] * 3 + ["漢字"] * 20])
    assert kinds(measure(tmp_path / "raw"), min_documents=0)["unexpected_script"] == ["sr"]
    # Of a run the scripts are those that identify found.
    assert measure(run).scripts.rows() == [("br", "Latn", 1), ("de", "Latn", 4), ("yo", "Latn", 2)]


@pytest.mark.parametrize("given", ["", ".idx", ".bin"])
@pytest.mark.parametrize(
    ("name", "lang"),
    [("de_text_document", "de"), ("my-corpus_00003", "my-corpus"), ("x", "x"), ("yo_text_sentence", "yo")],
)
def test_a_megatron_dataset_of_any_name(tmp_path: Path, name: str, lang: str, given: str) -> None:
    write_tokens(tmp_path / "sets" / name, [3, 4])
    write_tokens(tmp_path / "sets" / "other", [9])
    found = measure(tmp_path / "sets" / f"{name}{given}")
    assert found.splits.rows() == [("sets", "", lang, 2, 7)]
    both = measure(tmp_path / "sets" / name, tmp_path / "sets" / "other.idx")
    assert both.stages == ("sets",)
    assert sorted(both.languages) == sorted([lang, "other"])


def test_half_a_megatron_dataset_is_refused(tmp_path: Path) -> None:
    write_tokens(tmp_path / "de", [3])
    (tmp_path / "de.idx").unlink()
    with pytest.raises(ShardError, match=r"de\.bin: a Megatron dataset is a pair .* de\.idx is missing|is missing"):
        measure(tmp_path / "de.bin")
    write_tokens(tmp_path / "nl", [3])
    (tmp_path / "nl.bin").unlink()
    with pytest.raises(ShardError, match=r"nl\.bin"):
        measure(tmp_path / "nl")


HOSTS = [
    "https://[::1]/x",
    "https://[2001:DB8::1]:8080/x",
    "http://user:secret@[::1]:80?q=[]",
    "http://192.0.2.7:80/[x]",
    "https://a.org:443",
    "https://A.org?x=http://b.org/",
    "https://user@a.org#[y]",
    "ftp://a.org/x/y",
    "gopher+long://a.org/https://b.org/",
    "http://a/b",
    "https://münchen.example/straße/",
]


@pytest.mark.parametrize("url", HOSTS)
def test_the_host_is_that_of_the_standard_library(tmp_path: Path, url: str) -> None:
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": "x", "url": url}])
    assert measure(tmp_path / "raw").domains.rows() == [("de", urlsplit(url).hostname, 1)]


def test_a_dot_at_the_end_makes_no_other_host(tmp_path: Path) -> None:
    """`example.org.` is the same name, written absolutely (RFC 1034, section 3.1)."""
    urls = ["https://www.example.org/a", "https://example.org./b", "https://EXAMPLE.org.:443"]
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": "x", "url": url} for url in urls])
    assert measure(tmp_path / "raw").domains.rows() == [("de", "example.org", 3)]


def test_half_an_address_is_no_host(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [{"text": "x", "url": "https://[::1/x"}])
    assert not measure(tmp_path / "raw").domains.height


def write_relabelled(root: Path) -> None:
    """Alemannic (als): 4 raw, of which one is empty, one stays and two go to German. German (de): 2 raw, of which one
    stays and one goes to Alemannic; dedup removes one of the two that came."""

    def seen(claimed: str, lang: str, name: str) -> dict[str, Any]:
        return {"id": name, "text": name, "source": "mC4", "claimed_lang": claimed, "lang": lang}

    write_rows(root / "raw/als/a.parquet", RAW, [{"text": text, "source": "mC4"} for text in ("", "s", "t", "u")])
    write_rows(root / "raw/de/a.parquet", RAW, [{"text": text, "source": "mC4"} for text in ("v", "w")])
    gone = {"claimed_lang": "als", "lang": "und", "source": "mC4", "bytes": 0, "reason": "empty"}
    write_rows(root / "removed/identify/als/a.parquet", REMOVED, [gone])
    german = [seen("de", "de", "v"), seen("als", "de", "t"), seen("als", "de", "u")]
    alemannic = [seen("als", "als", "s"), seen("de", "als", "w")]
    write_rows(root / "identified/de/a.parquet", IDENTIFIED, german)
    write_rows(root / "identified/als/a.parquet", IDENTIFIED, alemannic)
    copy = {"claimed_lang": "als", "lang": "de", "source": "mC4", "bytes": 1, "reason": "exact"}
    write_rows(root / "removed/dedup/de/a.parquet", REMOVED, [copy])
    write_rows(root / "deduped/de/a.parquet", DEDUPED, german[:2])
    write_rows(root / "deduped/als/a.parquet", DEDUPED, alemannic)


@pytest.mark.parametrize("raw", ["in the folder", "gone"])
def test_relabelled_documents_are_shown_and_counted_as_having_been_there(tmp_path: Path, raw: str) -> None:
    write_relabelled(tmp_path)
    if raw == "gone":
        shutil.rmtree(tmp_path / "raw")
    balance = measure(tmp_path)
    names = ("relabelled_in", "relabelled_out", "removed", "removed_share")
    found = {lang: tuple(row[name] for name in names) for lang, row in rows_of(balance).items()}
    assert found == {"als": (1, 2, 1, 1 / 5), "de": (2, 1, 1, 1 / 4)}
    # Together there were six documents, none of which left them for another group.
    for by, group in (("family", "Indo-European"), ("script", "Latn"), ("source", "mC4")):
        row = rows_of(balance, by)[group]
        assert tuple(row[name] for name in names) == (0, 0, 2, 2 / 6), by
    assert tuple(balance.totals()[name] for name in names) == (0, 0, 2, 2 / 6)
    for lang, row in rows_of(balance).items():
        own = balance.removed.filter(lang=lang, step="identify")
        reasons = dict(own.group_by("reason").agg(pl.col("documents").sum()).iter_rows())
        assert reasons.pop("relabelled") == row["relabelled_out"]
        if raw != "gone":
            came = row["raw_documents"] + row["relabelled_in"]
            assert came == row["identified_documents"] + row["relabelled_out"] + sum(reasons.values())


def test_moves_between_groups_of_languages(run: Path) -> None:
    """Welsh and Breton are of one family and script: the move from one to the other is none of theirs."""
    rows = rows_of(measure(run))
    assert (rows["cy"]["relabelled_out"], rows["br"]["relabelled_in"]) == (1, 1)
    families = rows_of(measure(run), "family")
    assert {row["relabelled_in"] for row in families.values()} == {0}


def test_host_of_a_url(run: Path) -> None:
    domains = measure(run / "raw").domains.rows()
    assert domains == [("de", "a.de", 3), ("de", "b.fr", 1), ("yo", "y.ng", 2)]


# Warnings


def test_rows_that_are_lost_are_reported(run: Path) -> None:
    assert "rows_lost" not in kinds(measure(run))
    write_rows(run / "removed/identify/de/a.parquet", REMOVED, [])
    (run / "deduped/yo/a.parquet").unlink()
    write_tokens(run / "tokens/train/br_00000", [2, 2])
    found = [str(warning) for warning in warnings_of(measure(run)) if warning.kind == "rows_lost"]
    assert found == [
        "br: rows in are not rows kept plus rows removed: 1 sampled, but 2 in the token shards",
        "de: rows in are not rows kept plus rows removed: 6 raw, but 4 identified and 0 removed by identify",
        "yo: rows in are not rows kept plus rows removed: 2 identified, but 0 deduped and 0 removed by dedup",
        "yo: rows in are not rows kept plus rows removed: 0 deduped, but 2 sampled and 0 removed by sample",
    ]


def test_empty_and_small_languages(run: Path) -> None:
    (run / "raw/fr").mkdir()
    found = kinds(measure(run), min_documents=2)
    assert found["empty"] == ["cy", "fr"]
    assert found["few_documents"] == ["br"]
    assert "few_documents" not in kinds(measure(run), min_documents=0)


def test_unknown_codes_still_work(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw/tlh/a.parquet", RAW, [{"text": "qapla'"}])
    balance = measure(tmp_path / "raw")
    assert kinds(balance)["unknown_code"] == ["tlh"]
    row = rows_of(balance)["tlh"]
    assert (row["name"], row["script"], row["family"], row["documents"]) == ("tlh", "Zzzz", "Unknown", 1)


def judged(lang: str, script: str, count: int) -> list[dict[str, Any]]:
    return [{"text": "x", "claimed_lang": "sr", "lang": lang, "script": script} for _ in range(count)]


def test_scripts_and_languages_that_are_not_the_folders(tmp_path: Path) -> None:
    rows = [*judged("hr", "Arab", 7), *judged("bs", "Cyrl", 1), *judged("sr", "Latn", 3), *judged("sr", "Zyyy", 9)]
    write_rows(tmp_path / "identified/sr/a.parquet", IDENTIFIED, rows)
    found = {w.kind: w.detail for w in warnings_of(measure(tmp_path / "identified"))}
    assert found["unexpected_script"] == "64% Arab, where Cyrl or Latn is usual"  # 7 of 11 with letters
    assert "other_language" not in found  # 8 of 20
    write_rows(tmp_path / "identified/sr/b.parquet", IDENTIFIED, judged("hr", "Latn", 10))
    detail = next(w.detail for w in warnings_of(measure(tmp_path / "identified")) if w.kind == "other_language")
    assert detail == "60% of it, most often as Croatian (sr -> hr: 17 documents, 57%)"


def test_han_and_ways_of_writing_with_it_are_usual_for_japanese_and_chinese(tmp_path: Path) -> None:
    for lang, way in (("zh", "Hant"), ("ja", "Jpan"), ("ko", "Kore")):
        rows = [{"text": "漢", "claimed_lang": lang, "lang": lang, "script": script} for script in ("Hani", way)] * 20
        rows = rows[::2] if lang == "ko" else rows[1::2]
        write_rows(tmp_path / f"identified/{lang}/a.parquet", IDENTIFIED, rows)
    assert "unexpected_script" not in kinds(measure(tmp_path / "identified"))


def test_one_domain_and_heavy_removal(tmp_path: Path) -> None:
    urls = ["https://a.org/x"] * 11 + ["https://b.org"] * 9
    rows = [{"text": "x", "url": url} for url in urls] + [{"text": "y"}] * 30
    write_rows(tmp_path / "raw/de/a.parquet", RAW, rows)
    detail = {w.kind: w.detail for w in warnings_of(measure(tmp_path / "raw"))}
    assert detail["one_domain"] == "55% of the documents with a URL are from a.org"
    write_rows(
        tmp_path / "identified/de/a.parquet", IDENTIFIED, [{"text": "x", "claimed_lang": "de", "lang": "de"}] * 20
    )
    removed = [{"claimed_lang": "de", "lang": "fr", "reason": "wrong_language"}] * 30
    write_rows(tmp_path / "removed/identify/de/a.parquet", REMOVED, removed)
    found = {w.kind: w.detail for w in warnings_of(measure(tmp_path))}
    assert found["heavy_removal"] == "60%, 30 documents (30 wrong_language)"
    assert found["other_language"].startswith("60% of it, most often as French (de -> fr: 30 documents")


# Bad input


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", None], ids=["empty", "foreign", "truncated"])
def test_a_broken_shard_is_named(run: Path, content: bytes | None) -> None:
    shard = run / "raw/yo/yo_part_00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9] if content is None else content)
    with pytest.raises(ShardError, match=r"yo_part_00000\.parquet: .*[Ff]etch the shard again"):
        measure(run)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"{i} " * 400} for i in range(50)]
    path = tmp_path / "raw/de/a.parquet"
    write_rows(path, RAW, rows, group=50)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    with pytest.raises(ShardError, match=r"a\.parquet: row group 0 cannot be read"):
        measure(tmp_path / "raw")


def test_foreign_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "raw/de").mkdir(parents=True)
    pq.write_table(pa.table({"content": ["x"], "n": [1]}), tmp_path / "raw/de/a.parquet")
    with pytest.raises(ShardError, match=r"a\.parquet: no column `text` \(it has content, n\)"):
        measure(tmp_path / "raw")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "raw/de/a.parquet")
    with pytest.raises(ShardError, match=r"a\.parquet: column `text` is int64"):
        measure(tmp_path / "raw")


def test_paths_without_shards(tmp_path: Path) -> None:
    (tmp_path / "raw/de").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    for path, message in (
        (tmp_path / "raw", "no shards here"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "notes.txt", "not a Parquet file"),
    ):
        with pytest.raises(ShardError, match=f"{path}: {message}; expected <language>/"):
            measure(path)
    with pytest.raises(ShardError, match="nosuch://x"):
        measure("nosuch://x")


def test_a_plan_that_is_none_is_refused(run: Path) -> None:
    (run / "sampled/plan.json").write_text('{"languages": [1]}')
    with pytest.raises(ShardError, match=r"plan\.json: not a sampling plan"):
        measure(run)


def test_shards_without_rows_are_an_empty_language(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw/de/a.parquet", RAW, [])
    balance = measure(tmp_path / "raw")
    assert balance.totals()["documents"] == 0
    assert kinds(balance)["empty"] == ["de"]
    assert balance.table("script")["share"].to_list() == [0.0]
    assert balance.table().filter(pl.col("mean_length").is_not_null()).height == 0


def test_the_ids_beside_token_shards_are_no_texts(tmp_path: Path) -> None:
    """As `tokenize` leaves them: <lang>_00000.{bin,idx,ids.parquet}."""
    folder = tmp_path / "tokens" / "train"
    folder.mkdir(parents=True)
    with TokenShardWriter(str(folder / "sw_00000"), np.dtype(np.uint16)) as writer:
        writer.add_documents(np.arange(7, dtype=np.uint16), np.array([3, 4], dtype=np.int32))
    pq.write_table(pa.table({"id": ["sw/a/0", "sw/a/1"], "tokens": [3, 4]}), folder / "sw_00000.ids.parquet")
    measured = measure(tmp_path / "tokens")
    assert measured.text_stages == ()
    assert measured.splits.select("lang", "documents", "tokens").rows() == [("sw", 2, 7)]
