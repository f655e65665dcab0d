"""Manifests added up from the reports of units: of every language, what came is what went, by every way."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from lola_data.errors import StageError
from lola_data.manifest import Counts, OutputFile, UnitReport, build_manifest


def counts(documents: int) -> Counts:
    return Counts(documents=documents, characters=10 * documents, bytes=20 * documents)


def report_of(key: str, lang: str, routes: dict[str, int], removed: dict[str, int]) -> UnitReport:
    """A unit of the folder ``lang``: ``routes`` says how many documents go to which folder."""
    report = UnitReport(key)
    report.take(lang, counts(sum(routes.values()) + sum(removed.values())))
    for folder, documents in routes.items():
        report.give(folder, counts(documents))
    for reason, documents in removed.items():
        report.remove(lang, reason, counts(documents))
    return report


def documents_of(one: dict[str, Any], key: str) -> int:
    return one.get(key, {}).get("documents", 0)


def test_relabelled_documents_by_hand() -> None:
    reports = [
        report_of("als/a", "als", {"als": 9, "de": 56}, {"empty": 11, "low_score": 24}),
        report_of("de/a", "de", {"de": 58, "als": 1}, {"empty": 11, "low_score": 30}),
        report_of("fr/a", "fr", {"fr": 5}, {}),
    ]
    languages = build_manifest("identify", reports, fingerprint={})["languages"]
    assert documents_of(languages["als"], "relabelled_in") == 1
    assert languages["als"]["relabelled_out"] == {"documents": 56, "characters": 560, "bytes": 1120, "tokens": 0}
    assert languages["de"]["relabelled_in"] == languages["als"]["relabelled_out"]
    assert documents_of(languages["de"], "relabelled_out") == 1
    assert languages["fr"].keys() == {"in", "out", "removed"}


def test_in_and_arrived_are_out_and_removed_and_left_in_every_language() -> None:
    rng = random.Random(5)
    langs = ["aa", "bb", "cc", "dd"]
    moves = {(old, new): 0 for old in langs for new in langs}
    reports = []
    for number in range(60):
        lang = rng.choice(langs[:3])  # dd holds nothing but what arrives
        routes = {other: rng.randrange(20) for other in rng.sample(langs, 3)}
        for other, documents in routes.items():
            moves[lang, other] += documents
        reports.append(report_of(f"{lang}/{number}", lang, routes, {"empty": rng.randrange(5)}))
    languages = build_manifest("identify", reports, fingerprint={})["languages"]
    for lang, one in languages.items():
        arrived, left = documents_of(one, "relabelled_in"), documents_of(one, "relabelled_out")
        assert arrived == sum(n for (old, new), n in moves.items() if new == lang and old != lang)
        assert left == sum(n for (old, new), n in moves.items() if old == lang and new != lang)
        removed = sum(documents_of(one["removed"], reason) for reason in one["removed"])
        assert one["in"]["documents"] + arrived == one["out"]["documents"] + removed + left
    assert languages["dd"]["in"]["documents"] == 0


def test_tokens_that_a_stage_adds_are_no_move() -> None:
    report = UnitReport("de_00000")
    report.take("de", counts(3))
    report.give("de", Counts(documents=3, characters=30, bytes=60, tokens=17))
    assert build_manifest("tokenize", [report], fingerprint={})["languages"]["de"].keys() == {"in", "out", "removed"}


def test_rows_that_do_not_balance_are_refused() -> None:
    report = report_of("de/a", "de", {"de": 3}, {"empty": 1})
    report.take("de", counts(1))
    with pytest.raises(StageError, match="1 unaccounted for"):
        build_manifest("identify", [report], fingerprint={})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_sizes_of_texts_are_python_s(kind: pa.DataType) -> None:
    texts = ["", "plain", "Würde", "汉字", "👩‍👧\0", None, "e\u0301" * 200_000, "\U0010ffff"]
    column = pa.array(texts, kind)
    found = Counts.of(pa.chunked_array([column.slice(1, 4), column.slice(5)]), tokens=3)
    shown = [text or "" for text in texts[1:]]
    assert found == Counts(7, sum(map(len, shown)), sum(len(text.encode()) for text in shown), 3)
    assert Counts.of(column.slice(0, 0)) == Counts()
    assert Counts(**found.to_json()) == found


def test_a_report_survives_json() -> None:
    report = report_of("als/a", "als", {"als": 9, "de": 56}, {"empty": 11})
    report.files.append(OutputFile("identified/als/a.parquet", 123, 9))
    report.extra = {"recall": {"planted": 3}}
    assert UnitReport.from_json(json.loads(json.dumps(report.to_json()))) == report
