"""Rows of figures in, their sums by language, source, domain, year and the rest out; as small polars frames.

What is kept are sums, and the exact distribution of document lengths: among documents of T characters in all, at most
sqrt(2 T) lengths differ, so it stays small however large the corpus is. Domains are exact up to ``MAX_DOMAINS`` a
language; beyond that the counters are cut back as in mergeable heavy-hitter summaries (Agarwal et al. 2012), which
under-counts a domain by at most documents / ``MAX_DOMAINS`` and never loses one with a larger share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_DOMAINS = 65_536
"""Domains counted for each language."""
MAX_SOURCES = 256
"""Values of ``source`` kept apart in each language; those with fewest documents go under ``OTHER_SOURCES``."""
OTHER_SOURCES = "(other sources)"

_PENDING_ROWS = 262_144
"""Rows whose figures wait before they are summed: one round of sums costs about as much for one row as for these."""
_PENDING_PARTS = 16
# An IPv6 address stands in brackets, for the colons inside it.
_URL_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?:[Ww]{3}\.)?(\[[^\]/?#]+\]|[^/?#:\[][^/?#:]*)"
_SCHEME_BYTES = len("https://")  # and of http:// with the first letter of the host
# Of a date: 2019-09-17, 2019/09/17, 2019, 20190917.
_YEAR = r"^\s*(\d{4})(?:\D|$|\d{4}(?:\D|$))"
_DATE_CHARACTERS = 12
_DOCUMENTS = pl.len().cast(pl.Int64).alias("documents")

FRAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sizes": (("lang", "source"), ("documents", "empty", "bytes", "characters", "elsewhere")),
    "lengths": (("lang", "source", "length"), ("documents",)),
    "detected": (("lang", "source", "claimed", "detected"), ("documents", "bytes")),
    "scripts": (("lang", "script"), ("documents",)),
    "domains": (("lang", "domain"), ("documents",)),
    "linked": (("lang",), ("documents",)),
    "years": (("lang", "year"), ("documents",)),
    "removed": (("lang", "source", "claimed", "detected", "reason"), ("documents", "bytes")),
}
"""Keys and sums of every frame."""
_NUMBERS = {"length": pl.Int64, "year": pl.Int32}


def empty_frame(name: str) -> pl.DataFrame:
    """The frame ``name`` of no documents."""
    keys, sums = FRAMES[name]
    return pl.DataFrame(schema={**{key: _NUMBERS.get(key, pl.String) for key in keys}, **dict.fromkeys(sums, pl.Int64)})


class Sums:
    """Rows of figures, summed whenever enough of them have come together."""

    def __init__(self, reduce: Callable[[pl.DataFrame], dict[str, pl.DataFrame]]) -> None:
        self._reduce = reduce
        self._rows: list[pl.DataFrame] = []
        self._height = 0
        self._parts: list[dict[str, pl.DataFrame]] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows in."""
        self._rows.append(rows)
        self._height += rows.height
        if self._height >= _PENDING_ROWS:
            self._reduce_rows()

    def absorb(self, other: Sums) -> None:
        """Take over all that ``other`` has."""
        self._parts.extend(other._parts)
        for rows in other._rows:
            self.add(rows)
        if len(self._parts) >= _PENDING_PARTS:
            self._parts = [_merged(self._parts)]

    def result(self) -> dict[str, pl.DataFrame]:
        """The frames by name, sorted by their keys; none at all of no rows."""
        self._reduce_rows()
        return _merged(self._parts) if self._parts else {}

    def _reduce_rows(self) -> None:
        if self._rows:
            self._parts.append(self._reduce(pl.concat(self._rows)))
            self._rows, self._height = [], 0
        if len(self._parts) >= _PENDING_PARTS:
            self._parts = [_merged(self._parts)]


