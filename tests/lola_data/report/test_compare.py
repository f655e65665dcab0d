"""Two corpora side by side: shares, factors and what they have in common, against figures worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lola_data.balance.measure import Balance, measure
from lola_data.report.compare import comparison, factor_text
from lola_data.schemas import RAW
from tests.lola_data.balance.trees import write_rows, write_run, write_tokens

if TYPE_CHECKING:
    from pathlib import Path


def corpus(root: Path, sizes: dict[str, int]) -> Balance:
    """One document of so many bytes a language."""
    for lang, size in sizes.items():
        write_rows(root / f"{lang}/a.parquet", RAW, [{"text": "x" * size}] if size else [])
    return measure(root)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Balance, Balance]:
    one = corpus(tmp_path / "one", {"de": 80, "fr": 15, "yo": 5, "cy": 0})
    return one, corpus(tmp_path / "two", {"de": 20, "fr": 60, "sw": 120})


def test_what_they_have_in_common(two: tuple[Balance, Balance]) -> None:
    compared = comparison(*two, names=("old", "new"), top=10)
    assert compared.common == pytest.approx(0.1 + 0.15)
    assert compared.only == (("old", ("Yoruba",)), ("new", ("Swahili",)))
    first, second = compared.figures.rows
    assert [cell.text for cell in first.cells[:4]] == ["old", "3", "3", "100 B"]
    assert [cell.text for cell in second.cells[:4]] == ["new", "3", "3", "200 B"]
    german = compared.table.rows[0]
    assert [cell.text for cell in german.cells[:8]] == ["German", "1", "80 B", "80.0%", "1", "20 B", "10.0%", "8.00"]
    assert [row.cells[0].text for row in compared.table.rows] == ["German", "French", "Yoruba", "Swahili"]  # no Welsh
    assert compared.table.heads[3].order == "descending"
    assert compared.table.heads[3].text == "old: share"


def test_bars_of_factors(two: tuple[Balance, Balance]) -> None:
    chart = comparison(*two, top=10).chart
    assert chart is not None
    rows = {row.code: row for row in chart.views[0].blocks[0].rows}
    assert {code: row.figures for code, row in rows.items()} == {
        "de": "×8.0", "fr": "÷2.0", "yo": "only first", "sw": "only second",
    }  # fmt: skip
    (german,), (french,) = rows["de"].marks, rows["fr"].marks
    # Eight is the largest factor, so it reaches the edge; a half is a third as far to the other side.
    assert (german.start, german.width, german.colour) == (50, 50, "more")
    assert (french.start, french.width, french.colour) == (pytest.approx(33.33), pytest.approx(16.67), "less")
    assert [tick.label for tick in chart.views[0].ticks] == ["÷5", "same", "×5"]
    (only,) = rows["yo"].marks
    assert (only.start, only.width) == (50, 50)


def test_ticks_half_way_where_there_is_room(tmp_path: Path) -> None:
    one, two = corpus(tmp_path / "one", {"de": 999, "fr": 1}), corpus(tmp_path / "two", {"de": 1, "fr": 999})
    chart = comparison(one, two, top=10).chart
    assert chart is not None
    assert [tick.label for tick in chart.views[0].ticks] == ["÷300", "÷30", "same", "×30", "×300"]


def test_the_same_corpus_is_the_same(two: tuple[Balance, Balance]) -> None:
    compared = comparison(two[0], two[0], top=10)
    assert compared.common == pytest.approx(1)
    assert compared.chart is not None
    assert {row.figures for row in compared.chart.views[0].blocks[0].rows} == {"same"}
    assert all(not row.marks for row in compared.chart.views[0].blocks[0].rows)


def test_only_the_largest_are_drawn(two: tuple[Balance, Balance]) -> None:
    compared = comparison(*two, top=2)
    assert compared.chart is not None
    assert [row.code for row in compared.chart.views[0].blocks[0].rows] == ["de", "fr"]
    assert compared.chart.caption.startswith("The 2 largest of 4 languages")
    assert len(compared.table.rows) == 4


def test_tokens_and_documents_are_compared_where_there_is_no_text(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_tokens(tmp_path / "tokens/train/de_00000", [10, 20])
    write_tokens(tmp_path / "tokens/train/fr_00000", [70])
    other = measure(tmp_path / "tokens")
    compared = comparison(measure(tmp_path / "run/tokens"), other, top=5)
    assert compared.unit == "tokens"
    # The run has 7 German tokens of 20, the other corpus 30 of 100; Yoruba and Breton it has not.
    assert compared.common == pytest.approx(0.3)
    compared = comparison(measure(tmp_path / "run"), other, top=5)
    assert compared.unit == "documents"
    # 2 of 5 sampled documents are German, 2 of 3 there.
    assert compared.common == pytest.approx(2 / 5)
    assert [head.text for head in compared.figures.heads][:3] == ["corpus", "languages", "documents"]


@pytest.mark.parametrize(
    ("factor", "text"),
    [(1, "same"), (1.004, "same"), (2, "×2.0"), (0.25, "÷4.0"), (1.05, "×1.05"), (0.96, "÷1.04"), (1234.5, "×1,234")],
)
def test_factors_in_words(factor: float, text: str) -> None:
    assert factor_text(factor) == text


def test_empty_corpora(tmp_path: Path) -> None:
    none = corpus(tmp_path, {"yo": 0})
    compared = comparison(none, none, top=5)
    assert compared.chart is None
    assert compared.common == 0
    assert compared.table.rows == ()
