"""Models side by side: the published figures of lid.176.ftz again, and what is written down about them."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from lola_data.errors import RecipeError
from lola_data.lid.evaluate import Evaluation, evaluate
from lola_data.lid.evaluate_text import COLUMNS, csv_text, json_text, report
from lola_data.lid.labelled import LabelledText, Source, read_labelled
from tests.lola_data.lid.files import Kind, write_model
from tests.lola_data.lid.test_identifier import ARTICLE_1

if TYPE_CHECKING:
    from collections.abc import Iterable

UDHR = Path(os.environ.get("LOLA_UDHR_DATA", "no such folder"))
"""Folder with udhr.parquet, a paragraph of the Universal Declaration of Human Rights a row, and lid_anchor.tsv, F1 of
published models on it by code."""
WHERE = "\"primary\" and kind in ('article', 'preamble') and length(text) >= 20"

OSSETIC = (
    "Адӕймӕгтӕ се 'ппӕт дӕр райгуырынц сӕрибарӕй ӕмӕ ӕмхуызонӕй сӕ барты. Уыдон ӕххӕст сты зонд ӕмӕ намысӕй, ӕмӕ "
    "кӕрӕдзийӕн хъуамӕ уой ӕфсымӕрты хуызӕн."
)
"""The same article, with the letter U+04D5."""


def labelled(rows: Iterable[tuple[str, str]]) -> LabelledText:
    texts, codes = zip(*rows, strict=True)
    source = Source("somewhere/rows.tsv", 1, 0, len(texts), "0" * 64)
    return LabelledText(pa.chunked_array([texts], pa.large_string()), pa.chunked_array([codes]), (source,), 0)


ROWS = [(text, code) for code, text in ARTICLE_1.items()] + [(OSSETIC, "os")]


@pytest.fixture(scope="module")
def one() -> Evaluation:
    return evaluate(["lid.176.ftz"], labelled(ROWS))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Drawn at random: it knows none of these languages."""
    return str(write_model(tmp_path_factory.mktemp("models") / "drawn.bin", Kind(labels=5)))


@pytest.fixture(scope="module")
def two(other_model: str) -> Evaluation:
    return evaluate(["lid.176.ftz", other_model], labelled(ROWS), replicates=100)


def test_a_case_by_hand(one: Evaluation) -> None:
    """Each of twelve languages is found; the Ossetic paragraph is taken for Russian, which then has 1 right of 2."""
    scores = one.models[0].scores
    assert {code.code: code.f1 for code in scores.codes} == dict.fromkeys(ARTICLE_1, 1.0) | {
        "os": 0.0,
        "ru": pytest.approx(2 / 3),
    }
    assert scores.by_code["os"].taken_for == (("ru", 1),)
    assert scores.by_code["os"].named
    assert scores.macro_f1 == pytest.approx((11 + 2 / 3) / 13)
    assert scores.accuracy == pytest.approx(12 / 13)


def test_a_model_without_labels_for_the_languages(two: Evaluation) -> None:
    first, second = (judged.scores for judged in two.models)
    assert (second.macro_f1, second.codes_named, second.macro_f1_named, second.accuracy) == (0, 0, 0, 0)
    (found,) = two.differences
    assert found.difference == pytest.approx(-first.macro_f1)
    assert found.low <= found.difference <= found.high < 0
    assert two.named_by_all == set()
    assert two.models[1].bytes == Path(two.models[1].model).stat().st_size


def test_languages_that_all_models_name() -> None:
    found = evaluate(["lid.176.ftz"], labelled(ROWS))
    scores = found.models[0].scores
    assert found.named_by_all == {*ARTICLE_1, "os"}
    assert scores.macro_f1_of({"os", "de", "xx"}) == 0.5
    assert scores.macro_f1_of(found.named_by_all) == scores.macro_f1


def test_refusals(other_model: str) -> None:
    data = labelled(ROWS)
    with pytest.raises(RecipeError, match="given twice"):
        evaluate([other_model, other_model], data)
    with pytest.raises(RecipeError, match="neither a file nor one of the registered"):
        evaluate(["none.bin"], data)
    with pytest.raises(RecipeError, match="--min-documents 5"):
        evaluate([other_model], data, min_documents=5)
    with pytest.raises(RecipeError, match="no model"):
        evaluate([], data)


