"""Two corpora beside each other: two balances in, one row a group with both their shares and their distance out.

>>> ours, theirs = measure("a/"), measure("b/")            # doctest: +SKIP
>>> compare(ours, theirs).select("lang", "share", "other_share", "ratio")   # doctest: +SKIP
>>> distances(compare(ours, theirs)).total_variation       # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from lola_data.balance import table as balance_table

if TYPE_CHECKING:
    from lola_data.balance.measure import Balance
    from lola_data.balance.table import Grouping

_FIGURES = ("documents", "bytes", "tokens", "mean_length", "p50_length")
_DESCRIBED = ("name", "script", "family")


@dataclass(frozen=True, slots=True)
class Distances:
    """How far apart the shares p and q of two corpora are.

    Attributes:
        total_variation: half of sum |p - q|, in [0, 1]: so much of one corpus would have to change its group to look
            like the other.
        jensen_shannon: the Jensen-Shannon divergence H((p + q) / 2) - (H(p) + H(q)) / 2 in bits (Lin, *Divergence
            Measures Based on the Shannon Entropy*, 1991): 0 when they are the same, 1 when they share no group.
        only_here, only_there: groups that one of them has nothing of, largest first.
    """

    total_variation: float
    jensen_shannon: float
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]


def shared_unit(balance: Balance, other: Balance, by: Grouping = "language") -> Literal["bytes", "tokens", "documents"]:
    """What shares are shares of: the unit of both, or documents where one has text and the other only tokens."""
    return "documents" if by == "domain" or balance.unit != other.unit else balance.unit


def compare(balance: Balance, other: Balance, by: Grouping = "language") -> pl.DataFrame:
    """One row a group that either has, largest in ``balance`` first.

    Columns: the group as in :func:`lola_data.balance.table.table` (``lang`` with ``name``, ``script``, ``family``; or
    ``script``, ``family``, ``source``, ``domain``); ``documents``, ``bytes``, ``tokens``, ``mean_length`` and
    ``p50_length`` (null where unknown) and ``share`` in [0, 1] of ``balance``; the same of ``other`` under
    ``other_<name>``; ``difference`` of the shares, and ``ratio``, share over other share (null where the other has
    none). Shares are of :func:`shared_unit`. Of a group that a corpus lacks documents, bytes and share are 0. Domains
    are all there, not only the most frequent.
    """
    key = "lang" if by == "language" else by
    unit = shared_unit(balance, other, by)
    tables = [balance_table.domains(one) if by == "domain" else one.table(by) for one in (balance, other)]
    sides = [_side(table, key, unit) for table in tables]
    names = [*_FIGURES, "share"]
    ours, theirs = sides[0], sides[1].rename({name: f"other_{name}" for name in names})
    described = [name for name in _DESCRIBED if name in ours.columns and name != key]
    both = ours.join(theirs, on=key, how="full", coalesce=True, suffix="_there")
    both = both.with_columns(pl.coalesce(name, f"{name}_there").alias(name) for name in described)
    both = both.drop([f"{name}_there" for name in described])
    for prefix, side in (("", balance), ("other_", other)):
        zeros = [f"{prefix}documents", f"{prefix}share"]
        zeros += [f"{prefix}bytes"] if side.text_stages and by != "domain" else []
        both = both.with_columns(pl.col(zeros).fill_null(0))
    both = both.filter((pl.col("documents") > 0) | (pl.col("other_documents") > 0))
    apart = pl.col("share") - pl.col("other_share")
    times = pl.when(pl.col("other_share") > 0).then(pl.col("share") / pl.col("other_share"))
    both = both.with_columns(apart.alias("difference"), times.alias("ratio"))
    return both.sort(["share", "other_share", key], descending=[True, True, False])


def distances(compared: pl.DataFrame) -> Distances:
    """Distances between the two sides of a frame that :func:`compare` made."""
    p, q = compared["share"].to_numpy(), compared["other_share"].to_numpy()
    key = compared.columns[0]
    here = compared.filter(pl.col("documents") > 0, pl.col("other_documents") == 0)
    there = compared.filter(pl.col("documents") == 0, pl.col("other_documents") > 0)
    there = there.sort(["other_share", key], descending=[True, False])
    return Distances(
        total_variation=float(np.abs(p - q).sum() / 2),
        jensen_shannon=max(0.0, _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2),
        only_here=tuple(here[key]),
        only_there=tuple(there[key]),
    )


def _side(table: pl.DataFrame, key: str, unit: str) -> pl.DataFrame:
    """The group, what describes it, its figures, and its share of ``unit``."""
    share = (pl.col(unit) / pl.col(unit).sum()).fill_nan(0.0).alias("share")
    missing = [pl.lit(None, pl.Float64).alias(name) for name in _FIGURES if name not in table.columns]
    described = [name for name in _DESCRIBED if name in table.columns and name != key]
    return table.with_columns(*missing).with_columns(share).select(key, *described, *_FIGURES, "share")


def _entropy(shares: np.ndarray) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log2(present)).sum())
