"""Languages a model misses: the table beside it, and what is said of them.

The tables of docs/lid.md are made from it. ``python -m tests.lola_data.lid.test_weak`` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lola_data.errors import ShardError
from lola_data.languages import LANGUAGES
from lola_data.lid.weak import TABLE_SUFFIX, WEAK_BELOW, WeakCode, weak_codes, weak_line

PAGE = Path(__file__).resolve().parents[3] / "docs" / "lid.md"

TABLE = """\
data\tmodel\tcode\ttexts\tanswered\tcorrect\tprecision\trecall\tf1\tfalse_positive_rate\tnamed\ttaken_for
a\tm\tbh\t50\t0\t0\t0.0000\t0.0000\t0.0000\t0.000000\tyes\thi 49, ne 1
a\tm\tos\t43\t0\t0\t0.0000\t0.0000\t0.0000\t0.000000\tyes\tru 42, krc 1
a\tm\tru\t60\t240\t60\t0.2500\t1.0000\t0.4000\t0.012000\tyes\t
a\tm\tde\t60\t60\t60\t1.0000\t1.0000\t1.0000\t0.000000\tyes\t
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / f"own.bin{TABLE_SUFFIX}").write_text(TABLE, encoding="utf-8")
    return str(tmp_path / "own.bin")


def test_weak_languages_among_those_asked_about(model: str) -> None:
    assert [weak.code for weak in weak_codes(model, ["de", "os", "ru", "sw", "bh"])] == ["bh", "os", "ru"]
    assert [weak.code for weak in weak_codes(model, ["ru", "de"], below=0.3)] == []
    (found,) = weak_codes(model, ["os"])
    assert (found.f1, found.recall, found.texts, found.taken_for) == (0, 0, 43, (("ru", 42), ("krc", 1)))


def test_where_near_kin_are_accepted_only_those_that_lose_text_are_weak(model: str) -> None:
    """Bihari is taken for Hindi, its kin; Russian text is found, and low for what others are taken for."""
    assert [weak.code for weak in weak_codes(model, ["os", "ru", "bh"], accept_confusable=True)] == ["os"]


def test_the_line_names_them_and_what_to_do(model: str) -> None:
    assert weak_line(model, []) == ""
    line = weak_line("lid.176.ftz", weak_codes(model, ["os", "bh", "ru"]))
    assert "\n" not in line
    assert "misses 3 of these languages" in line
    assert "bh 0.00 (as hi), os 0.00 (as ru), ru 0.40" in line
    assert "identify.policy" in line
    assert "and 2 more" in weak_line("m", weak_codes(model, ["os"]) * 10)


def test_models_without_a_table_have_no_known_weaknesses(tmp_path: Path) -> None:
    assert weak_codes(str(tmp_path / "none.bin"), ["os"]) == []
    assert weak_codes("glotlid-v3", ["os"]) == []


@pytest.mark.parametrize(
    "content", ["", "code\tf1\nos\t0.1\n", TABLE.replace("ru 42", "ru"), TABLE.replace("\t43\t", "\tmany\t")]
)
def test_a_foreign_table_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / f"own.bin{TABLE_SUFFIX}"
    path.write_text(content, encoding="utf-8")
    if not content:
        assert weak_codes(str(tmp_path / "own.bin"), ["os"]) == []
        return
    with pytest.raises(ShardError, match=r"own\.bin\.f1\.tsv: not a table of"):
        weak_codes(str(tmp_path / "own.bin"), ["os"])


def test_the_table_of_the_embedded_model() -> None:
    """What docs/lid.md says of it; the figures themselves are held to the reference in test_lid_evaluate.py."""
    weak = weak_codes("lid.176.ftz", LANGUAGES)
    declared = " ".join(sorted(found.code for found in weak if found.data == "udhr.parquet"))
    assert declared == "bcl bh bs eml es gn hi ht id io kv mai min ms nah nn oc os pam ru so tyv wa wuu yo yue"
    assert weak_codes("lid.176.ftz", ["de", "fr", "sw", "th"]) == []
    assert all(found.f1 < WEAK_BELOW for found in weak)
    lost = {found.code for found in weak_codes("lid.176.ftz", LANGUAGES, accept_confusable=True)}
    assert {"os", "tyv", "yo", "so"} <= lost
    assert not lost & {"bh", "mai", "wuu", "bs", "es", "ru", "hi"}


def page_tables() -> dict[str, str]:
    """The tables of docs/lid.md by the name in their markers."""
    known = weak_codes("lid.176.ftz", LANGUAGES, below=2)
    declared = [found for found in known if found.data == "udhr.parquet"]
    weak = [
        "| code | language | F1 | recall | in group | texts | taken for |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for found in declared:
        if found.f1 < WEAK_BELOW:
            figures = f"{found.f1:.2f} | {found.recall:.2f} | {found.recall_in_group:.2f} | {found.texts}"
            answers = ", ".join(f"{code} {count}" for code, count in found.taken_for[:3])
            weak.append(f"| {found.code} | {LANGUAGES[found.code].name} | {figures} | {answers} |")
    return {
        "weak": "\n".join(weak) + "\n",
        "all": in_columns(declared),
        "others": in_columns([found for found in known if found.data != "udhr.parquet"]),
    }


def in_columns(found: list[WeakCode], columns: int = 8) -> str:
    """Code and F1, by code, read along the lines; what is weak in bold."""
    cells = [
        f"{one.code} | {f'**{one.f1:.2f}**' if one.f1 < WEAK_BELOW else f'{one.f1:.2f}'}"
        for one in sorted(found, key=lambda one: one.code)
    ]
    cells += [" | "] * (-len(cells) % columns)
    rows = [" | ".join(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    head = [" | ".join(["code | F1"] * columns), " | ".join(["--- | ---:"] * columns)]
    return "\n".join(f"| {row} |" for row in [*head, *rows]) + "\n"


def with_tables(page: str) -> str:
    for name, table in page_tables().items():
        start = page.index(begin := f"<!-- figures: {name} -->\n") + len(begin)
        page = page[:start] + table + page[page.index("<!-- end -->\n", start) :]
    return page


def test_the_page_has_the_figures_of_the_table() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_tables(page), "the figures have changed: run `python -m tests.lola_data.lid.test_weak`"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
