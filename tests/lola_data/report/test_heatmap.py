"""The heat map of claimed against detected language: its shares are those of a count by hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lola_data.balance.measure import measure
from lola_data.report.heatmap import COLUMNS, ROWS, heat_map
from lola_data.schemas import IDENTIFIED, REMOVED
from tests.lola_data.balance.trees import write_rows, write_run

if TYPE_CHECKING:
    from pathlib import Path


def write_judged(root: Path, judged: dict[tuple[str, str], int]) -> None:
    """An identified tree of so many documents of each (claimed, detected) pair, kept in the claimed folder."""
    for claimed in {pair[0] for pair in judged}:
        rows = [
            {"text": "x", "id": f"{claimed}/a/{detected}{n}", "claimed_lang": claimed, "lang": detected,
             "lang_score": 0.9, "script": "Latn"}
            for (own, detected), count in judged.items() if own == claimed for n in range(count)
        ]  # fmt: skip
        write_rows(root / claimed / "a.parquet", IDENTIFIED, rows, group=1000)


def test_kept_moved_and_removed_documents_count(tmp_path: Path) -> None:
    write_run(tmp_path)
    heat = heat_map(measure(tmp_path))
    assert heat is not None
    # German: 3 as German, 1 Dutch (kept by identify), 1 French (removed); the empty one has no language. Welsh: its
    # only document was moved to Breton.
    rows = {row.code: row for row in heat.rows}
    columns = [code for _, code in heat.columns]
    assert set(rows) == {"cy", "de"}
    assert set(columns) == {"br", "fr", "nl"}
    assert rows["de"].judged == 5
    assert (rows["de"].agreed.text, rows["cy"].agreed.text) == ("60", "")
    german = dict(zip(columns, rows["de"].cells, strict=False))
    assert {code: cell.text for code, cell in german.items()} == {"br": "", "fr": "20", "nl": "20"}
    assert german["fr"].about == "German detected as French: 1 of 5, 20.0%"
    assert not heat.others


def test_shares_of_a_row_sum_to_one_and_are_those_of_a_count(tmp_path: Path) -> None:
    judged = {("hr", "hr"): 50, ("hr", "sr"): 30, ("hr", "bs"): 19, ("hr", "sl"): 1, ("sr", "sr"): 70, ("sr", "hr"): 10,
              ("de", "de"): 40, ("en", "en"): 995, ("en", "de"): 5}  # fmt: skip
    write_judged(tmp_path, judged)
    heat = heat_map(measure(tmp_path))
    assert heat is not None
    totals = Counter[str]()
    for (claimed, _), count in judged.items():
        totals[claimed] += count
    for row in heat.rows:
        assert row.judged == totals[row.code]
        assert row.agreed.share + sum(cell.share for cell in row.cells) == pytest.approx(1)
        for (_, detected), cell in zip(heat.columns, row.cells[:-1], strict=True):
            expected = judged.get((row.code, detected), 0) if detected != row.code else 0
            assert cell.share == pytest.approx(expected / totals[row.code])
    assert "de" not in {row.code for row in heat.rows}
    # Serbian and Croatian, taken for each other, are neighbours.
    order = [row.code for row in heat.rows]
    assert abs(order.index("hr") - order.index("sr")) == 1
    english = next(row for row in heat.rows if row.code == "en")
    assert english.agreed.text == "99"  # 99.5: not all of it
    assert [cell.text for cell in english.cells if cell.text] == ["<1"]


def test_the_most_confused_are_shown_and_the_rest_is_added_up(tmp_path: Path) -> None:
    judged: dict[tuple[str, str], int] = {}
    for number in range(ROWS + 5):
        judged[(f"x{number:02}", f"x{number:02}")] = 100 - number
        judged[(f"x{number:02}", f"y{number:02}")] = number + 1
    judged[("few", "de")] = 3  # all of it, but of three documents
    write_judged(tmp_path, judged)
    heat = heat_map(measure(tmp_path))
    assert heat is not None
    assert heat.folders == ROWS + 5
    assert {row.code for row in heat.rows} == {f"x{number:02}" for number in range(5, ROWS + 5)}
    assert len(heat.columns) == COLUMNS
    assert heat.others
    first = next(row for row in heat.rows if row.code == "x05")
    assert first.cells[-1].share == pytest.approx(6 / 101)


def test_nothing_to_show(tmp_path: Path) -> None:
    write_judged(tmp_path / "agreed", {("de", "de"): 20, ("yo", "yo"): 20})
    assert heat_map(measure(tmp_path / "agreed")) is None
    write_rows(tmp_path / "work/removed/identify/de/a.parquet", REMOVED, [])
    write_rows(tmp_path / "work/identified/de/a.parquet", IDENTIFIED, [])
    assert heat_map(measure(tmp_path / "work")) is None
