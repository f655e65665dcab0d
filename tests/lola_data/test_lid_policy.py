"""The policy, row by row and by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.languages import LANGUAGES
from lola_data.lid import Identifier
from lola_data.lid_policy import WRONG_LANGUAGE, judge
from lola_data.sample_corpus import planted, sample_root
from lola_data.sections import IdentifySection

ROWS: list[tuple[str, float]] = [
    ("bs", 0.9),
    ("bs", 0.1),
    ("hr", 0.9),
    ("de", 0.9),
    ("de", 0.4),
    ("co", 0.9),
    ("und", 0.0),
]


def outcome(claimed: str = "bs", languages: tuple[str, ...] = ("bs", "de", "hr"), **section: Any) -> list[str]:
    """Per row the folder, or ``-reason``."""
    verdict = judge(
        claimed,
        pa.array([lang for lang, _ in ROWS]),
        pa.array([score for _, score in ROWS], pa.float32()),
        IdentifySection(**section),
        languages=languages,
    )
    pairs = zip(verdict.folder.to_pylist(), verdict.reason.to_pylist(), strict=True)
    assert all((folder is None) != (reason is None) for folder, reason in pairs)
    pairs = zip(verdict.folder.to_pylist(), verdict.reason.to_pylist(), strict=True)
    return [folder or f"-{reason}" for folder, reason in pairs]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, "bs bs bs -wrong_language bs -wrong_language bs"),
        ({"accept_confusable": False}, "bs bs -wrong_language -wrong_language bs -wrong_language bs"),
        ({"mismatch_score": 0.4}, "bs bs bs -wrong_language -wrong_language -wrong_language bs"),
        ({"mismatch_score": 0.95}, "bs bs bs bs bs bs bs"),
        ({"mismatch_score": 0.0}, "bs bs bs -wrong_language -wrong_language -wrong_language bs"),
        ({"min_score": 0.2}, "bs -low_score bs -wrong_language -low_score -wrong_language -low_score"),
        ({"min_score": 0.9}, "bs -low_score bs -wrong_language -low_score -wrong_language -low_score"),
        (
            {"min_score": 0.2, "min_score_by_language": {"bs": 0.05}},
            "bs bs bs -wrong_language -low_score -wrong_language -low_score",
        ),
        ({"min_score_by_language": {"de": 0.99}}, "bs bs bs -wrong_language bs -wrong_language bs"),
        ({"policy": "keep"}, "bs bs bs bs bs bs bs"),
        ({"policy": "keep", "min_score": 0.2}, "bs -low_score bs bs -low_score bs -low_score"),
        ({"policy": "relabel"}, "bs bs bs de bs -wrong_language bs"),
        ({"policy": "relabel", "accept_confusable": False}, "bs bs hr de bs -wrong_language bs"),
        ({"policy": "relabel", "min_score_by_language": {"de": 0.95}}, "bs bs bs -low_score bs -wrong_language bs"),
    ],
)
def test_policy_by_hand(section: dict[str, Any], expected: str) -> None:
    assert outcome(**section) == expected.split()


def test_relabel_moves_only_to_languages_that_are_worked_on() -> None:
    assert outcome(languages=("bs",), policy="relabel")[3] == "-wrong_language"
    assert outcome(languages=("bs", "de", "co"), policy="relabel")[5] == "co"


def test_no_rows() -> None:
    verdict = judge(
        "de", pa.array([], pa.string()), pa.array([], pa.float32()), IdentifySection(policy="relabel"), languages=["de"]
    )
    assert (len(verdict.folder), len(verdict.reason)) == (0, 0)


def reasons(claimed: str, texts: list[str]) -> list[str | None]:
    """What the default recipe says of texts in a folder."""
    lang, score = Identifier().identify(pa.array(texts))
    return judge(claimed, lang, score, IdentifySection(), languages=LANGUAGES).reason.to_pylist()


def test_long_misfiled_documents_of_the_sample_are_found() -> None:
    """At least 95 % of those planted."""
    misfiled: dict[str, list[str]] = defaultdict(list)
    for plant in planted():
        if plant.kind == "wrong_language":
            column = pq.ParquetFile(sample_root() / plant.lang / plant.file).read(columns=["text"])["text"]
            misfiled[plant.lang].append(column[plant.row].as_py())
    found = [reason == WRONG_LANGUAGE for lang, texts in misfiled.items() for reason in reasons(lang, texts)]
    assert len(found) > 50
    assert sum(found) >= 0.95 * len(found)


def test_documents_in_their_own_folder_stay() -> None:
    """Of 40 documents of every language of the sample, at least 97 % of all, though lid.176.ftz is a small model."""
    misfiled = {(plant.lang, plant.file, plant.row) for plant in planted() if plant.kind.startswith("wrong_language")}
    gone, documents = 0, 0
    for path in sorted(sample_root().glob("*/*_part_00000.parquet")):
        lang = path.parent.name
        column = pq.ParquetFile(path).read(columns=["text"])["text"].slice(0, 40).to_pylist()
        texts = [text for row, text in enumerate(column) if (lang, path.name, row) not in misfiled]
        gone += sum(reason is not None for reason in reasons(lang, texts))
        documents += len(texts)
    assert documents > 1500
    assert gone <= 0.03 * documents
