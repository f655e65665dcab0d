"""Charts of the balance page: a :class:`Balance` in, Vega-Lite specifications with their captions out.

A colour in a specification may be the name of a CSS variable of the page (``var:stage-0``): the page puts in what that
is in the light or the dark scheme before it draws. Charts that have nothing to show are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from lola_data.balance_table import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lola_data.balance import Balance
    from lola_data.balance_table import Grouping

SCRIPT_NAMES = {
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cyrl": "Cyrillic", "Deva": "Devanagari",
    "Ethi": "Ethiopic", "Geor": "Georgian", "Grek": "Greek", "Gujr": "Gujarati", "Guru": "Gurmukhi",
    "Hans": "Han (simplified)", "Hant": "Han (traditional)", "Hebr": "Hebrew", "Jpan": "Japanese", "Khmr": "Khmer",
    "Knda": "Kannada", "Kore": "Korean", "Laoo": "Lao", "Latn": "Latin", "Mlym": "Malayalam", "Mong": "Mongolian",
    "Mymr": "Myanmar", "Orya": "Odia", "Sinh": "Sinhala", "Taml": "Tamil", "Telu": "Telugu", "Thaa": "Thaana",
    "Thai": "Thai", "Tibt": "Tibetan", "Zzzz": "Unknown",
}  # fmt: skip
"""English names of the ISO 15924 codes that a CulturaX language has for its usual script."""

KEPT = "kept"
REASON_COLOURS = {
    KEPT: "var:kept",
    "not_sampled": "var:not-sampled",
    "exact": "var:exact",
    "near": "var:near",
    "url": "var:url",
    "wrong_language": "var:wrong-language",
    "low_score": "var:low-score",
    "empty": "var:empty",
    "relabelled": "var:relabelled",
}
"""Colour of each reason, in the order of the bars: what stays, then what later steps removed, then earlier ones."""
_OTHER_COLOURS = ("var:other-0", "var:other-1", "var:other-2")

_STEP = 18
_GROUPS = 12


@dataclass(frozen=True)
class Chart:
    """One figure: anchor, heading, a sentence on how to read it, what it shows in words, its views by name, and the
    legend, (label, colour, shape) each; the page sets it, so that it wraps on a narrow screen."""

    key: str
    title: str
    caption: str
    summary: str
    views: dict[str, dict[str, Any]]
    legend: tuple[tuple[str, str, str], ...] = ()


def charts(balance: Balance, *, top: int) -> list[Chart]:
    """Every figure that the balance has data for, in the order of the page.

    Args:
        balance: what was counted.
        top: languages drawn, the largest of the first stage.
    """
    table = balance.table().filter(pl.col("first_documents") + pl.col("documents") > 0)
    order = [*(["first_share"] if len(balance.stages) > 1 else []), balance.unit]
    table = table.sort([*order, "lang"], descending=[*[True] * len(order), False])
    shown = table.head(top).with_columns((pl.col("name") + " (" + pl.col("lang") + ")").alias("label"))
    if not shown.height:
        return []
    drawn = (
        f"the {shown.height} largest of {table.height} languages" if shown.height < table.height else "all languages"
    )
    found = [
        _stages(balance, shown, drawn),
        _removed(balance, shown, drawn),
        _shares(balance, shown, drawn),
        _lengths(shown, drawn),
        _groups(balance, "script"),
        _groups(balance, "family"),
    ]
    return [chart for chart in found if chart is not None]


def _stages(balance: Balance, shown: pl.DataFrame, drawn: str) -> Chart:
    several = len(balance.stages) > 1
    stages = [s for s in balance.stages if s in balance.text_stages] or list(balance.stages)
    views: dict[str, dict[str, Any]] = {}
    units = ["bytes", "documents"] if balance.text_stages else ["tokens", "documents"]
    for unit in units:
        rows = [
            {"language": row["label"], "stage": stage, "value": value, "shown": f"{value:,}"}
            for row in shown.iter_rows(named=True)
            for stage in stages
            if (value := row[f"{stage}_{unit}"] if several else row[unit])
        ]
        if rows:
            views[unit] = _spec(_dots(rows, stages, unit, shown["label"]), shown.height)
    largest = shown.row(0, named=True)
    return Chart(
        "stages",
        "Through the stages" if len(stages) > 1 else f"Size of each language, {stages[0]}",
        f"{drawn.capitalize()}, on a logarithmic scale: equal distances are equal factors."
        + (" The bar between the dots is what was lost on the way." if len(stages) > 1 else ""),
        f"Dot chart of {drawn} at {', '.join(stages)}; the largest is {largest['name']} "
        f"with {largest['documents']:,} documents in {balance.subject}.",
        views,
        _stage_legend(stages),
    )


def _removed(balance: Balance, shown: pl.DataFrame, drawn: str) -> Chart | None:
    if not balance.joined or not balance.removed["documents"].sum():
        return None
    labels = dict(shown.select("lang", "label").iter_rows())
    left = balance.reasons().filter(pl.col("lang").is_in(list(labels)))
    gone: dict[str, list[tuple[str, int]]] = {lang: [] for lang in labels}
    for lang, reason, count in left.select("lang", "reason", "documents").iter_rows():
        gone[lang].append((reason, count))
    known = [reason for reason in REASON_COLOURS if reason == KEPT or reason in set(left["reason"])]
    other = sorted(set(left["reason"]) - set(known))
    palette = {**REASON_COLOURS, **{r: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, r in enumerate(other)}}
    reasons = [*known, *other]
    rows: list[dict[str, Any]] = []
    for row in shown.iter_rows(named=True):
        parts = [(KEPT, row["documents"]), *gone[row["lang"]]]
        whole = sum(count for _, count in parts)
        rows.extend(
            {"language": row["label"], "reason": reason, "share": count / whole, "documents": f"{count:,}",
             "rank": reasons.index(reason)}
            for reason, count in parts if count
        )  # fmt: skip
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(height={"band": 0.78})
        .encode(
            y=_languages(shown["label"]),
            x=alt.X("share:Q", stack="zero", title="share of documents", scale=alt.Scale(domain=[0, 1], nice=False),
                    axis=alt.Axis(format="%", tickCount=5, orient="top")),
            color=alt.Color("reason:N", title=None, sort=reasons,
                            scale=alt.Scale(domain=reasons, range=[palette[reason] for reason in reasons]),
                            legend=None),
            order=alt.Order("rank:Q"),
            tooltip=["language:N", "reason:N", "documents:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )  # fmt: skip
    summed = (
        left.group_by("reason").agg(pl.col("documents").sum()).sort(["documents", "reason"], descending=[True, False])
    )
    words = ", ".join(f"{reason} {count:,}" for reason, count in summed.iter_rows())
    return Chart(
        "removed",
        "What removed the rest",
        f"{drawn.capitalize()}: of every document that came in, where it ended. Warm colours: identify; cool ones: "
        "dedup; palest: left out by the sample.",
        f"Stacked bars of {drawn}, documents removed: {words}.",
        {"share of documents": _spec(chart, shown.height)},
        tuple((reason, palette[reason], "square") for reason in reasons),
    )


def _shares(balance: Balance, shown: pl.DataFrame, drawn: str) -> Chart | None:
    ends = list(dict.fromkeys((balance.stages[0], balance.subject)))
    columns = dict(zip(ends, ["first_share", "share"][-len(ends) :], strict=True))
    if balance.plan.height:
        columns["plan"] = "target_share"
    if len(columns) < 2 or shown.height < 2:
        return None
    rows = [
        {"language": row["label"], "stage": name, "value": row[column], "shown": f"{100 * row[column]:.3g}%"}
        for row in shown.iter_rows(named=True)
        for name, column in columns.items()
        if row[column]
    ]
    chart = _dots(rows, list(columns), f"share of {balance.unit}", shown["label"], percent=True)
    first, last = balance.evenness(balance.stages[0]), balance.evenness()
    return Chart(
        "shares",
        "Share before and after",
        f"{drawn.capitalize()}, share of all {balance.unit} on a logarithmic scale. A dot that moved right has gained."
        + (" The plan is the share in training, repeats included." if balance.plan.height else ""),
        f"Dumbbell chart of {drawn}. Effective number of languages: {first.effective_languages:.1f} in "
        f"{balance.stages[0]}, {last.effective_languages:.1f} in {balance.subject}.",
        {"share": _spec(chart, shown.height)},
        _stage_legend(list(columns)),
    )


def _lengths(shown: pl.DataFrame, drawn: str) -> Chart | None:
    known = shown.filter(pl.col("p50_length").is_not_null() & (pl.col("p90_length") > 0))
    if not known.height:
        return None
    rows = [
        {"language": row["label"], "low": max(1.0, row["p10_length"]), "half": max(1.0, row["p50_length"]),
         "high": row["p90_length"], "shown": " / ".join(f"{row[name]:,.0f}" for name, _ in QUANTILES)}
        for row in known.iter_rows(named=True)
    ]  # fmt: skip
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=_languages(known["label"]),
        tooltip=["language:N", alt.Tooltip("shown:N", title="10% / median / 90%")],
    )
    axis = alt.Axis(format="~s", orient="top", values=_ticks(rows, ("low", "high")))
    scale = alt.Scale(type="log", nice=False, padding=8)
    span = base.mark_bar(height=5, cornerRadius=2, color="var:span").encode(
        x=alt.X("low:Q", scale=scale, axis=axis, title="characters a document"), x2="high:Q"
    )
    middle = base.mark_point(filled=True, size=46, opacity=1, color="var:accent").encode(x=alt.X("half:Q", scale=scale))
    longest = known.sort("p50_length", descending=True).row(0, named=True)
    return Chart(
        "lengths",
        "How long documents are",
        f"{drawn.capitalize()}: the dot is the median document, the bar spans the 10th to the 90th percentile.",
        f"Ranges of document length of {drawn}; the longest median is {longest['name']} "
        f"with {longest['p50_length']:,.0f} characters.",
        {"characters": _spec(alt.layer(span, middle), known.height)},
    )


def _groups(balance: Balance, by: Grouping) -> Chart | None:
    table = balance.table(by).filter(pl.col("first_documents") + pl.col("documents") > 0)
    if table.height < 2:
        return None
    ends = list(dict.fromkeys((balance.stages[0], balance.subject)))
    columns = dict(zip(ends, ["first_share", "share"][-len(ends) :], strict=True))
    head, rest = table.head(_GROUPS), table.slice(_GROUPS)
    groups = [
        (SCRIPT_NAMES.get(row[by], row[by]) if by == "script" else row[by], row["languages"],
         [row[column] for column in columns.values()])
        for row in head.iter_rows(named=True)
    ]  # fmt: skip
    if rest.height:
        summed = rest.select("languages", *columns.values()).sum().row(0)
        groups.append((f"{rest.height} others", summed[0], list(summed[1:])))
    labels = [f"{name} · {count}" for name, count, _ in groups]
    rows = [
        {"group": label, "stage": stage, "share": share, "shown": f"{100 * share:.1f}%" if share >= 0.0005 else "<0.1%"}
        for label, (_, _, shares) in zip(labels, groups, strict=True)
        for stage, share in zip(ends, shares, strict=True)
    ]
    widest = max(row["share"] for row in rows)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("group:N", sort=labels, title=None, axis=_label_axis()),
        yOffset=alt.YOffset("stage:N", sort=ends, scale=alt.Scale(paddingInner=0.15)),
        x=alt.X("share:Q", title=f"share of {balance.unit}", axis=alt.Axis(format="%", tickCount=4, orient="top"),
                scale=alt.Scale(domain=[0, min(1.0, widest) * 1.16], nice=False)),
        tooltip=["group:N", "stage:N", alt.Tooltip("share:Q", format=".2%")],
    )  # fmt: skip
    colour = alt.Color("stage:N", title=None, sort=ends, legend=None,
                       scale=alt.Scale(domain=ends, range=_stage_colours(ends)))  # fmt: skip
    bars = base.mark_bar(cornerRadiusEnd=2).encode(color=colour)
    texts = base.mark_text(align="left", dx=4, fontSize=10, color="var:soft").encode(text="shown:N")
    name, count, shares = groups[0]
    return Chart(
        f"by-{by}",
        f"By {by}",
        f"Share of all {balance.unit}; the number after each name is how many languages have documents in "
        f"{balance.subject}." + (" The script is the usual one of the language." if by == "script" else ""),
        f"Bars of {len(groups)} groups; {name} with {count} languages holds {100 * shares[-1]:.1f}%.",
        {"share": _spec(alt.layer(bars, texts), len(groups), step=14 * len(ends) + 8)},
        _stage_legend(ends, "square"),
    )


def _dots(
    rows: list[dict[str, Any]], stages: Sequence[str], unit: str, labels: Iterable[str], *, percent: bool = False
) -> Any:
    """One row a language on a logarithmic axis: a dot for each stage, and a bar from the smallest to the largest."""
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=_languages(labels))
    axis = alt.Axis(format="~%" if percent else "~s", orient="top", values=_ticks(rows, ("value",)))
    scale = alt.Scale(type="log", nice=False, padding=8)
    names = list(stages)
    span = base.mark_rule(strokeWidth=2, color="var:span").encode(
        x=alt.X("min(value):Q", scale=scale, axis=axis, title=unit), x2="max(value):Q"
    )
    colour = alt.Scale(domain=names, range=_stage_colours(names))
    shape = alt.Scale(domain=names, range=_shapes(names))
    dots = base.mark_point(size=52, opacity=1, filled=True).encode(
        x=alt.X("value:Q", scale=scale),
        color=alt.Color("stage:N", title=None, sort=names, legend=None, scale=colour),
        shape=alt.Shape("stage:N", title=None, sort=names, legend=None, scale=shape),
        tooltip=["language:N", "stage:N", alt.Tooltip("shown:N", title=unit)],
    )
    return alt.layer(span, dots)


def _stage_colours(names: Sequence[str]) -> list[str]:
    """From pale to strong as the corpus is worked on; the last stage and the plan have colours of their own."""
    stages = [name for name in names if name != "plan"]
    steps = {1: [3], 2: [0, 3], 3: [0, 2, 3]}.get(len(stages), [min(3, i) for i in range(len(stages))])
    colours = dict(zip(stages, (f"var:stage-{step}" for step in steps), strict=True))
    return [colours.get(name, "var:plan") for name in names]


def _shapes(names: Sequence[str]) -> list[str]:
    """A second mark of each stage beside its colour."""
    stages = [name for name in names if name != "plan"]
    middle = ["square", "triangle-up", "triangle-down", "triangle-left", "triangle-right"]
    shapes = dict(zip(stages, ["circle", *(middle[i % len(middle)] for i in range(len(stages)))], strict=False))
    if len(stages) > 1:
        shapes[stages[-1]] = "diamond"
    return [shapes.get(name, "cross") for name in names]


def _languages(labels: Iterable[str]) -> alt.Y:
    return alt.Y("language:N", sort=list(labels), title=None, axis=_label_axis())


def _label_axis() -> alt.Axis:
    return alt.Axis(labelLimit=150, ticks=False, domain=False, labelPadding=8, grid=False)


def _stage_legend(names: Sequence[str], shape: str | None = None) -> tuple[tuple[str, str, str], ...]:
    if len(names) < 2:
        return ()
    shapes = [shape] * len(names) if shape else _shapes(names)
    return tuple(zip(names, _stage_colours(names), shapes, strict=True))


def _ticks(rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> list[float]:
    """Ticks of a logarithmic axis that never crowd: powers of ten, and steps between them when there are few."""
    values = [row[field] for row in rows for field in fields]
    low, high = min(values), max(values)
    tens = [10.0**power for power in range(-9, 16)]
    spread = high / low
    steps = (
        (1, 1.5, 2, 3, 4, 5, 6, 8) if spread < 5 else (1, 2, 5) if spread < 60 else (1, 3) if spread < 3000 else (1,)
    )
    values = [step * ten for ten in tens for step in steps]
    ticks = [value for value in values if 0.95 * low <= value <= 1.05 * high]
    if len(ticks) > 1 or low == high:
        return ticks or [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _spec(chart: Any, rows: int, *, step: int = _STEP) -> dict[str, Any]:
    """The specification, as wide as its place on the page and as high as its rows need."""
    sized = chart.properties(width="container", height=max(1, rows) * step)
    spec = sized.to_dict()
    # The version is the bundle's business; without these two the page names no address and no theme of altair's.
    spec.pop("$schema", None)
    spec.pop("config", None)
    return spec
