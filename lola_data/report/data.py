"""What the scripts of the page work with: a :class:`Balance` in, one JSON document out.

Languages are numbered in the order of their codes, which is also the order in which
:mod:`lola_data.sampling.methods` breaks ties; every list of counts is in that order. Names are made safe for
reading here; the scripts set them as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from lola_data.balance.table import QUANTILES, described
from lola_data.languages import LANGUAGES
from lola_data.report.charts import KEPT, reason_colours
from lola_data.report.text import visible
from lola_data.sampling import methods as sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.balance.measure import Balance

TOP = 5
"""Domains, scripts and detected languages given of each language."""


def page_data(balance: Balance) -> dict[str, Any]:
    """Keys:

    - ``languages``: (code, name, script, family) each.
    - ``stages``: name, ``text`` (true or false), and lists of ``documents``, ``bytes``, ``characters``, ``tokens``
      where they are counted.
    - ``subject``, ``joined``, and ``unit`` of shares, as in :class:`Balance`.
    - ``left``: (language, step, reason, documents): what did not come through; ``colours`` of the reasons.
    - ``arrived``: documents that identify moved into each language.
    - ``lengths``: 10th, 50th and 90th percentile, or null; ``epochs`` and ``planned`` share, or null.
    - ``years``: (language, year, documents).
    - ``scripts``, ``domains``, ``elsewhere``: (language, value, documents), the first ``TOP`` of each language.
    - ``pools``: what a sample could be drawn from: name, unit, codes, names and sizes, and the rule of LOLA v1.
    """
    languages = described(balance.languages)
    index = {code: number for number, code in enumerate(balance.languages)}
    table = balance.table().sort("lang")
    reasons = balance.reasons().sort(["lang", "documents", "reason"], descending=[False, True, False])
    return _seen(
        {
            "languages": [list(row) for row in languages.iter_rows()],
            "subject": balance.subject,
            "joined": balance.joined,
            "unit": balance.unit,
            "stages": [_stage(balance, stage) for stage in balance.stages],
            "left": [
                [index[lang], step, reason, documents]
                for lang, step, reason, documents in reasons.select("lang", "step", "reason", "documents").iter_rows()
            ],
            "colours": {
                reason: colour for reason, colour in reason_colours(reasons["reason"]).items() if reason != KEPT
            },
            "arrived": [count or 0 for count in table["relabelled_in"]],
            "lengths": [
                None if row[0] is None else list(row) for row in table.select(name for name, _ in QUANTILES).iter_rows()
            ],
            "epochs": table["epochs"].to_list(),
            "planned": table["target_share"].to_list(),
            "years": [
                [index[lang], year, count] for lang, year, count in balance.years.sort("lang", "year").iter_rows()
            ],
            "scripts": _top(balance.scripts, "script", index),
            "domains": _top(balance.domains, "domain", index),
            "elsewhere": _elsewhere(balance, index),
            "pools": _pools(balance, languages),
        }
    )


def _stage(balance: Balance, stage: str) -> dict[str, Any]:
    text = stage in balance.text_stages
    units = ("documents", "bytes", "characters") if text else ("documents", "tokens")
    sizes = balance.sizes.filter(pl.col("stage") == stage).group_by("lang").agg(pl.col(unit).sum() for unit in units)
    whole = pl.DataFrame({"lang": balance.languages}, schema={"lang": pl.String}).join(sizes, on="lang", how="left")
    return {"name": stage, "text": text} | {unit: whole[unit].fill_null(0).to_list() for unit in units}


def _top(frame: pl.DataFrame, column: str, index: dict[str, int]) -> list[list[Any]]:
    ranked = frame.sort(["lang", "documents", column], descending=[False, True, False])
    head = ranked.group_by("lang", maintain_order=True).head(TOP)
    return [[index[lang], *rest] for lang, *rest in head.select("lang", column, "documents").iter_rows()]


def _elsewhere(balance: Balance, index: dict[str, int]) -> list[list[Any]]:
    pairs = balance.confusions().rename({"claimed": "lang"})
    names = dict(described(tuple(sorted(set(pairs["detected"])))).select("lang", "name").iter_rows())
    return [[lang, names[code], documents] for lang, code, documents in _top(pairs, "detected", index)]


def _pools(balance: Balance, languages: pl.DataFrame) -> list[dict[str, Any]]:
    """The trees a sample could be drawn from: what the sample stage reads, and CulturaX as published."""
    stage = "deduped" if "deduped" in balance.stages else balance.subject
    counts = _stage(balance, stage)
    units = [balance.unit, "documents"]
    if balance.tokenizer is not None and stage == balance.subject:
        counts["tokens"] = balance.table().sort("lang")["tokens"].to_list()
        units.append("tokens")
    codes, names = languages["lang"].to_list(), languages["name"].to_list()
    pools = [_pool(f"{stage}, {unit}", unit, codes, names, counts[unit]) for unit in units]
    published = sorted(LANGUAGES)
    return [
        *pools,
        _pool(
            "CulturaX as published, documents",
            "documents",
            published,
            [LANGUAGES[code].name for code in published],
            [LANGUAGES[code].documents for code in published],
        ),
    ]


def _pool(name: str, unit: str, codes: list[str], names: list[str], sizes: Sequence[int]) -> dict[str, Any]:
    floor = sampling.LOLA_V1_FLOOR
    percent = [sampling.LOLA_V1_PERCENT.get(code, sampling.LOLA_V1_OTHER_PERCENT) for code in codes]
    return {"name": name, "unit": unit, "codes": codes, "names": names, "sizes": list(sizes), "percent": percent,
            "floor": floor}  # fmt: skip


def _seen(value: Any) -> Any:
    """``value`` with every string in it made safe for reading."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _seen(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_seen(one) for one in value]
    return value
