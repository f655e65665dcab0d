"""The table of languages: every document that came is in one of its columns."""

from __future__ import annotations

from typing import Any

from pipelines.status_table import render


def sizes(documents: int) -> dict[str, int]:
    return {"documents": documents, "characters": 0, "bytes": 0, "tokens": 0}


def table_of(languages: dict[str, Any]) -> list[list[str]]:
    row = {"stage": "identify", "state": "complete", "phases": [], "failures": [], "languages": languages}
    lines = render([row], with_languages=True).splitlines()
    return [line.replace("relabelled ", "relabelled_").split() for line in lines[lines.index("") + 2 :]]


def test_relabelled_documents_have_columns_of_their_own() -> None:
    languages = {
        "als": {
            "in": sizes(1100), "out": sizes(10), "removed": {"empty": sizes(11), "low_score": sizes(24)},
            "relabelled_in": sizes(1), "relabelled_out": sizes(1056),
        },
        "de": {"in": sizes(5), "out": sizes(1061), "removed": {}, "relabelled_in": sizes(1056)},
    }  # fmt: skip
    assert table_of(languages) == [
        ["lang", "in", "relabelled_in", "out", "empty", "low_score", "relabelled_out"],
        ["als", "1,100", "1", "10", "11", "24", "1,056"],
        ["de", "5", "1,056", "1,061", "0", "0", "0"],
    ]


def test_without_relabelled_documents_there_are_no_such_columns() -> None:
    languages = {"de": {"in": sizes(5), "out": sizes(4), "removed": {"empty": sizes(1)}}}
    assert table_of(languages) == [["lang", "in", "out", "empty"], ["de", "5", "4", "1"]]


def test_a_forecast_stands_beside_what_came_of_it() -> None:
    row = {
        "stage": "identify", "state": "complete", "phases": [], "failures": [], "seconds": 90.0,
        "totals": {"in": sizes(1000), "out": sizes(990)},
        "forecast": {"rows": {"value": 1000.0, "low": 900.0, "high": 1100.0},
                     "seconds": {"value": 80.0, "low": 70.0, "high": 95.0}},
    }  # fmt: skip
    heads, cells = render([row]).splitlines()
    assert heads.split("  ")[-1].strip() == "time foreseen"
    assert "rows foreseen" in heads
    assert cells.split("1 min 30 s")[1].split() == [
        "1,000",
        "+-100",
        "1",
        "min",
        "20",
        "s",
        "to",
        "1",
        "min",
        "35",
        "s",
    ]
    assert "foreseen" not in render([{name: value for name, value in row.items() if name != "forecast"}])
