"""Row charts of the page: a :class:`Balance` in, rows of marks with their places in per cent out.

A chart is a list of rows, one a language or group: a label, marks on a common axis, and the same in figures. The page
sets them as plain HTML, so they reflow on a narrow screen, follow the colours of the scheme and are read aloud as
text. Charts that have nothing to show are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lola_data.balance.table import QUANTILES
from lola_data.report.scale import LogScale, Tick, log_scale
from lola_data.report.text import short_count
from lola_data.text_tables import readable_bytes, readable_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lola_data.balance.measure import Balance

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
    KEPT: "kept",
    "not_sampled": "not-sampled",
    "exact": "exact",
    "near": "near",
    "url": "url",
    "wrong_language": "wrong-language",
    "low_score": "low-score",
    "empty": "empty",
    "relabelled": "relabelled",
}
"""Colour of each reason, in the order of the bars: what stays, then what later steps removed, then earlier ones."""
_OTHER_COLOURS = ("other-0", "other-1", "other-2")

_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark in the plot of a row.

    Attributes:
        kind: ``bar`` (from the axis), ``ghost`` (a thin bar behind), ``span`` (between two values) or a point:
            ``circle``, ``square``, ``diamond``, ``cross``.
        colour: name of a colour of the page.
        start: left end, or the middle of a point, in per cent of the plot.
        width: per cent; None for a point.
        about: what it is, in words.
    """

    kind: str
    colour: str
    start: float
    width: float | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A label (``name``, and the ``code`` where it differs), marks, and the same in ``figures``. ``before``: the figure
    of the first stage, shown where there is room. ``aside``: read aloud, not shown."""

    name: str
    code: str
    marks: tuple[Mark, ...]
    figures: str
    aside: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows on one axis, with a heading and a note where the chart has several."""

    rows: tuple[Row, ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at a chart: its ``name`` (what is counted), the ticks of its axis, its blocks."""

    name: str
    ticks: tuple[Tick, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure: anchor, heading, a sentence on how to read it, its views, and a legend of (label, colour, kind of
    mark). ``wide``: over the whole width of the page, in columns."""

    key: str
    title: str
    caption: str
    views: tuple[View, ...]
    legend: tuple[tuple[str, str, str], ...] = ()
    wide: bool = False


def charts(balance: Balance, *, top: int) -> list[Chart]:
    """Every figure that the balance has data for, in the order of the page.

    Args:
        balance: what was counted.
        top: languages in the charts that have not all of them, the largest of the first stage.
    """
    table = balance.table().filter(pl.col("first_documents") + pl.col("documents") > 0)
    order = [*(["first_share"] if len(balance.stages) > 1 else []), balance.unit]
    table = table.sort([*order, "lang"], descending=[*[True] * len(order), False])
    if not table.height:
        return []
    shown = table.head(top)
    drawn = largest(shown.height, table.height)
    found = [
        _sizes(balance, table),
        _shares(balance, shown, drawn),
        _removed(balance, shown, drawn),
        _lengths(shown, drawn),
        _scripts(balance),
    ]
    return [chart for chart in found if chart is not None]


def largest(shown: int, there: int) -> str:
    """How a caption begins that tells which languages are drawn."""
    return f"The {shown} largest of {there} languages" if shown < there else "Every language"


def readers(balance: Balance) -> dict[str, Callable[[float], str]]:
    """What can be counted of a language, in the order of the page, and how a count of it is written."""
    if not balance.text_stages:
        return {"tokens": short_count, "documents": short_count}
    found: dict[str, Callable[[float], str]] = {"bytes": readable_bytes, "documents": short_count}
    return found | {"tokens": short_count} if balance.token_stage or balance.tokenizer else found


def _sizes(balance: Balance, table: pl.DataFrame) -> Chart:
    several = len(balance.stages) > 1
    subject = balance.subject
    views: list[View] = []
    for unit, written in readers(balance).items():
        # Of the first stage there are tokens only if it is token shards itself.
        first = f"{balance.stages[0]}_{unit}" if several and f"{balance.stages[0]}_{unit}" in table.columns else None
        values = [*table[unit], *(table[first] if first else [])]
        scale = log_scale((value or 0 for value in values), written, gap=40.0)  # three plots beside each other
        blocks = tuple(_families(table, unit, first, scale, written, balance.stages[0]))
        views.append(View(unit, scale.ticks, blocks))
    families = table["family"].n_unique()
    languages = "1 language" if table.height == 1 else f"{table.height} languages"
    groups = "1 family" if families == 1 else f"{families} families"
    return Chart(
        "sizes",
        "Size of each language, by family",
        f"{languages} of {groups}, on a logarithmic scale: equal distances are equal factors."
        + (f" The thin bar is {balance.stages[0]}, the thick one {subject}." if several else ""),
        tuple(views),
        ((balance.stages[0], "first", "bar"), (subject, "subject", "bar")) if several else (),
        wide=True,
    )


def _families(
    table: pl.DataFrame, unit: str, first: str | None, scale: LogScale, written: Callable[[float], str], first_name: str
) -> Iterable[Block]:
    """A block a family, largest first; the families of one language share the last."""
    total = sum(table[unit].fill_null(0)) or 1
    ranked = table.with_columns(pl.col(unit).fill_null(0)).sort([unit, "lang"], descending=[True, False])
    groups = ranked.partition_by("family", maintain_order=True)
    groups.sort(key=lambda group: (-sum(group[unit]), group["family"][0]))
    alone = [group for group in groups if group.height == 1]
    if len(alone) > 1:
        groups = [group for group in groups if group.height > 1] + [pl.concat(alone)]
    for group in groups:
        rows: list[Row] = []
        together = group["family"].n_unique() > 1
        for row in group.iter_rows(named=True):
            value, before = row[unit], (row[first] or 0) if first else 0
            marks: list[Mark] = []
            if before > 0:
                marks.append(Mark("ghost", "first", 0.0, scale.at(before)))
            if value > 0:
                marks.append(Mark("bar", "subject", 0.0, scale.at(value)))
            aside = f"of {written(before)} in {first_name}" if first else ""
            if together and row["family"] != row["name"]:
                aside = f"{aside}; family {row['family']}".removeprefix("; ")
            low, high = row.get(f"{unit}_low"), row.get(f"{unit}_high")
            sign = "~" if low != high else ""
            rows.append(Row(row["name"], row["lang"], tuple(marks), sign + written(value), aside))
        share = readable_share(sum(group[unit]) / total)
        count = "1 language" if group.height == 1 else f"{group.height} languages"
        title = "Families of one language" if together else group["family"][0]
        yield Block(tuple(rows), title, f"{count}, {share}")


def _shares(balance: Balance, shown: pl.DataFrame, drawn: str) -> Chart | None:
    first, subject = balance.stages[0], balance.subject
    columns = {"first_share": first, "share": subject} if len(balance.stages) > 1 else {"share": subject}
    if balance.plan.height:
        columns["target_share"] = "plan"
    if len(columns) < 2 or shown.height < 2:
        return None
    looks = {
        "first_share": ("first", "circle"), "share": ("subject", "diamond"), "target_share": ("plan", "cross"),
    }  # fmt: skip
    scale = log_scale(
        (row[c] or 0 for row in shown.iter_rows(named=True) for c in columns), _percent, gap=30.0, whole=False
    )
    rows: list[Row] = []
    for row in shown.iter_rows(named=True):
        known = {column: row[column] for column in columns if row[column]}
        places = [scale.at(share) for share in known.values()]
        marks = [Mark("span", "span", min(places), round(max(places) - min(places), 2))] if len(places) > 1 else []
        marks += [
            Mark(
                looks[column][1], looks[column][0], scale.at(share), about=f"{columns[column]} {readable_share(share)}"
            )
            for column, share in known.items()
        ]
        planned = f"plan {readable_share(row['target_share'] or 0)}" if "target_share" in columns else ""
        was = readable_share(row["first_share"] or 0) if "first_share" in columns else ""
        rows.append(Row(row["name"], row["lang"], tuple(marks), readable_share(row["share"] or 0), planned, was))
    before, after = balance.evenness(first), balance.evenness()
    return Chart(
        "shares",
        "Share before and after",
        f"{drawn}: share of all {balance.unit} on a logarithmic scale. A mark that moved right has gained."
        + (" The plan is the share in training, repeats included." if "target_share" in columns else "")
        + f" Effective number of languages: {before.effective_languages:.1f} in {first}"
        + (f", {after.effective_languages:.1f} in {subject}." if len(balance.stages) > 1 else "."),
        (View("share", scale.ticks, (Block(tuple(rows)),)),),
        tuple((name, *looks[column]) for column, name in columns.items()),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _removed(balance: Balance, shown: pl.DataFrame, drawn: str) -> Chart | None:
    if not balance.joined or not balance.removed["documents"].sum():
        return None
    languages = list(shown["lang"])
    left = balance.reasons().filter(pl.col("lang").is_in(languages))
    palette = reason_colours(left["reason"])
    gone: dict[str, list[tuple[str, int]]] = {lang: [] for lang in languages}
    for lang, reason, count in left.select("lang", "reason", "documents").iter_rows():
        gone[lang].append((reason, count))
    rows: list[Row] = []
    for row in shown.iter_rows(named=True):
        counts = dict.fromkeys(palette, 0)
        for reason, count in [(KEPT, row["documents"]), *gone[row["lang"]]]:
            counts[reason] += count
        whole = sum(counts.values()) or 1
        marks: list[Mark] = []
        start = 0.0
        for reason, count in counts.items():
            if count:
                width = 100 * count / whole
                about = f"{reason.replace('_', ' ')} {count:,} ({readable_share(count / whole)})"
                marks.append(Mark("part", palette[reason], round(start, 2), round(width, 2), about))
                start += width
        aside = "; ".join(mark.about for mark in marks)
        rows.append(Row(row["name"], row["lang"], tuple(marks), readable_share(counts[KEPT] / whole), aside))
    ticks = tuple(Tick(at, f"{at}%") for at in (0, 25, 50, 75, 100))
    return Chart(
        "removed",
        "What removed the rest",
        f"{drawn}: of every document that came in, where it ended, and in figures how much was kept. Warm colours: "
        "identify; cool ones: dedup; the palest: left out by the sample.",
        (View("share of documents", ticks, (Block(tuple(rows)),)),),
        tuple((reason.replace("_", " "), colour, "square") for reason, colour in palette.items()),
    )


def reason_colours(reasons: Iterable[str]) -> dict[str, str]:
    """Colour of ``kept`` and of each of the reasons, in the order of the bars."""
    found = set(reasons)
    known = [reason for reason in REASON_COLOURS if reason == KEPT or reason in found]
    others = sorted(found - set(known))
    more = {reason: _OTHER_COLOURS[number % len(_OTHER_COLOURS)] for number, reason in enumerate(others)}
    return {reason: REASON_COLOURS[reason] for reason in known} | more


def _lengths(shown: pl.DataFrame, drawn: str) -> Chart | None:
    known = shown.filter(pl.col("p50_length").is_not_null() & (pl.col("p90_length") > 0))
    if not known.height:
        return None
    names = [name for name, _ in QUANTILES]
    scale = log_scale((max(1.0, row[name]) for row in known.iter_rows(named=True) for name in names), short_count)
    rows: list[Row] = []
    for row in known.iter_rows(named=True):
        low, half, high = (scale.at(max(1.0, row[name])) for name in names)
        marks = (Mark("span", "span", low, round(high - low, 2)), Mark("circle", "accent", half))
        aside = f"10 % are shorter than {row[names[0]]:,.0f}, 10 % longer than {row[names[2]]:,.0f}"
        rows.append(Row(row["name"], row["lang"], marks, f"{row[names[1]]:,.0f}", aside))
    return Chart(
        "lengths",
        "How long documents are",
        f"{drawn}, in characters on a logarithmic scale: the dot is the median document, which is also given in "
        "figures; the bar spans the 10th to the 90th percentile.",
        (View("characters", scale.ticks, (Block(tuple(rows)),)),),
    )


def _scripts(balance: Balance) -> Chart | None:
    table = balance.table("script").filter(pl.col("first_documents") + pl.col("documents") > 0)
    if table.height < 2:
        return None
    several = len(balance.stages) > 1
    columns = {"first_share": "first", "share": "subject"} if several else {"share": "subject"}
    groups: list[tuple[str, int, Sequence[float]]] = []
    for row in table.head(_GROUPS).iter_rows(named=True):
        script = str(row["script"])
        groups.append((SCRIPT_NAMES.get(script, script), row["languages"], [row[column] for column in columns]))
    rest = table.slice(_GROUPS)
    if rest.height:
        summed = rest.select("languages", *columns).sum().row(0)
        groups.append((f"{rest.height} others", summed[0], summed[1:]))
    widest = max(share for _, _, shares in groups for share in shares) or 1.0
    rows: list[Row] = []
    for name, languages, shares in groups:
        marks = [
            Mark("bar" if colour == "subject" else "ghost", colour, 0.0, round(100 * share / widest, 2))
            for share, colour in zip(shares, columns.values(), strict=True)
        ]
        figures = [readable_share(share) for share in shares]
        rows.append(Row(name, str(languages), tuple(marks), figures[-1], before=figures[0] if several else ""))
    return Chart(
        "scripts",
        "By script",
        f"Share of all {balance.unit}, by the usual script of each language. The number after a name is how many "
        f"languages have documents in {balance.subject}.",
        (View("share", (), (Block(tuple(rows)),)),),
        ((balance.stages[0], "first", "bar"), (balance.subject, "subject", "bar")) if several else (),
    )
