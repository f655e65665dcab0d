"""What a person should look at before going on: a :class:`Balance` in, warnings with language and figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lola_data.balance.table import described
from lola_data.languages import LANGUAGES, unicode_scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.balance.measure import Balance

MIN_DOCUMENTS = 100
"""A language with fewer documents is warned of, unless told otherwise."""
MOSTLY = 0.5
"""Share above which a language is *mostly* of another script or language, or of one domain, or removed."""
NEAR_DUPLICATE = 0.2
"""Share of near-duplicates above which a language is suspicious: a site's template, or machine-made text."""
MIN_JUDGED = 10
"""Shares of fewer documents than this raise no warning: they say little."""

KINDS = {
    "rows_lost": "rows in are not rows kept plus rows removed",
    "empty": "no documents left",
    "few_documents": "few documents",
    "unexpected_script": "mostly in an unexpected script",
    "other_language": "mostly detected as another language",
    "one_domain": "mostly from one domain",
    "near_duplicate": "suspiciously many near-duplicates",
    "heavy_removal": "mostly removed",
    "unknown_code": "not a CulturaX language code",
}
"""Every kind of warning, gravest first, and what it says."""

_STEPS = (("identify", "raw", "identified"), ("dedup", "identified", "deduped"), ("sample", "deduped", "sampled"))
_NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")  # common, inherited, unknown: no letters to tell by


@dataclass(frozen=True, slots=True)
class BalanceWarning:
    """One warning: its ``kind`` (a key of ``KINDS``), the folder it is about, and the figures in ``detail``."""

    kind: str
    lang: str
    detail: str

    def __str__(self) -> str:
        return f"{self.lang}: {KINDS[self.kind]}: {self.detail}"


def warnings_of(balance: Balance, *, min_documents: int = MIN_DOCUMENTS) -> list[BalanceWarning]:
    """Every warning, gravest kind first, then by language.

    Args:
        balance: what was counted.
        min_documents: languages with fewer documents are named.
    """
    found = [
        *_rows_lost(balance),
        *_small(balance, min_documents),
        *_scripts(balance),
        *_detected(balance),
        *_domains(balance),
        *_copies(balance),
        *_removed(balance),
        *(BalanceWarning("unknown_code", lang, "no name, script or family") for lang in _unknown(balance)),
    ]
    order = {kind: rank for rank, kind in enumerate(KINDS)}
    return sorted(found, key=lambda warning: (order[warning.kind], warning.lang))


def _unknown(balance: Balance) -> list[str]:
    return [lang for lang in balance.languages if lang not in LANGUAGES]


def _by_lang(frame: pl.DataFrame) -> dict[str, int]:
    return dict(frame.group_by("lang").agg(pl.col("documents").sum()).iter_rows())


def _rows_lost(balance: Balance) -> Iterator[BalanceWarning]:
    if not balance.joined:
        return
    stages = {stage: _by_lang(balance.sizes.filter(pl.col("stage") == stage)) for stage in balance.stages}
    arrived = _by_lang(balance.detected.filter(pl.col("claimed") != pl.col("lang")))
    for step, before, after in _STEPS:
        if before not in stages or after not in stages:
            continue
        gone = _by_lang(balance.removed.filter(pl.col("step") == step))
        moved = arrived if step == "identify" else {}
        for lang in balance.languages:
            rows, out = stages[before].get(lang, 0), gone.get(lang, 0)
            kept = stages[after].get(lang, 0) - moved.get(lang, 0)
            if rows != kept + out:
                yield BalanceWarning(
                    "rows_lost", lang, f"{rows:,} {before}, but {kept:,} {after} and {out:,} removed by {step}"
                )
    if "tokens" in stages and "sampled" in stages:
        for lang in balance.languages:
            rows, documents = stages["sampled"].get(lang, 0), stages["tokens"].get(lang, 0)
            if rows != documents:
                yield BalanceWarning("rows_lost", lang, f"{rows:,} sampled, but {documents:,} in the token shards")


def _small(balance: Balance, min_documents: int) -> Iterator[BalanceWarning]:
    documents = _by_lang(balance.sizes.filter(pl.col("stage") == balance.subject))
    first = _by_lang(balance.sizes.filter(pl.col("stage") == balance.stages[0]))
    for lang in balance.languages:
        count = documents.get(lang, 0)
        if count == 0:
            before = first.get(lang, 0)
            yield BalanceWarning(
                "empty", lang, f"of {before:,} in {balance.stages[0]}" if before else "an empty folder"
            )
        elif count < min_documents:
            yield BalanceWarning("few_documents", lang, f"{count:,} of at least {min_documents:,}")


