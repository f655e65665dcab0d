"""The page on scaling says what follows from the measurements."""

from __future__ import annotations

import pytest

from benchmarks import scaling

SECTION = """## io: read shards
- Corpus: 32.0 MB of text, 7,084 documents

| contender | MB/s per core | output MB | peak MB |
| --------- | ------------- | --------- | ------- |
| ours      | 10.00         | 16.0      | 146     |
| datatrove | 2.5           | 16.0      | 200     |

## next: a title
"""


def test_the_page_follows_from_the_results() -> None:
    page = scaling.PAGE.read_text("utf-8")
    assert scaling.filled(page, scaling.RESULTS.read_text("utf-8")) == page, "run `python -m benchmarks.scaling`"
    assert "| the whole road |" in page


def test_core_days() -> None:
    """CulturaX at 10 MB/s: 27,000,000 MB in 2,700,000 s, of which a day has 86,400."""
    assert scaling.core_days(10.0) == pytest.approx(31.25)
    assert scaling.core_days(10.0, 8.64e11) == pytest.approx(1.0)


def test_results_are_read_by_section() -> None:
    text = scaling.section(SECTION, "io")
    assert "next" not in text
    assert scaling.corpus_megabytes(text) == 32.0
    ours, other = scaling.rows(text)
    assert (ours["MB/s per core"], ours["output MB"], other["contender"]) == ("10.00", "16.0", "datatrove")
    with pytest.raises(ValueError, match="no section `road`"):
        scaling.section(SECTION, "road")
