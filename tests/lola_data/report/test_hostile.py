"""Every HTML page, made of a corpus in which every text, address, source, folder and title is hostile.

What a page of harmless words looks like is known: the same elements with the same attributes, the same scripts and
styles. A hostile corpus must give just that, and nothing in it that turns the direction of other text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from lola_data.diff.page import diff_page
from lola_data.diff.tables import Table
from lola_data.diff.trees import Sample
from lola_data.inspect.rows import Row
from lola_data.schemas import IDENTIFIED, RAW, REMOVED
from lola_data.shown_text import plain
from tests.console import lola
from tests.hostile import HOSTILE, PLAIN, TURNING, Shape
from tests.lola_data.balance.trees import write_rows

if TYPE_CHECKING:
    from pathlib import Path


def _write(root: Path, word: str) -> None:
    """A work folder: three raw documents, of which one is removed for another."""
    folder = word.replace("/", "\u2215").replace("\0", "")
    address = f"https://{word.replace('/', '').replace('#', '').replace('?', '')}/"
    row = {"text": f"one {word} two", "source": word, "url": address, "timestamp": word}
    seen = {**row, "claimed_lang": folder, "lang": word, "lang_score": 0.5, "script": word}
    gone = {"id": f"{word}/2", "claimed_lang": folder, "lang": word, "source": word, "bytes": 1, "reason": word,
            "kept_id": f"{word}/0"}  # fmt: skip
    write_rows(root / f"raw/{folder}/a.parquet", RAW, [row] * 3)
    write_rows(root / f"identified/{folder}/a.parquet", IDENTIFIED, [{**seen, "id": f"{word}/{at}"} for at in range(2)])
    write_rows(root / f"removed/identify/{folder}/a.parquet", REMOVED, [gone])


def _page(root: Path, word: str, command: str) -> str:
    out = root / "page.html"
    _write(root / "w", word)
    _write(root / "v", word + "x")
    tree, other = root / "w" / "identified", root / "v" / "identified"
    calls = {
        "balance": ["balance", root / "w", "--title", word.replace("\0", "")],
        "against": ["balance", tree, "--against", other],
        "inspect": ["inspect", root / "w" / "raw"],
        "removed": ["inspect", root / "w", "--removed"],
        "diff": ["diff", tree, other],
        "audit": ["diff", root / "w"],
    }
    outcome = lola(*calls[command], "--html", out)
    assert outcome.code == 0, outcome.stderr
    return out.read_text("utf-8")


@pytest.mark.parametrize("command", ["balance", "against", "inspect", "removed", "diff", "audit"])
def test_no_corpus_changes_what_a_page_is(tmp_path: Path, command: str) -> None:
    harmless = Shape(_page(tmp_path / "plain", PLAIN, command))
    for name, word in HOSTILE.items():
        page = _page(tmp_path / name, word, command)
        shape = Shape(page)
        assert shape.elements <= harmless.elements, name
        assert shape.code == harmless.code, name
        assert not TURNING.search(page), name
        for data in shape.data:
            json.loads(data)
            assert not re.search("[<>&]", data), name
        if name == "script":
            assert "<script>alert(1)</script>" in "".join(shape.text).replace("\u2215", "/")


def _diff(word: str) -> str:
    """The page of a comparison with everything in it that the command could give it."""
    row = Row(f"/t/{word}/a.parquet", word, 0, 0, word.encode(), {"id": word, "url": word, "source": word})
    other = Row(f"/t/{word}/a.parquet", word, 0, 0, f"{word} more".encode(), {"id": word, "url": word})
    cell = plain(word)  # As a table is made: see lola_data.diff.tables.
    tables = [Table(cell, (cell, cell), ((cell, cell), (cell, "1")), total=True, note=cell)]
    return diff_page(word, word, tables, 100, samples=[Sample("changed", row, other, word), Sample("came", None, row)])


def test_no_table_cell_changes_what_a_page_is() -> None:
    harmless = Shape(_diff(PLAIN))
    for name, word in HOSTILE.items():
        page = _diff(word)
        shape = Shape(page)
        # Two texts that share little stand as they are, without marks of what differs.
        assert shape.elements <= harmless.elements | {("del", ()), ("ins", ()), ("bdi", ("class",))}, name
        assert shape.code == harmless.code, name
        assert not TURNING.search(page), name
