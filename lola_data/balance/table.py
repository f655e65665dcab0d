"""One row per language, script, family, source or domain: the frames of a :class:`Balance` in, a wide frame out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from lola_data.balance.estimate import quantile_ranks
from lola_data.languages import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.balance.measure import Balance

Grouping = Literal["language", "script", "family", "source", "domain"]
GROUPINGS: tuple[str, ...] = get_args(Grouping)
QUANTILES = (("p10_length", 0.1), ("p50_length", 0.5), ("p90_length", 0.9))
"""Percentiles that charts show."""
LEVELS = (*QUANTILES, ("p99_length", 0.99))
"""Percentiles of the table."""
UNKNOWN_SCRIPT, UNKNOWN_FAMILY = "Zzzz", "Unknown"
"""Script (ISO 15924: uncoded) and family of a folder that is no CulturaX code."""
NO_SOURCE = "(none)"
"""Group of documents without a source, or without a URL."""
OTHER_DOMAINS = "(other domains)"
MAX_ROWS = 1000
"""Domains in a table: the largest."""

_ADDED = ("bytes", "characters", "empty")
"""Estimates of which those of several languages add up."""

_SUMS = ("documents", "empty", "bytes", "characters", "elsewhere")


def described(languages: tuple[str, ...]) -> pl.DataFrame:
    """lang, name, script, family. A folder that is no CulturaX code is named after itself."""
    rows = [
        (code, known.name, known.script, known.family)
        if (known := LANGUAGES.get(code)) is not None
        else (code, code, UNKNOWN_SCRIPT, UNKNOWN_FAMILY)
        for code in languages
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("lang", "name", "script", "family"), pl.String), orient="row")


def table(balance: Balance, by: Grouping) -> pl.DataFrame:
    """One row a group, largest first.

    Columns: the group itself (``lang`` with ``name``, ``script``, ``family``; or ``script``, ``family``, ``source``, a
    language's script being its usual one) and, of the subject, ``languages`` (that have documents), ``documents``,
    ``empty``, ``bytes``, ``characters``, ``share`` of the bytes in [0, 1], ``mean_length``, ``p10_length``,
    ``p50_length``, ``p90_length``, ``p99_length`` in characters (linear between the two nearest documents),
    ``elsewhere``; then ``tokens`` and ``bytes_per_token``, by the tokenizer that was given, else of the token shards
    (null without either); ``first_documents`` and ``first_share`` of the first
    stage; ``relabelled_in`` and ``relabelled_out``, documents that identify moved into the group and out of it;
    ``removed`` and ``removed_share`` by identify and dedup, of all that ever lay in the group, relabelled in or out
    included (these four null unless stages are joined); ``target_share`` and ``epochs`` (null without a plan; of a
    group weighted by the bytes that can be drawn from); and for each of several stages ``<stage>_documents``,
    ``<stage>_bytes``, ``<stage>_characters``, ``<stage>_tokens``.

    Where a column of the subject is estimated, its 95 % interval follows in ``<column>_low`` and ``<column>_high``; of
    what was counted both are the value itself. By source there are no intervals.

    By domain: ``domain``, ``lang`` (where most of its documents are), ``languages``, ``documents`` and ``share`` of the
    documents, of the ``MAX_ROWS`` largest; then ``OTHER_DOMAINS`` and ``NO_SOURCE``, documents without a URL.
    """
    if by == "domain":
        return domains(balance, MAX_ROWS)
    known = described(balance.languages)
    if by == "language":
        wide = _figures(balance, known.select("lang", pl.col("lang").alias("group")), "group")
        wide = known.join(wide.rename({"group": "lang"}), on="lang", how="left")
        return wide.sort([*_size_order(balance), "lang"], descending=[True, True, False])
    if by == "source":
        wide = _figures(balance, known.select("lang"), "source").rename({"group": "source"})
    else:
        wide = _figures(balance, known.select("lang", pl.col(by).alias("group")), "group").rename({"group": by})
    return wide.sort([*_size_order(balance), by], descending=[True, True, False])


def totals(balance: Balance) -> dict[str, Any]:
    """The figures of :func:`table`, from ``languages`` on, over everything."""
    keys = pl.DataFrame({"lang": balance.languages}, schema={"lang": pl.String})
    wide = _figures(balance, keys.with_columns(pl.lit("total").alias("group")), "group").drop("group")
    return wide.row(0, named=True) if wide.height else dict.fromkeys(wide.columns)


def reasons(balance: Balance, by: Grouping) -> pl.DataFrame:
    """Group, step, reason | documents, bytes, in the order of the steps."""
    column = "lang" if by == "language" else by
    if by == "domain":  # of what was removed the URLs are not counted
        names = (column, "step", "reason", "documents", "bytes")
        return pl.DataFrame(schema={name: pl.Int64 if name in names[3:] else pl.String for name in names})
    known = described(balance.languages).drop("name")
    rows = balance.removed.join(known, on="lang", how="left").with_columns(pl.col("source").fill_null(NO_SOURCE))
    summed = rows.group_by(column, "step", "reason").agg(pl.col("documents", "bytes").sum())
    order = {"identify": 0, "dedup": 1, "sample": 2}
    return summed.sort(column, pl.col("step").replace_strict(order, default=3, return_dtype=pl.Int8), "step", "reason")


def estimated_columns(balance: Balance, by: Grouping) -> frozenset[str]:
    """Columns of :func:`table` that hold estimates, in some rows at least."""
    if by == "domain":
        return frozenset()
    found: set[str] = set()
    for stage, figure in balance.estimates.select("stage", "figure").unique().iter_rows():
        found.add(f"{stage}_{figure}")
        if stage == balance.subject:
            found |= {figure, *(["mean_length"] if figure == "characters" else [])}
            found |= {"share", "mean_length"} if figure == "bytes" else set()
    if balance.effective:
        found |= {name for name, _ in LEVELS}
        # Of a language's sources the sizes are known from the sample alone.
        found |= {"bytes", "share"} if by == "source" else set()
    if balance.encoded.filter(pl.col("half_width") > 0).height:
        found |= {"tokens", "bytes_per_token"}
    return frozenset(found)


def quantiles(
    lengths: np.ndarray, counts: np.ndarray, levels: Sequence[float] = tuple(level for _, level in LEVELS)
) -> list[float]:
    """Quantiles of values that occur ``counts`` times: int64[n] ascending, int64[n] positive, n > 0.

    Linear between the two nearest ranks, as NumPy's default: rank h = q (N - 1) of N documents, counted from 0.
    """
    upto = np.cumsum(counts)
    found = []
    for q in levels:
        rank = q * (upto[-1] - 1)
        low, high = lengths[np.searchsorted(upto, [np.floor(rank), np.ceil(rank)], side="right")]
        found.append(float(low + (high - low) * (rank - np.floor(rank))))
    return found


def _size_order(balance: Balance) -> list[str]:
    return [balance.unit, "first_documents"]


def _figures(balance: Balance, keys: pl.DataFrame, column: str) -> pl.DataFrame:
    """``group`` and every figure of :func:`table`. ``keys`` joins a lang to its group, unless ``column`` is source."""

    def keyed(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(keys, on="lang", how="left")
        return (
            joined.with_columns(pl.col("source").fill_null(NO_SOURCE).alias("group")) if column == "source" else joined
        )

    sizes = keyed(balance.sizes)
    if column == "source":
        sizes = sizes.filter(pl.col("stage").is_in(balance.text_stages))
    groups = sizes.select("group") if column == "source" else keys.select("group")
    wide = groups.unique().sort("group")

    subject = sizes.filter(pl.col("stage") == balance.subject)
    languages = pl.col("lang").filter(pl.col("documents") > 0).n_unique().cast(pl.Int64).alias("languages")
    wide = _with(wide, subject.group_by("group").agg(languages, pl.col(_SUMS).sum()), 0)
    wide = wide.with_columns(pl.when(balance.unit == "bytes").then(pl.col(_SUMS[1:])).otherwise(None))
    wide = wide.with_columns((pl.col("characters") / pl.col("documents")).fill_nan(None).alias("mean_length"))
    wide = _with(wide, _quantiles(balance, keyed(balance.lengths), bounds=column == "group"))
    wide = _tokens(balance, wide, sizes, keys if column == "group" else None)
    per_token = pl.when(pl.col("tokens") > 0).then(pl.col("bytes") / pl.col("tokens"))
    wide = wide.with_columns(per_token.alias("bytes_per_token"), _share(balance.unit).alias("share"))

    first = sizes.filter(pl.col("stage") == balance.stages[0])
    unit = "bytes" if balance.stages[0] in balance.text_stages else "tokens"
    first = first.group_by("group").agg(
        pl.col("documents").sum().alias("first_documents"), pl.col(unit).sum().alias("first_share")
    )
    wide = _with(wide, first, 0).with_columns(_share("first_share").alias("first_share"))
    wide = _removals(balance, wide, keyed, keys if column == "group" else None)
    wide = _targets(balance, wide, keyed, column)

    if len(balance.stages) > 1:
        for stage in balance.stages:
            names = ("documents", "bytes", "characters") if stage in balance.text_stages else ("documents", "tokens")
            own = sizes.filter(pl.col("stage") == stage).group_by("group")
            wide = _with(wide, own.agg(pl.col(name).sum().alias(f"{stage}_{name}") for name in names), 0)
    return _bounded(balance, wide, keys) if column == "group" else wide


def _tokens(balance: Balance, wide: pl.DataFrame, sizes: pl.DataFrame, keys: pl.DataFrame | None) -> pl.DataFrame:
    """``tokens``: of the tokenizer that was given, else of the token shards. ``keys``: None for groups by source, of
    whose tokens nothing is known."""
    if balance.tokenizer is not None:
        if keys is None:
            return wide.with_columns(pl.lit(None, pl.Int64).alias("tokens"))
        tokens = (
            balance.encoded.join(keys, on="lang").group_by("group").agg(pl.col("tokens").sum().round().cast(pl.Int64))
        )
        return _with(wide, tokens, 0)
    tokens = sizes.filter(pl.col("stage") == (balance.token_stage or "")).group_by("group").agg(pl.col("tokens").sum())
    return _with(wide, tokens, 0 if balance.token_stage and keys is not None else None)


def _bounded(balance: Balance, wide: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    """With the intervals of sums beside them. Languages are sampled apart, so the squares of half-widths add up."""
    own = balance.estimates.filter(pl.col("stage") == balance.subject)
    widths = {name: own.filter(pl.col("figure") == name) for name in _ADDED}
    widths["tokens"] = balance.encoded.filter(pl.col("half_width") > 0)
    added: list[pl.Expr] = []
    for name, halves in widths.items():
        if not halves.height:
            continue
        half = (pl.col("half_width") ** 2).sum().sqrt().alias("half")
        wide = _with(wide, halves.join(keys, on="lang").group_by("group").agg(half)).with_columns(
            pl.col("half").fill_null(0.0)
        )
        low, high = (pl.col(name) - pl.col("half")).clip(0.0), pl.col(name) + pl.col("half")
        wide = wide.with_columns(low.alias(f"{name}_low"), high.alias(f"{name}_high")).drop("half")
        if name == "characters":
            added += [
                (pl.col(f"characters_{end}") / pl.col("documents")).fill_nan(None).alias(f"mean_length_{end}")
                for end in ("low", "high")
            ]
        if name == "tokens":
            added += [
                pl.when(pl.col(f"tokens_{other}") > 0)
                .then(pl.col("bytes") / pl.col(f"tokens_{other}"))
                .alias(f"bytes_per_token_{end}")
                for end, other in (("low", "high"), ("high", "low"))
            ]
    return wide.with_columns(added)


def domains(balance: Balance, most: int | None = None) -> pl.DataFrame:
    """The table by domain with the ``most`` largest, or all of them."""
    sizes = balance.sizes.filter(pl.col("stage") == balance.subject)
    documents = int(sizes["documents"].sum()) if balance.text_stages else 0
    ranked = balance.domains.sort(["documents", "lang"], descending=[True, False])
    summed = ranked.group_by("domain", maintain_order=True).agg(
        pl.col("lang").first(), pl.col("lang").n_unique().cast(pl.Int64).alias("languages"), pl.col("documents").sum()
    )
    summed = summed.sort(["documents", "domain"], descending=[True, False])
    shown = summed if most is None else summed.head(most)
    with_url = int(balance.linked["documents"].sum())
    more = [
        (OTHER_DOMAINS, None, None, with_url - int(shown["documents"].sum())),
        (NO_SOURCE, None, None, documents - with_url),
    ]
    ends = pl.DataFrame([row for row in more if row[3] > 0], schema=shown.schema, orient="row")
    share = (pl.col("documents") / documents).fill_nan(0.0).alias("share")
    return pl.concat([shown, ends]).with_columns(share)


def _with(wide: pl.DataFrame, more: pl.DataFrame, fill: int | None = None) -> pl.DataFrame:
    joined = wide.join(more, on="group", how="left")
    return joined if fill is None else joined.with_columns(pl.col(more.columns[1:]).fill_null(fill))


def _share(column: str) -> pl.Expr:
    """Share of the column's sum; 0 of nothing is 0."""
    return (pl.col(column) / pl.col(column).sum()).fill_nan(0.0)


def _quantiles(balance: Balance, lengths: pl.DataFrame, *, bounds: bool) -> pl.DataFrame:
    """group | percentiles; with ``bounds`` and where some are estimated, their intervals."""
    bounds = bounds and bool(balance.effective)
    summed = lengths.group_by("group", "length").agg(pl.col("documents").sum()).sort("group", "length")
    rows: list[dict[str, Any]] = []
    for (group,), part in summed.partition_by("group", as_dict=True, maintain_order=True).items():
        values, counts = part["length"].to_numpy(), part["documents"].to_numpy()
        found = dict(zip((name for name, _ in LEVELS), quantiles(values, counts), strict=True))
        rows.append({"group": group, **found})
        if not bounds:
            continue
        own = lengths.filter(pl.col("group") == group)
        for name, level in LEVELS:
            variance = _rank_variance(balance, own, found[name])
            low, high = quantiles(values, counts, quantile_ranks(level, variance)) if variance else (found[name],) * 2
            rows[-1] |= {f"{name}_low": low, f"{name}_high": high}
    names = [name + end for name, _ in LEVELS for end in (("", "_low", "_high") if bounds else ("",))]
    return pl.DataFrame(rows, schema={"group": pl.String, **dict.fromkeys(names, pl.Float64)})


def _rank_variance(balance: Balance, lengths: pl.DataFrame, bound: float) -> float:
    """Variance of the estimated share of a group's documents that are no longer than ``bound`` characters."""
    below = pl.col("documents").filter(pl.col("length") <= bound).sum()
    shares = lengths.group_by("lang").agg(pl.col("documents").sum(), below.alias("below"))
    everything = shares["documents"].sum()
    return sum(
        (documents / everything) ** 2 * (below / documents) * (1.0 - below / documents) / balance.effective[lang]
        for lang, documents, below in shares.sort("lang").iter_rows()
        if lang in balance.effective
    )


def _removals(balance: Balance, wide: pl.DataFrame, keyed: Any, keys: pl.DataFrame | None) -> pl.DataFrame:
    """``relabelled_in``, ``relabelled_out``, ``removed`` and ``removed_share``. ``keys``: None for groups by source,
    which no document leaves."""
    if not balance.joined:
        unknown = [pl.lit(None, pl.Int64).alias(name) for name in ("relabelled_in", "relabelled_out", "removed")]
        return wide.with_columns(*unknown, pl.lit(None, pl.Float64).alias("removed_share"))
    wide = _moves(balance, wide, keys)
    rows = keyed(balance.removed.filter(pl.col("step") != "sample", pl.col("reason") != "relabelled"))
    wide = _with(wide, rows.group_by("group").agg(pl.col("documents").sum().alias("removed")), 0)
    # A work folder may hold only the later trees: what left before the first of them was there as well.
    first = balance.stages[0]
    earlier = {"raw": [], "identified": ["identify"]}.get(first, ["identify", "dedup"])
    gone = rows.filter(pl.col("step").is_in(earlier)).group_by("group").agg(pl.col("documents").sum().alias("gone"))
    wide = _with(wide, gone, 0)
    moved = pl.col("relabelled_in" if first == "raw" else "relabelled_out")
    before = pl.col("first_documents") + pl.col("gone") + moved
    return wide.with_columns((pl.col("removed") / before).fill_nan(0.0).alias("removed_share")).drop("gone")


def _moves(balance: Balance, wide: pl.DataFrame, keys: pl.DataFrame | None) -> pl.DataFrame:
    """Documents that identify moved from one group to another, by either. A move inside a group is none."""
    if keys is None:
        return wide.with_columns(pl.lit(0, pl.Int64).alias(name) for name in ("relabelled_in", "relabelled_out"))
    moved = balance.detected.join(keys.rename({"group": "to"}), on="lang", how="left")
    moved = moved.join(keys.rename({"lang": "claimed", "group": "from"}), on="claimed", how="left")
    moved = moved.filter(pl.col("from").ne_missing(pl.col("to")))
    for column, name in (("to", "relabelled_in"), ("from", "relabelled_out")):
        summed = moved.group_by(pl.col(column).alias("group")).agg(pl.col("documents").sum().alias(name))
        wide = _with(wide, summed, 0)
    return wide


def _targets(balance: Balance, wide: pl.DataFrame, keyed: Any, column: str) -> pl.DataFrame:
    if not balance.plan.height or column == "source":
        return wide.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("target_share", "epochs"))
    stage = "deduped" if "deduped" in balance.stages else balance.subject  # epochs are of what can be drawn from
    own = balance.sizes.filter(pl.col("stage") == stage).group_by("lang").agg(pl.col(balance.unit).sum())
    plan = keyed(balance.plan.join(own, on="lang", how="left").with_columns(pl.col(balance.unit).fill_null(0)))
    weight = pl.col(balance.unit)
    mean = (pl.col("epochs") * weight).sum() / weight.sum()
    return _with(
        wide,
        plan.group_by("group").agg(pl.col("share").sum().alias("target_share"), mean.fill_nan(None).alias("epochs")),
    )
