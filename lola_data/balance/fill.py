"""Labels counted and texts sampled in, one tally out: what is estimated, put where counts would stand.

The frames keep their shape. Estimates are whole numbers that add up to what is known of the language: its documents,
its bytes, its estimated characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lola_data.balance.closer import repeated_frame
from lola_data.balance.count import COUNTED, ESTIMATES, REPEATED, Tally
from lola_data.balance.sums import OTHER_SOURCES, empty_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lola_data.balance.closer import Chances, Closer, Looked
    from lola_data.balance.tokens import TokenTotal

GROUPED = ("source", "claimed", "detected")
"""Keys of :attr:`TextSample.groups`."""


@dataclass(frozen=True)
class TextSample:
    """What is known of the texts of a language.

    Attributes:
        documents: of the language.
        bytes, characters, empty: of the language, estimated where ``fraction`` is below 1 (bytes: unless footers told).
        half_widths: figure -> half of its interval, of those that are estimated.
        effective: documents drawn one by one that would tell as much of the lengths.
        read: documents and bytes whose texts were read.
        fraction: of the units that were read.
        groups: source, claimed, detected | documents, bytes, characters, empty; of the documents read.
        lengths: source, length | documents; of the documents read.
        looked: what was seen in the texts of some of them.
        chances: of a document read to be looked at.
    """

    documents: int
    bytes: float
    characters: float
    empty: float
    half_widths: dict[str, float]
    effective: float
    read: tuple[int, int]
    fraction: float
    groups: pl.DataFrame
    lengths: pl.DataFrame
    looked: Looked
    chances: Chances

    def tokens(self, *, ends: bool) -> TokenTotal:
        """Tokens of the language."""
        chance = self.chances.tokens
        # Of documents chosen within pages that are chosen the pages are the units. What their number tells of all pages
        # is left out, which makes the interval a little too wide.
        fraction = chance if self.fraction >= 1.0 else self.fraction if chance >= 1.0 else 0.0
        return self.looked.tokens.total(self.documents, self.bytes, fraction=fraction, ends=ends)


def put_together(frames: dict[str, pl.DataFrame], samples: dict[str, TextSample], closer: Closer) -> Tally:
    """Labels and samples put together."""
    found = {name: frames.get(name, empty_frame(name)) for name in COUNTED}
    sizes: list[pl.DataFrame] = []
    detected: list[pl.DataFrame] = []
    lengths: list[pl.DataFrame] = []
    scripts: list[pl.DataFrame] = []
    for lang, sample in samples.items():
        own = found["sizes"].filter(pl.col("lang") == lang)
        named = sample.groups.with_columns(_folded(own))
        sizes.append(_filled(own, ("source",), named, sample))
        judged = found["detected"].filter(pl.col("lang") == lang)
        detected.append(_filled(judged, GROUPED, named, sample))
        lengths.append(_spread(own, sample.lengths.with_columns(_folded(own))))
        if closer.scripts:
            scripts.append(_scaled(lang, sample))
    found["sizes"] = pl.concat([found["sizes"].clear(), *sizes])
    found["detected"] = pl.concat([found["detected"].clear(), *detected])
    found["lengths"] = pl.concat([empty_frame("lengths"), *lengths])
    if closer.scripts:
        found["scripts"] = pl.concat([empty_frame("scripts"), *scripts])
    halves = [(lang, name, half) for lang, one in samples.items() for name, half in one.half_widths.items()]
    looked = {lang: sample.looked for lang, sample in samples.items()}
    return Tally(
        **found,
        repeated=repeated_frame(looked) if closer.copies else pl.DataFrame(schema=REPEATED),
        tokens={
            lang: sample.tokens(ends=closer.tokens.ends_documents) for lang, sample in samples.items() if closer.tokens
        },
        estimates=pl.DataFrame(halves, schema=ESTIMATES, orient="row"),
        effective={lang: one.effective for lang, one in samples.items() if one.fraction < 1.0},
        read={lang: one.read for lang, one in samples.items() if one.fraction < 1.0},
    )


def _folded(sizes: pl.DataFrame) -> pl.Expr:
    """The source under the name that it has in ``sizes``."""
    known = sizes["source"].drop_nulls().implode()
    source = pl.col("source")
    return pl.when(source.is_null() | source.is_in(known)).then(source).otherwise(pl.lit(OTHER_SOURCES))


def _filled(counted: pl.DataFrame, keys: Sequence[str], groups: pl.DataFrame, sample: TextSample) -> pl.DataFrame:
    """``counted`` with its sums of bytes, characters and empty documents: documents times the mean of the sampled ones
    with the same keys, brought to what is known of the language."""
    names = [name for name in ("bytes", "characters", "empty") if name in counted.columns]
    own = groups.group_by(keys).agg(
        pl.col("documents").alias("sampled").sum(), *(pl.col(n).alias(f"s_{n}").sum() for n in names)
    )
    joined = counted.join(own, on=list(keys), how="left", nulls_equal=True, maintain_order="left")
    documents = joined["documents"].to_numpy().astype(np.float64)
    sampled = joined["sampled"].fill_null(0).to_numpy().astype(np.float64)
    everything = max(1, int(groups["documents"].sum()))
    columns: list[pl.Series] = []
    for name in names:
        mean = float(groups[name].sum()) / everything
        seen = joined[f"s_{name}"].fill_null(0).to_numpy().astype(np.float64)
        raw = documents * np.where(sampled > 0, seen / np.maximum(sampled, 1.0), mean)
        # All documents of the language are among them, or only those with a detected language.
        part = documents.sum() / sample.documents if sample.documents else 0.0
        whole = getattr(sample, name) * part if part < 1.0 else getattr(sample, name)
        columns.append(pl.Series(name, apportion(raw, round(whole)), pl.Int64))
    return counted.with_columns(columns)


def _spread(sizes: pl.DataFrame, lengths: pl.DataFrame) -> pl.DataFrame:
    """lang, source, length | documents of all documents of a language, as those of the sample are spread."""
    parts: list[pl.DataFrame] = [empty_frame("lengths")]
    for lang, source, documents in sizes.select("lang", "source", "documents").iter_rows():
        own = lengths.filter(pl.col("source").eq_missing(pl.lit(source, pl.String)))
        own = (own if own.height else lengths).group_by("length").agg(pl.col("documents").sum()).sort("length")
        upto = own["documents"].cum_sum().to_numpy().astype(np.float64)
        if not own.height:
            continue
        counts = np.diff(np.rint(upto * (documents / upto[-1])), prepend=0.0).astype(np.int64)
        whole = pl.DataFrame({"length": own["length"], "documents": counts}).filter(pl.col("documents") > 0)
        names = pl.lit(lang, pl.String).alias("lang"), pl.lit(source, pl.String).alias("source")
        parts.append(whole.select(*names, "length", "documents"))
    return pl.concat(parts)


def _scaled(lang: str, sample: TextSample) -> pl.DataFrame:
    """lang, script | documents."""
    seen = sorted(sample.looked.scripts.items())
    counts = np.array([count for _, count in seen], np.float64)
    documents = apportion(counts, sample.documents if seen else 0)
    rows = [(lang, script, count) for (script, _), count in zip(seen, documents.tolist(), strict=True) if count]
    return pl.DataFrame(rows, schema=empty_frame("scripts").schema, orient="row")


def apportion(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers in the proportions of ``weights`` that add up to ``total``, by the largest remainders.

    >>> apportion(np.array([1.0, 1.0, 1.0]), 4).tolist()
    [2, 1, 1]
    """
    if not weights.size or not weights.sum():
        return np.zeros(weights.size, np.int64)
    exact = weights * (total / weights.sum())
    whole = np.floor(exact + 1e-9).astype(np.int64)
    left = int(total - whole.sum())
    if left > 0:
        order = np.argsort(-(exact - whole), kind="stable")
        whole[order[:left]] += 1
    return whole
