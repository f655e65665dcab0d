"""Plans in documents and tokens: against the published counts, the rule of the LOLA release, and cases by hand."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import storage
from lola_data.errors import RecipeError, ShardError, StageError
from lola_data.languages import LANGUAGES
from lola_data.sampling.plan import LanguageSize, PlannedLanguage, PlannedSample, documents_taken, plan_sample
from lola_data.sampling.plan_text import plan_lines, table_cells, to_csv
from lola_data.sampling.sizes import published_sizes, tree_sizes
from lola_data.sections import SampleSection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def planned(sizes: dict[str, LanguageSize], **section: Any) -> PlannedSample:
    return plan_sample(SampleSection.model_validate(section), sizes)


def published(codes: list[str] | None = None, **section: Any) -> PlannedSample:
    return planned(published_sizes(codes).languages, **section)


def by_lang(made: PlannedSample) -> dict[str, PlannedLanguage]:
    return {row.lang: row for row in made.rows}


def lola_v1_rule(code: str, documents: int) -> int:
    """The split file of the release: per cent of a language, all of those under 100,000 documents."""
    percent = {"en": 2, "de": 16}.get(code, 4) if documents >= 100_000 else 100
    return math.floor(documents * percent / 100)


def test_lola_v1_gives_the_published_counts_of_all_languages() -> None:
    made = published(method="lola-v1", unit="documents")
    taken = {row.lang: row.documents_taken for row in made.rows}
    assert len(taken) == 167
    assert taken == {code: entry.lola_v1_docs for code, entry in LANGUAGES.items()}
    assert taken == {code: lola_v1_rule(code, entry.documents) for code, entry in LANGUAGES.items()}
    # 275,653,379 were tokenised: one less of each language, by the end of a slice.
    assert sum(taken.values()) == 275_653_379 + 167
    spots = {"en": 64_821_313, "de": 67_202_797, "ru": 31_972_436, "uz": 87_219, "sd": 4_366, "rue": 1}
    assert {code: taken[code] for code in spots} == spots
    # All 82 languages under 100,000 documents, whole.
    small = [row for row in made.rows if row.documents < 100_000]
    assert (len(small), sum(row.documents_taken for row in small)) == (82, 953_768)
    assert all(row.epochs == 1.0 for row in small)


def test_lola_v1_gives_the_published_counts_of_every_language() -> None:
    made = published(method="lola-v1", unit="documents")
    found = {row.lang: (row.documents, row.documents_taken) for row in made.rows}
    assert found == {code: (language.documents, language.lola_v1_docs) for code, language in LANGUAGES.items()}


def test_lola_v1_gives_the_shares_and_tokens_known_of_it() -> None:
    made = published(method="lola-v1", unit="documents")
    shares = {row.lang: round(100 * row.target_share, 1) for row in made.rows[:10]}
    assert shares == {
        "de": 24.4, "en": 23.5, "ru": 11.6, "es": 6.5, "fr": 5.3, "zh": 3.2, "it": 3.1, "pt": 2.8, "pl": 2.1, "nl": 1.7,
    }  # fmt: skip
    totals = made.totals()
    assert round(totals["tokens_taken"] / 1e9) == 233
    covered = sum(row.documents_taken for row in made.rows if row.tokens is not None)
    assert round(covered / totals["documents_taken"], 3) == 0.976
    assert totals["tokens_of"] == 48


def test_published_sizes_add_up_to_what_is_published() -> None:
    sizes = published_sizes().languages
    assert sum(size.documents for size in sizes.values()) == 7_228_929_542
    # 27 TB and 6.3 trillion tokens; a language's part is rounded.
    assert abs(sum(size.bytes for size in sizes.values()) - 27 * 10**12) <= 167
    assert sum(size.tokens for size in sizes.values()) == pytest.approx(6.3e12, rel=0.002)
    assert sizes["de"] == LanguageSize(420017484, sizes["de"].bytes, 357030348021, frozenset({"bytes"}))
    assert sizes["vi"].estimated == {"bytes", "tokens"}
    with pytest.raises(RecipeError, match="'xx': not a CulturaX code"):
        published_sizes(["de", "xx"])


def test_rows_of_a_plan_by_hand() -> None:
    """900 and 100 documents at alpha 0.5: weights 30 and 10, so 750 and 250, as in docs/sample.md."""
    sizes = {"aa": LanguageSize(900, 9000, 1800), "de": LanguageSize(100, 4000, 300)}
    made = planned(sizes, method="temperature", unit="documents", alpha=0.5)
    assert made.rows == (
        PlannedLanguage("aa", "", 900, 9000, 1800, 0.9, 750, 750, 1500, 0.75, 750 / 900, ("tokens_taken",)),
        PlannedLanguage("de", "German", 100, 4000, 300, 0.1, 250, 100, 300, 0.25, 2.5, ()),
    )
    totals = made.totals()
    assert (totals["documents"], totals["budget"], totals["documents_taken"], totals["tokens_taken"]) == (
        1000, 1000, 850, 1800,
    )  # fmt: skip
    assert totals["epochs"] == 1.0
    before, after = made.evenness()["before"], made.evenness()["after"]
    assert before.effective_languages == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)))
    assert after.effective_languages == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


@pytest.mark.parametrize("unit", ["bytes", "tokens"])
def test_documents_of_a_budget_in_other_units_are_an_estimate(unit: str) -> None:
    """A quarter of the units is a quarter of the documents; what fits is never exceeded."""
    sizes = {"aa": LanguageSize(1001, 4000, 4000), "bb": LanguageSize(10, 0, 0), "cc": LanguageSize(3, 300, 300)}
    more = {"tokenizer": "x.model"} if unit == "tokens" else {}
    made = by_lang(planned(sizes, method="budgets", unit=unit, budgets={"aa": 1000, "cc": 1}, **more))
    assert [made[lang].documents_taken for lang in ("aa", "bb", "cc")] == [250, 0, 1]
    assert made["aa"].estimated == ("documents_taken", "tokens_taken")
    assert made["bb"].epochs == 0.0
    everything = by_lang(planned(sizes, method="all", unit=unit, **more))
    assert [everything[lang].documents_taken for lang in ("aa", "bb", "cc")] == [1001, 10, 3]
    assert not any(row.estimated for row in everything.values())


@pytest.mark.parametrize(
    ("documents", "available", "budget", "expected"),
    [(10, 100, 0, 0), (10, 100, 99, 9), (10, 100, 100, 10), (10, 100, 400, 10), (10, 100, 3, 1), (3, 3, 2, 2)],
)
def test_documents_taken(documents: int, available: int, budget: int, expected: int) -> None:
    assert documents_taken(documents, available, budget) == expected


def test_what_rests_on_estimates_is_marked() -> None:
    made = by_lang(published(["de", "vi"], method="temperature", unit="bytes"))
    assert {"bytes", "budget", "documents_taken"} <= set(made["de"].estimated)
    assert made["vi"].tokens is None
    assert made["vi"].tokens_taken is None
    in_tokens = by_lang(published(["de", "vi"], method="temperature", unit="tokens", tokenizer="x.model"))
    # The tokens of German are published; its budget depends on those of Vietnamese.
    assert "tokens" not in in_tokens["de"].estimated
    assert "budget" in in_tokens["de"].estimated
    assert {"tokens", "budget", "tokens_taken"} <= set(in_tokens["vi"].estimated)
    exact = by_lang(published(["de", "vi"], method="lola-v1", unit="documents"))
    assert not {"budget", "documents_taken"} & {*exact["de"].estimated, *exact["vi"].estimated}


def test_a_plan_without_documents_is_a_plan() -> None:
    made = planned({}, method="temperature")
    assert made.rows == ()
    assert made.totals()["tokens"] is None
    assert table_cells(made)[2][-1][0] == "total"


def write(path: Path, texts: list[str], **options: Any) -> int:
    """A shard of these texts; their UTF-8 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": [f"{path.stem}/{row}" for row in range(len(texts))], "text": texts})
    pq.write_table(table, path, **options)
    return sum(len(text.encode()) for text in texts)


