"""Heat map of the page: claimed against detected language, from a :class:`Balance`.

A row a folder, a column a language that its documents were detected as. All pairs of 167 languages would be a sheet
that no one reads: shown are the folders of which the largest share is detected as something else, and they lie so that
languages taken for each other are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lola_data.balance.table import described
from lola_data.balance.warnings import MIN_JUDGED
from lola_data.text_tables import readable_share

if TYPE_CHECKING:
    from lola_data.balance.measure import Balance

ROWS = 40
"""Folders shown, at most."""
COLUMNS = 28
"""Detected languages shown, at most; the others are added up."""
_TIED = 0.05
"""Share from which two languages are laid side by side."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair: what is written (``text``; empty where there is nothing), its ``share`` of the folder's judged
    documents in [0, 1], and the pair in words."""

    text: str
    share: float
    about: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One folder: name, code, documents that were judged, share detected as the folder's own language, and a cell for
    each column, the last being all other languages."""

    name: str
    code: str
    judged: int
    agreed: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """``columns``: (name, code) of the detected languages. ``folders``: how many have documents detected as another
    language; of these ``rows`` shows the ones with the largest share. ``others``: the last column has something."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[HeatRow, ...]
    folders: int
    others: bool


def heat_map(balance: Balance) -> HeatMap | None:
    """The heat map, or None where no document was detected as another language than its folder's.

    Folders with fewer than ``MIN_JUDGED`` judged documents are left out, unless there are no others.
    """
    pairs = _pairs(balance)
    judged = pairs.group_by("claimed").agg(pl.col("documents").sum().alias("judged"))
    pairs = pairs.join(judged, on="claimed").with_columns((pl.col("documents") / pl.col("judged")).alias("share"))
    confused = pairs.filter(pl.col("claimed") != pl.col("detected"))
    if not confused.height:
        return None
    ranked = confused.group_by("claimed").agg(pl.col("share").sum(), pl.col("judged").first())
    enough = ranked.filter(pl.col("judged") >= MIN_JUDGED)
    ranked = (enough if enough.height else ranked).sort(["share", "judged", "claimed"], descending=[True, True, False])
    confused = confused.filter(pl.col("claimed").is_in(list(ranked.head(ROWS)["claimed"])))
    targets = confused.group_by("detected").agg(pl.col("share").sum())
    targets = targets.sort(["share", "detected"], descending=[True, False])
    order = _side_by_side(confused, list(ranked.head(ROWS)["claimed"]))
    columns = sorted(targets.head(COLUMNS)["detected"], key=lambda lang: (order.get(lang, len(order)), lang))
    rows = sorted(ranked.head(ROWS)["claimed"], key=lambda lang: order[lang])
    names = dict(described(tuple(sorted({*rows, *columns}))).select("lang", "name").iter_rows())
    shares = {(a, b): (s, n) for a, b, s, n in pairs.select("claimed", "detected", "share", "documents").iter_rows()}
    sizes = dict(judged.iter_rows())
    heat = tuple(_row(lang, columns, names, shares, sizes[lang]) for lang in rows)
    return HeatMap(
        tuple((names[lang], lang) for lang in columns),
        heat,
        ranked.height,
        any(row.cells[-1].text for row in heat),
    )


def _pairs(balance: Balance) -> pl.DataFrame:
    """claimed, detected | documents, kept or removed, equal pairs included."""
    both = pl.concat([balance.detected.select("claimed", "detected", "documents"), balance.rejected])
    both = both.filter(pl.col("detected").is_not_null(), pl.col("detected") != "und")
    return both.group_by("claimed", "detected").agg(pl.col("documents").sum()).sort("claimed", "detected")


def _side_by_side(confused: pl.DataFrame, ranked: list[str]) -> dict[str, int]:
    """Place of every language, such that those tied by a pair of at least ``_TIED`` follow each other.

    From the most confused folder on, each takes along the languages it is tied to, and they theirs.
    """
    tied = confused.filter(pl.col("share") >= _TIED)
    tied = tied.sort(["share", "claimed", "detected"], descending=[True, False, False])
    near: dict[str, list[str]] = {}
    for claimed, detected in tied.select("claimed", "detected").iter_rows():
        near.setdefault(claimed, []).append(detected)
        near.setdefault(detected, []).append(claimed)
    order: dict[str, int] = {}
    waiting = [*reversed(ranked)]
    while waiting:
        lang = waiting.pop()
        if lang not in order:
            order[lang] = len(order)
            waiting.extend(reversed([other for other in near.get(lang, []) if other not in order]))
    return order


def _row(
    lang: str, columns: list[str], names: dict[str, str], shares: dict[tuple[str, str], tuple[float, int]], judged: int
) -> HeatRow:
    def cell(share: float, documents: int, about: str) -> Cell:
        # 100 is all of them, and nothing less.
        whole = 100 if documents == judged else min(99, round(100 * share))
        text = "" if not documents else "<1" if share < 0.01 else str(whole)
        return Cell(text, share, f"{names[lang]} {about}: {documents:,} of {judged:,}, {readable_share(share)}")

    own, own_documents = shares.get((lang, lang), (0.0, 0))
    cells: list[Cell] = []
    rest, rest_documents = 1.0 - own, judged - own_documents
    for column in columns:
        share, documents = shares.get((lang, column), (0.0, 0)) if column != lang else (0.0, 0)
        rest, rest_documents = rest - share, rest_documents - documents
        cells.append(cell(share, documents, f"detected as {names[column]}"))
    cells.append(cell(max(0.0, rest), rest_documents, "detected as others"))
    return HeatRow(names[lang], lang, judged, cell(own, own_documents, "detected as itself"), tuple(cells))