def test_the_table_of_one_model(one: Evaluation) -> None:
    lines = report(one).splitlines()
    assert lines[0] == "13 texts in 13 languages"
    body = [line.split() for line in lines]
    summary = next(row for row in body if row[:1] == ["lid.176.ftz"])
    assert summary[1:9] == ["938", "kB", "13", "of", "13", "0.897", "0.897", "0.923"]
    # Hardest first, and every language is there.
    order = [row[0] for row in body if row and row[0] in {*ARTICLE_1, "os"}]
    assert order[:2] == ["os", "ru"]
    assert sorted(order) == sorted({*ARTICLE_1, "os"})
    assert ["os", "Ossetic", "1", "0.000", "0.000", "0.000", "ru", "1"] in body
    assert lines[-1] == "most frequent mistakes of lid.176.ftz: os as ru 1"


def test_top_says_how_many_more(one: Evaluation) -> None:
    lines = report(one, top=2).splitlines()
    assert "... 11 more" in lines
    assert not any(line.startswith("de ") for line in lines)


def test_the_table_of_two_models(two: Evaluation) -> None:
    text = report(two)
    name = two.models[1].model
    assert f"macro F1 of {name} less lid.176.ftz: -0.897 (95 % interval" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("de "))
    assert row == ["de", "German", "1", "1.000", "no", "label"]


def test_confusable_groups_are_all_in_the_table() -> None:
    rows = [(ARTICLE_1[code], label) for code, label in (("de", "als"), ("de", "de"), ("fr", "wa"), ("fr", "fr"))]
    lines = [line.split() for line in report(evaluate(["lid.176.ftz"], labelled(rows))).splitlines()]
    assert ["als", "de", "2", "1.000", "0.500"] in lines
    assert ["fr", "wa", "2", "1.000", "0.500"] in lines


def test_csv_has_a_row_a_model_and_language(two: Evaluation) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(two, separator="\t")), delimiter="\t"))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 13
    found = next(row for row in rows if (row["model"], row["code"]) == ("lid.176.ftz", "ru"))
    assert found == {
        "data": "rows.tsv", "model": "lid.176.ftz", "code": "ru", "texts": "1", "answered": "2", "correct": "1",
        "precision": "0.5000", "recall": "1.0000", "f1": "0.6667", "false_positive_rate": "0.083333", "named": "yes",
        "taken_for": "",
    }  # fmt: skip
    assert {row["named"] for row in rows if row["model"] != "lid.176.ftz"} == {"no"}


def test_json_is_the_same_each_time_and_says_it_all(one: Evaluation) -> None:
    document = json.loads(json_text(one))
    assert document["format"] == 1
    assert document["data"]["sources"] == [
        {"path": "somewhere/rows.tsv", "files": 1, "bytes": 0, "rows": 13, "sha256": "0" * 64}
    ]
    (model,) = document["models"]
    assert model["macro_f1"] == one.models[0].scores.macro_f1
    assert model["confusions"] == [["os", "ru", 1]]
    assert sum(bin["texts"] for bin in model["calibration"]) == 13
    assert json_text(one) == json_text(evaluate(["lid.176.ftz"], labelled(ROWS)))


@pytest.mark.skipif(not (UDHR / "udhr.parquet").exists(), reason="$LOLA_UDHR_DATA does not name the reference data")
def test_the_published_figures_of_lid_176_on_the_declaration_of_human_rights() -> None:
    """127 languages, 7,636 paragraphs, measured once with fastText's own predict and a script of its own."""
    data = read_labelled([str(UDHR / "udhr.parquet")], label_column="culturax", where=WHERE)
    scores = evaluate(["lid.176.ftz"], data).models[0].scores
    with (UDHR / "lid_anchor.tsv").open(encoding="utf-8") as lines:
        anchor = {row["culturax"]: float(row["lid176"]) for row in csv.DictReader(lines, delimiter="\t")}
    assert len(data) == 7636
    assert len(anchor) == 127
    assert {code.code: code.f1 for code in scores.codes} == pytest.approx(anchor, abs=5e-5)
    assert scores.macro_f1 == pytest.approx(0.722, abs=5e-4)
    assert scores.accuracy == pytest.approx(0.750, abs=5e-4)
    assert sum(code.f1 < 0.5 for code in scores.codes) == 26
    assert (scores.codes_named, scores.macro_f1_named) == (127, scores.macro_f1)
