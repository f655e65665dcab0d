"""Removed rows, drawn at random: the trees ``removed/<stage>/`` in, rows of the reasons asked for out.

Only the column of reasons is read of all of them, and only where reasons are asked for; of the drawn rows their row
groups.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lola_data.errors import RecipeError
from lola_data.inspect.draw import draw, located
from lola_data.inspect.places import rows_of_shards
from lola_data.inspect.rows import read_group, row_counts
from lola_data.schemas import REMOVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.balance.trees import Shard
    from lola_data.inspect.places import Place

_REASON = pa.schema([REMOVED.field("reason")])
_ALSO_CALLED = {"near_duplicate": "near", "exact_duplicate": "exact", "url_duplicate": "url", "same_url": "url"}


@dataclass(frozen=True, slots=True)
class Spot:
    """A row of a shard of a place."""

    place: Place
    shard: Shard
    number: int


@dataclass(frozen=True)
class _Group:
    place: Place
    shard: Shard
    number: int
    first_row: int
    reasons: Counter[str]


def reason_name(given: str) -> str:
    """The reason as shards spell it; ``near-duplicate`` and the like are understood.

    >>> reason_name("Near-Duplicate"), reason_name("low-score")
    ('near', 'low_score')
    """
    name = given.strip().lower().replace("-", "_").replace(" ", "_")
    return _ALSO_CALLED.get(name, name)


def draw_rows(places: Sequence[Place], count: int, seed: int) -> tuple[list[Spot], int]:
    """``count`` rows of the places, each as likely as any other, in the order drawn; and how many rows there are."""
    shards = [(place, shard) for place in places for shard in place.shards]
    sizes = [rows for place in places for rows in rows_of_shards(place)]
    spots = [Spot(*shards[part], number) for part, number in located(draw(sum(sizes), count, seed), sizes)]
    return spots, sum(sizes)


def draw_removed(places: Sequence[Place], reasons: Sequence[str], count: int, seed: int) -> tuple[list[Spot], int]:
    """The same of the rows removed for one of ``reasons``; none: of all.

    Raises:
        RecipeError: nothing was removed for one of the reasons; those that are there are named.
    """
    if not reasons:
        return draw_rows(places, count, seed)
    groups = [group for place in places for shard in place.shards for group in _groups(place, shard)]
    there: Counter[str] = sum((group.reasons for group in groups), Counter[str]())
    wanted = [reason_name(reason) for reason in reasons]
    for given, reason in zip(reasons, wanted, strict=True):
        if not there[reason]:
            _refuse(given, reason, there)
    sizes = [sum(group.reasons[reason] for reason in set(wanted)) for group in groups]
    chosen = located(draw(sum(sizes), count, seed), sizes)
    rows = {part: _rows_with(groups[part], wanted) for part, _ in chosen}
    return [Spot(groups[part].place, groups[part].shard, rows[part][at]) for part, at in chosen], sum(sizes)


def _refuse(given: str, reason: str, there: Counter[str]) -> None:
    named = ", ".join(f"{name} ({count:,})" for name, count in there.most_common()) or "none at all"
    near = difflib.get_close_matches(reason, list(there), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RecipeError(f"--reason {given}: nothing was removed for that; {hint}the reasons here are {named}")


def _groups(place: Place, shard: Shard) -> list[_Group]:
    found: list[_Group] = []
    first = 0
    for number, rows in enumerate(row_counts(shard.path)):
        reasons: Counter[str] = Counter()
        for batch in read_group(shard.path, shard.lang, number, _REASON):
            for one in pc.value_counts(batch["reason"]).to_pylist():
                reasons[str(one["values"])] += one["counts"]
        found.append(_Group(place, shard, number, first, reasons))
        first += rows
    return found


def _rows_with(group: _Group, reasons: list[str]) -> list[int]:
    """Rows, in the shard, of those of a group that have one of the reasons."""
    values = pa.array(sorted(set(reasons)), pa.string())
    found: list[int] = []
    at = group.first_row
    for batch in read_group(group.shard.path, group.shard.lang, group.number, _REASON):
        found += [at + row for row in pc.indices_nonzero(pc.is_in(batch["reason"], value_set=values)).to_pylist()]
        at += batch.num_rows
    return found