def document_sums(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """All frames of :func:`lola_data.balance.rows.document_rows`."""
    sizes = rows.group_by("lang", "source").agg(
        _DOCUMENTS,
        (pl.col("bytes") == 0).sum().cast(pl.Int64).alias("empty"),
        pl.col("bytes").sum(),
        pl.col("length").sum().alias("characters"),
        _elsewhere(),
    )
    url, date = pl.col("url"), pl.col("timestamp").str.strip_chars_start().str.slice(0, _DATE_CHARACTERS)
    # One that ends a host is a slash beyond the scheme.
    slash = url.str.slice(_SCHEME_BYTES).str.find("/", literal=True)
    usual = url.str.starts_with("http://") | url.str.starts_with("https://")
    beginning = pl.when(usual).then(url.str.slice(0, slash + _SCHEME_BYTES)).otherwise(url)
    urls = rows.lazy().filter(url.is_not_null()).group_by("lang", beginning.alias("url")).agg(_DOCUMENTS)
    dates = rows.lazy().filter(pl.col("timestamp").is_not_null()).group_by("lang", date.alias("date")).agg(_DOCUMENTS)
    return {
        "sizes": sizes,
        "lengths": _tallied("lengths", rows),
        "detected": _tallied("detected", _judged(rows), pl.col("bytes").sum()),
        "scripts": _tallied("scripts", rows.filter(pl.col("script").is_not_null())),
        **host_sums(urls.collect()),
        **year_sums(dates.collect()),
    }


def label_sums(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """``sizes``, ``detected`` and ``scripts`` of :func:`lola_data.balance.rows.label_rows`, with sums of 0 for what
    hangs on the texts."""
    zero = {name: pl.lit(0, pl.Int64).alias(name) for name in ("empty", "bytes", "characters")}
    sizes = rows.group_by("lang", "source").agg(_DOCUMENTS, _elsewhere()).with_columns(*zero.values())
    return {
        "sizes": sizes.select(*FRAMES["sizes"][0], *FRAMES["sizes"][1]),
        "detected": _tallied("detected", _judged(rows)).with_columns(zero["bytes"]),
        "scripts": _tallied("scripts", rows.filter(pl.col("script").is_not_null())),
    }


def host_sums(urls: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """``domains`` and ``linked`` of lang, url | documents. The expression is costly and many documents have one host,
    so it is asked of the beginnings of URLs, which leave out only what follows the host."""
    domain = pl.col("url").str.extract(_URL_HOST).str.strip_chars("[]").str.strip_suffix(".").str.to_lowercase()
    hosts = urls.select("lang", domain.alias("domain"), "documents").filter(pl.col("domain").is_not_null())
    documents = pl.col("documents").sum()
    return {
        "domains": hosts.group_by("lang", "domain").agg(documents),
        "linked": hosts.group_by("lang").agg(documents),
    }


def year_sums(dates: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """``years`` of lang, date | documents; of timestamps, that is, or so much of each as has the date."""
    year = pl.col("date").str.extract(_YEAR).cast(pl.Int32).alias("year")
    known = dates.select("lang", year, "documents").filter(pl.col("year").is_not_null())
    return {"years": known.group_by("lang", "year").agg(pl.col("documents").sum())}


def _judged(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a detected language; a claimed one that is null is that of the folder."""
    return rows.filter(pl.col("detected").is_not_null()).with_columns(pl.col("claimed").fill_null(pl.col("lang")))


def _elsewhere() -> pl.Expr:
    """Documents whose detected language is another than the folder's."""
    detected = pl.col("detected")
    elsewhere = detected.is_not_null() & (detected != "und") & (detected != pl.col("lang"))
    return elsewhere.sum().cast(pl.Int64).alias("elsewhere")


def removed_sums(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The one frame of removed rows."""
    return {"removed": _tallied("removed", rows, pl.col("bytes").sum())}


def _tallied(name: str, rows: pl.DataFrame, *sums: pl.Expr) -> pl.DataFrame:
    """Documents, and ``sums``, by the keys of the frame ``name``."""
    return rows.group_by(FRAMES[name][0]).agg(_DOCUMENTS, *sums)


def _merged(parts: Sequence[Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """Sums over parts, sorted by their keys, within the limits on sources and domains."""
    frames = {name: summed(name, [part[name] for part in parts]) for name in parts[0]}
    if "sizes" in frames:
        _fold_sources(frames)
    if "domains" in frames:
        frames["domains"] = _cut_domains(frames["domains"])
    return frames


def together(parts: Sequence[Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """Sums of languages that have no frame or key in common but by name: each frame one after the other, sorted."""
    names = dict.fromkeys(name for part in parts for name in part)
    frames = {name: pl.concat([part[name] for part in parts if name in part]) for name in names}
    return {name: frame.sort(FRAMES[name][0]) for name, frame in frames.items()}


def summed(name: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames of one kind as one, added up and sorted by their keys."""
    keys, sums = FRAMES[name]
    return pl.concat(frames).group_by(keys).agg(pl.col(sums).sum()).sort(keys)


def _fold_sources(frames: dict[str, pl.DataFrame]) -> None:
    """Put all but the ``MAX_SOURCES`` most frequent sources of a language under one name, in every frame."""
    sources = frames["sizes"].select("lang", "source", "documents")
    if not (sources.group_by("lang").len()["len"] > MAX_SOURCES).any():
        return
    ranked = sources.filter(pl.col("source").is_not_null(), pl.col("source") != OTHER_SOURCES)
    ranked = ranked.sort(["documents", "source"], descending=[True, False])
    kept = ranked.group_by("lang").head(MAX_SOURCES - 2).select("lang", "source", pl.lit(True).alias("kept"))
    for name in ("sizes", "lengths", "detected"):
        if name in frames:
            frames[name] = summed(name, [keep_sources(frames[name], kept)])


def keep_sources(frame: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """The frame with ``OTHER_SOURCES`` in the place of every source that is not among ``kept``: lang, source, kept."""
    marked = frame.join(kept, on=["lang", "source"], how="left")
    folded = pl.when(pl.col("kept") | pl.col("source").is_null()).then("source").otherwise(pl.lit(OTHER_SOURCES))
    return marked.with_columns(folded.alias("source")).drop("kept")


def _cut_domains(domains: pl.DataFrame) -> pl.DataFrame:
    """Subtract the count of the first domain beyond ``MAX_DOMAINS`` of a language from all of that language's."""
    beyond = pl.col("documents").sort(descending=True).slice(MAX_DOMAINS, 1).first().over("lang").fill_null(0)
    return domains.with_columns(pl.col("documents") - beyond).filter(pl.col("documents") > 0)
