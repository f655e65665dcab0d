"""What a balance looks at in the texts themselves: scripts, tokens and copies of some documents of each language.

In: columns of texts, with the place that each row has in the tree. Out: scripts, sums of tokens and bytes, sketches.
Which documents are taken depends on the seed and their ids alone (``<lang>/<shard>/<row>``), so that neither the order
of shards nor the number of threads makes a difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.balance import copies as balance_copies
from lola_data.balance import tokens as balance_tokens
from lola_data.balance.tokens import Moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lola_data.balance.tokens import TokenCounter
    from lola_data.balance.trees import Shard


SCRIPT_BYTES = 8_000_000
"""Text of a sample whose scripts are looked at."""


@dataclass(frozen=True)
class Closer:
    """What to look at. ``seed``: of the choice of documents. ``all_tokens``: encode every document."""

    tokens: TokenCounter | None = None
    scripts: bool = False
    copies: bool = False
    seed: int = 0
    all_tokens: bool = False

    @property
    def chooses(self) -> bool:
        """Whether only some documents are looked at, so that it must be known how many there are."""
        return self.copies or (self.tokens is not None and not self.all_tokens)

    def chances(self, documents: int, size: int) -> Chances:
        """Chances of a document to be looked at, among so many with so many bytes of text."""
        few = min(1.0, balance_copies.DOCUMENTS / max(1, documents), balance_copies.BYTES / max(1, size))
        read = min(1.0, SCRIPT_BYTES / max(1, size))
        encode = 1.0 if self.all_tokens else balance_tokens.chance(documents, size)
        return Chances(encode if self.tokens else 0.0, few if self.copies else 0.0, read if self.scripts else 0.0)


@dataclass(frozen=True, slots=True)
class Chances:
    """Of a document, in [0, 1]."""

    tokens: float = 0.0
    copies: float = 0.0
    scripts: float = 0.0


@dataclass
class Looked:
    """What was seen in some documents of one language. ``scripts``: code -> documents."""

    tokens: Moments = field(default_factory=Moments)
    sketches: list[NDArray[np.uint64]] = field(default_factory=list)
    scripts: dict[str, int] = field(default_factory=dict)

    def absorb(self, other: Looked) -> None:
        """Take over all that ``other`` has."""
        self.tokens.absorb(other.tokens)
        self.sketches.extend(other.sketches)
        for script, documents in other.scripts.items():
            self.scripts[script] = self.scripts.get(script, 0) + documents


Take: TypeAlias = "Callable[[NDArray[np.bool_] | None], pa.Array]"
"""The texts of the chosen rows (None: all), string or large_string."""


def look(closer: Closer, chances: Chances, take: Take, shard: Shard, rows: NDArray[np.int64]) -> Looked:
    """Look at the texts of some rows.

    Args:
        closer: what at.
        chances: of each document.
        take: gives the texts.
        shard: that they are in.
        rows: int64[D], their numbers in the shard.
    """
    found = Looked()
    if not rows.size:
        return found
    if closer.tokens is not None and chances.tokens:
        some = take(_chosen(chances.tokens, closer.seed, "balance/tokens", shard, rows))
        found.tokens.add(*closer.tokens.count(some))
    if chances.copies:
        some = take(_chosen(chances.copies, closer.seed, "balance/copies", shard, rows))
        found.sketches.append(balance_copies.sketches(some))
    if chances.scripts:
        some = take(_chosen(chances.scripts, closer.seed, "balance/scripts", shard, rows))
        counted: Any = cast("Any", pc).value_counts(scripts_of(some))
        found.scripts = {pair["values"].as_py(): pair["counts"].as_py() for pair in counted}
    return found


def taker(text: pa.Array) -> Take:
    """Gives the texts of a column."""
    return lambda chosen: text if chosen is None else text.filter(pa.array(chosen))


def scripts_of(text: pa.Array) -> pa.Array:
    """The script of each text, string[rows]."""
    from lola_data.scripts import dominant_script

    return dominant_script(text)


def _chosen(chance: float, seed: int, purpose: str, shard: Shard, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    if chance >= 1.0:
        return None
    from lola_data.unit_hash import unit_hash

    start = f"{shard.lang}/{PurePosixPath(shard.path).stem}/"
    ids = cast("Any", pc).binary_join_element_wise(start, pa.array(rows).cast(pa.string()), "")
    return unit_hash(seed, ids, purpose) < np.uint64(chance * 2.0**64)


def repeated_frame(looked: dict[str, Looked]) -> pl.DataFrame:
    """lang | looked, repeated: documents whose likeness was looked at, and those like another."""
    rows = [(lang, *balance_copies.repeated(seen.sketches)) for lang, seen in sorted(looked.items())]
    schema = {"lang": pl.String, "looked": pl.Int64, "repeated": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").filter(pl.col("looked") > 0)