TEXTS = [f"{row}ü" * (1 + row % 9) for row in range(500)]


def write_without_statistics(path: Path, texts: list[str]) -> int:
    """A shard by another writer, whose footer does not tell how large the texts are; their UTF-8 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"id": [str(row) for row in range(len(texts))], "text": texts}).write_parquet(path)
    return sum(len(text.encode()) for text in texts)


def test_sizes_of_a_tree_are_counted_in_its_footers(tmp_path: Path) -> None:
    size = write(tmp_path / "de/a.parquet", TEXTS, row_group_size=70) + write(tmp_path / "de/b.parquet", TEXTS[:7])
    write(tmp_path / "sw/a.parquet", TEXTS[:3])
    write(tmp_path / "yo/a.parquet", [])
    known = tree_sizes(str(tmp_path))
    assert set(known.languages) == {"de", "sw"}
    assert known.languages["de"].documents == 507
    assert known.languages["de"].bytes == size
    assert known.languages["de"].estimated == {"tokens"}
    # 27 TB in 6.3 trillion tokens.
    assert known.languages["de"].tokens == round(size * 6.3 / 27)
    assert set(tree_sizes(str(tmp_path), ["sw", "zh"]).languages) == {"sw"}
    assert "zh" in tree_sizes(str(tmp_path), ["sw", "zh"]).notes["missing"]


def test_bytes_are_estimated_near_where_no_one_counted_them(tmp_path: Path) -> None:
    size = write_without_statistics(tmp_path / "de/a.parquet", TEXTS)
    found = tree_sizes(str(tmp_path)).languages["de"]
    assert found.estimated == {"bytes", "tokens"}
    assert found.bytes == pytest.approx(size, rel=0.02)


def spoil_size(manifest: dict[str, Any]) -> None:
    manifest["files"][0]["bytes"] += 1


def spoil_count(manifest: dict[str, Any]) -> None:
    manifest["languages"]["de"]["out"]["documents"] += 1


def spoil_list(manifest: dict[str, Any]) -> None:
    manifest["files"].append({"path": "deduped/de/b.parquet", "bytes": 9, "rows": 1})


def spoil_layout(manifest: dict[str, Any]) -> None:
    manifest["languages"]["de"] = 5


@pytest.mark.parametrize("spoil", [None, spoil_size, spoil_count, spoil_list, spoil_layout])
def test_a_manifest_is_believed_of_the_shards_it_lists(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None] | None
) -> None:
    shard = tmp_path / "de/a.parquet"
    size = write_without_statistics(shard, TEXTS)
    manifest = {
        "languages": {"de": {"out": {"documents": 500, "bytes": size}}},
        "files": [{"path": "deduped/de/a.parquet", "bytes": shard.stat().st_size, "rows": 500}],
    }
    if spoil is not None:
        spoil(manifest)
    storage.write_json(str(tmp_path / "manifest.json"), manifest)
    found = tree_sizes(str(tmp_path)).languages["de"]
    assert found.estimated == ({"tokens"} if spoil is None else {"bytes", "tokens"})
    assert (found.bytes == size) == (spoil is None)


def test_trees_that_cannot_be_planned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no shards <lang>/\*\.parquet there"):
        tree_sizes(str(tmp_path / "nowhere"))
    write(tmp_path / "de/a.parquet", TEXTS)
    with pytest.raises(RecipeError, match=r"no shards of sw; its languages are de"):
        tree_sizes(str(tmp_path), ["sw"])
    (tmp_path / "de/b.parquet").write_bytes((tmp_path / "de/a.parquet").read_bytes()[:99])
    with pytest.raises(ShardError, match=r"de/b\.parquet: not a complete Parquet file"):
        tree_sizes(str(tmp_path))
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "de/b.parquet")
    with pytest.raises(ShardError, match=r"de/b\.parquet: no column `text`; its columns are content"):
        tree_sizes(str(tmp_path))


def test_the_table_fits_a_narrow_terminal_and_keeps_what_matters() -> None:
    made = published(method="temperature")
    wide, _, _ = table_cells(made)
    assert wide == [
        "lang",
        "name",
        "documents",
        "bytes",
        "share",
        "budget",
        "taken",
        "tokens taken",
        "target",
        "epochs",
    ]
    for width in (80, 60, 45):
        headers, right, rows = table_cells(made, width=width)
        assert len(rows) == 168
        assert all(len(row) == len(headers) == len(right) for row in rows)
        longest = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
        assert sum(longest) + 2 * (len(longest) - 1) <= width
        assert {"lang", "taken", "target", "epochs"} <= set(headers)


def test_lines_say_what_was_asked_for_and_what_is_left() -> None:
    sizes = {code: LanguageSize(size, size, size) for code, size in (("aa", 1000), ("bb", 100), ("cc", 10), ("dd", 1))}
    lines = plan_lines(planned(sizes, method="unimax", unit="documents", total=4800))
    assert lines[0] == (
        "plan: unimax by documents (max_epochs 4, total 4,800): 4,444 documents over 4 languages; 356 documents of "
        "4,800 documents left unspent: no language may take more"
    )
    assert [line.split(":")[0] for line in lines[1:]] == ["evenness, before", "evenness, after"]


def test_csv_has_every_row_and_field() -> None:
    made = published(["de", "vi", "yo"], method="temperature", unit="documents", total=10**9)
    found = list(csv.DictReader(io.StringIO(to_csv(made).decode())))
    assert [row["lang"] for row in found] == [row.lang for row in made.rows]
    for read, row in zip(found, made.rows, strict=True):
        assert int(read["documents"]) == LANGUAGES[row.lang].documents
        assert int(read["budget"]) == row.budget
        assert float(read["epochs"]) == row.epochs
        assert read["tokens"] == ("" if row.lang != "de" else "357030348021")
        assert read["estimated"].split() == list(row.estimated)
