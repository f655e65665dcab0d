"""A pair answers as its first model does, but for what that has no word for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lola_data.errors import RecipeError
from lola_data.lid.evaluate import evaluate, parts_of
from lola_data.lid.identifier import Identifier
from lola_data.lid.pair import Pair
from tests.lola_data.lid.files import Kind, write_model
from tests.lola_data.lid.test_evaluate import labelled
from tests.lola_data.lid.test_identifier import ARTICLE_1

TEXTS = pa.array([*ARTICLE_1.values(), "", "?"])


@pytest.fixture
def drawn(tmp_path: Path) -> str:
    """A model of five labels of its own, l0 to l4, that lid.176.ftz has not."""
    return str(write_model(tmp_path / "drawn.bin", Kind(labels=5)))


def test_the_second_speaks_where_it_is_sure_of_what_the_first_cannot_name(drawn: str) -> None:
    first, second = Identifier(drawn), Identifier("lid.176.ftz")
    expected = [
        (theirs, their_score) if theirs != "und" and their_score >= 0.9 else (ours, our_score)
        for ours, our_score, theirs, their_score in zip(
            *(column.to_pylist() for model in (first, second) for column in model.identify(TEXTS)), strict=True
        )
    ]
    lang, score = Pair(drawn, "lid.176.ftz", sure=0.9).identify(TEXTS)
    assert list(zip(lang.to_pylist(), score.to_pylist(), strict=True)) == expected
    assert 0 < sum(code in ARTICLE_1 for code in lang.to_pylist()) < len(ARTICLE_1)
    assert (lang.type, score.type) == (pa.string(), pa.float32())


def test_a_second_model_that_knows_nothing_more_changes_nothing() -> None:
    alone, pair = Identifier("lid.176.ftz"), Pair("lid.176.ftz", "lid.176.ftz", sure=0.0)
    assert pair.identify(TEXTS) == alone.identify(TEXTS)
    assert pair.codes == alone.codes


def test_pairs_are_judged_beside_single_models(drawn: str) -> None:
    data = labelled((text, code) for code, text in ARTICLE_1.items())
    found = evaluate([drawn, f"{drawn}+lid.176.ftz"], data, replicates=10)
    alone, pair = found.models
    assert alone.scores.accuracy == 0
    assert pair.scores.accuracy > 0.5
    assert pair.scores.codes_named == 12
    assert pair.bytes == alone.bytes + 938_013


def test_names_of_pairs(drawn: str, tmp_path: Path) -> None:
    assert parts_of("lid.176.ftz") == ("lid.176.ftz",)
    assert parts_of(f"{drawn}+lid.176.ftz") == (drawn, "lid.176.ftz")
    odd = str(Path(drawn).rename(tmp_path / "c++.bin"))
    assert parts_of(odd) == (odd,)
    for wrong in ("lid.176.ftz+", "+lid.176.ftz", "lid.176.ftz+none.bin"):
        with pytest.raises(RecipeError, match="neither a file nor one of the registered"):
            parts_of(wrong)