def _scripts(balance: Balance) -> Iterator[BalanceWarning]:
    lettered = balance.scripts.filter(~pl.col("script").is_in(_NO_SCRIPT))
    for lang, script, share in _leaders(lettered, "script"):
        if lang not in LANGUAGES:
            continue
        usual = LANGUAGES[lang].scripts
        # A detector may name the script of the letters (Hani) or the way of writing (Jpan).
        if script not in usual and script not in unicode_scripts(lang):
            yield BalanceWarning(
                "unexpected_script", lang, f"{share:.0%} {script}, where {' or '.join(usual)} is usual"
            )


def _detected(balance: Balance) -> Iterator[BalanceWarning]:
    pairs = balance.confusions()
    judged = pairs.group_by("claimed").agg(
        pl.col("share").sum(), (pl.col("documents").sum() / pl.col("share").sum()).alias("judged")
    )
    mostly = judged.filter(pl.col("share") > MOSTLY, pl.col("judged") > MIN_JUDGED - 0.5).sort("claimed")
    names = dict(described(tuple(pairs["detected"].unique())).select("lang", "name").iter_rows())
    for lang, share, _ in mostly.iter_rows():
        other, documents, top = pairs.filter(pl.col("claimed") == lang).select("detected", "documents", "share").row(0)
        yield BalanceWarning(
            "other_language",
            lang,
            f"{share:.0%} of it, most often as {names[other]} ({lang} -> {other}: {documents:,} documents, {top:.0%})",
        )


def _domains(balance: Balance) -> Iterator[BalanceWarning]:
    for lang, domain, share in _leaders(balance.domains, "domain"):
        yield BalanceWarning("one_domain", lang, f"{share:.0%} of the documents with a URL are from {domain}")


def _copies(balance: Balance) -> Iterator[BalanceWarning]:
    """By what dedup removed as near-duplicates, where it has been; else by what looks alike among some documents."""
    gone = balance.removed.filter(pl.col("step") == "dedup")
    came = _by_lang(pl.concat([gone, _after_dedup(balance)], how="diagonal"))
    near = _by_lang(gone.filter(pl.col("reason") == "near"))
    for lang in sorted(near):
        share = near[lang] / came[lang]
        if share > NEAR_DUPLICATE and near[lang] >= MIN_JUDGED:
            yield BalanceWarning(
                "near_duplicate", lang, f"{share:.0%}, {near[lang]:,} of {came[lang]:,} documents, removed by dedup"
            )
    for lang, looked, repeated in balance.repeated.iter_rows():
        if repeated > NEAR_DUPLICATE * looked and repeated >= MIN_JUDGED:
            yield BalanceWarning(
                "near_duplicate",
                lang,
                f"{repeated / looked:.0%} or more: of {looked:,} documents looked at, {repeated:,} are nearly the same "
                "as another of them",
            )


def _after_dedup(balance: Balance) -> pl.DataFrame:
    stage = next((name for name in ("deduped", "sampled") if name in balance.stages), "")
    return balance.sizes.filter(pl.col("stage") == stage).select("lang", "documents")


def _leaders(frame: pl.DataFrame, column: str) -> list[tuple[str, str, float]]:
    """(lang, value, share) of every language that one value holds more than ``MOSTLY`` of."""
    total = pl.col("documents").sum().over("lang")
    shares = frame.with_columns((pl.col("documents") / total).alias("share"), total.alias("all"))
    shares = shares.filter(pl.col("share") > MOSTLY, pl.col("all") >= MIN_JUDGED).sort("lang")
    return list(shares.select("lang", column, "share").iter_rows())


def _removed(balance: Balance) -> Iterator[BalanceWarning]:
    rows = balance.reasons().filter(pl.col("step") != "sample", pl.col("reason") != "relabelled")
    heavy = balance.table().filter(pl.col("removed_share") > MOSTLY, pl.col("removed") >= MIN_JUDGED).sort("lang")
    for lang, removed, share in heavy.select("lang", "removed", "removed_share").iter_rows():
        own = rows.filter(pl.col("lang") == lang).sort(["documents", "reason"], descending=[True, False])
        parts = ", ".join(f"{count:,} {reason}" for reason, count in own.select("reason", "documents").iter_rows())
        yield BalanceWarning("heavy_removal", lang, f"{share:.0%}, {removed:,} documents ({parts})")
