"""A :class:`Balance` for reading: aligned text for people, one JSON document for scripts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from lola_data.balance.compare import compare, distances, shared_unit
from lola_data.balance.estimate import CONFIDENCE
from lola_data.balance.table import LEVELS, MAX_ROWS
from lola_data.balance.warnings import KINDS, warnings_of
from lola_data.text_tables import Column, as_it_is, fitted, readable_bytes, readable_count, readable_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.balance.evenness import Evenness
    from lola_data.balance.measure import Balance
    from lola_data.balance.table import Grouping
    from lola_data.balance.warnings import BalanceWarning

FORMAT = 1
"""Version of the JSON document."""
NAMED = 6
"""Languages that a warning line names before it says how many more there are."""


_SHORT = ("empty", "few_documents", "one_domain", "unknown_code")
_DOMAINS_SHOWN = 50
"""Rows of a table by domain unless told otherwise."""
_NAMED_SCRIPTS = 8


def _columns(balance: Balance, by: Grouping) -> list[Column]:
    if by == "domain":
        return [
            Column("domain", "domain", as_it_is, 99, False),
            Column("languages", "languages", readable_count, 70),
            Column("most in", "lang", as_it_is, 60, False),
            Column("documents", "documents", readable_count, 90),
            Column("share", "share", readable_share, 84),
        ]
    columns = (
        [
            Column("lang", "lang", as_it_is, 99, False),
            Column("name", "name", as_it_is, 88, False),
            Column("script", "script", as_it_is, 40, False),
            Column("family", "family", as_it_is, 10, False),
        ]
        if by == "language"
        else [Column(by, by, as_it_is, 99, False), Column("languages", "languages", readable_count, 70)]
    )
    if len(balance.stages) > 1:
        ends = (balance.stages[0], balance.subject)
        columns += [
            Column(name, f"{name}_documents", readable_count, 90 if name in ends else 60)
            for name in balance.stages
            if name in balance.text_stages or not balance.text_stages
        ]
    else:
        columns.append(Column("documents", "documents", readable_count, 90))
    if balance.text_stages:
        columns.append(Column("bytes", "bytes", readable_bytes, 85))
    columns += [
        Column("share", "share", readable_share, 84),
        Column("target", "target_share", readable_share, 83),
        Column("epochs", "epochs", lambda value: f"{value:.2f}", 82),
        Column("relabelled in", "relabelled_in", readable_count, 46),
        Column("relabelled out", "relabelled_out", readable_count, 45),
        Column("removed", "removed_share", readable_share, 81),
        Column("other lang", "elsewhere", readable_count, 50),
        Column("empty", "empty", readable_count, 15),
        Column("mean chars", "mean_length", readable_count, 20),
        Column("p10", "p10_length", readable_count, 18),
        Column("p50", "p50_length", readable_count, 30),
        Column("p90", "p90_length", readable_count, 29),
        Column("p99", "p99_length", readable_count, 19),
        Column("tokens", "tokens", readable_count, 75),
        Column("bytes/token", "bytes_per_token", lambda value: f"{value:.2f}", 25),
    ]
    return columns


def table_cells(
    balance: Balance, by: Grouping, *, top: int | None = None, width: int | None = None
) -> tuple[list[str], list[bool], list[list[str]]]:
    """Headers, which columns are right-aligned, and the rows: the ``top`` largest groups, the rest counted, totals.

    Columns with nothing in them are left out, and with a ``width`` (in cells) as many of the less important ones as it
    takes to fit.
    """
    frame = balance.table(by)
    if by == "domain":
        top = top or _DOMAINS_SHOWN
    shown = frame if top is None else frame.head(top)
    total = balance.totals()
    if by == "domain":
        total = {"languages": total["languages"], "documents": total["documents"], "share": 1.0}
    estimated = balance.estimated_columns(by)
    columns = [
        column
        for column in _columns(balance, by)
        if not column.right or any(value not in (None, 0) for value in frame[column.key])
    ]
    total = {**total, columns[0].key: "total"}
    records = list(shown.iter_rows(named=True))
    lengths, none = estimated & {name for name, _ in LEVELS}, frozenset[str]()
    always = [lengths if record.get("lang") in balance.effective else none for record in records]
    cells = [
        [shown_cell(record, column, estimated, always=marked) for column in columns]
        for record, marked in zip(records, always, strict=True)
    ]
    # The whole is known better than its sources are.
    cells.append([shown_cell(total, column, balance.estimated_columns() & estimated) for column in columns])
    if shown.height < frame.height:
        cells.insert(-1, [f"... {frame.height - shown.height:,} more", *[""] * (len(columns) - 1)])

    return fitted(columns, cells, width)


def shown_cell(
    record: dict[str, Any],
    column: Column,
    estimated: frozenset[str] = frozenset(),
    *,
    always: frozenset[str] = frozenset(),
) -> str:
    """What stands in the table: nothing for None, ``~`` before an estimate. In columns of ``estimated`` that is what
    has no interval or one of some width (what was read whole has figures there too); in ``always`` it is everything."""
    value = record.get(column.key)
    if value is None:
        return ""
    low, high = (record.get(f"{column.key}_{end}") for end in ("low", "high"))
    marked = column.key in always or (column.key in estimated and (low is None or low != high))
    return f"{'~' if marked else ''}{column.show(value)}"


def evenness_lines(balance: Balance) -> list[str]:
    """One line for the first stage, one for the last, one for what the plan aims at."""
    stages = dict.fromkeys((balance.stages[0], balance.subject))
    figures: list[tuple[str, Evenness | None]] = [(stage, balance.evenness(stage)) for stage in stages]
    figures.append(("plan", balance.target_evenness()))
    return [
        f"evenness, {name}: {e.effective_languages:.1f} effective languages of {e.languages}, "
        f"entropy {e.normalised_entropy:.3f} of 1, Gini {e.gini:.3f}, smallest 100 hold "
        f"{readable_share(e.smallest_100_share)}, smallest half {readable_share(e.smallest_half_share)}"
        for name, e in figures
        if e is not None
    ]


def content_lines(balance: Balance) -> list[str]:
    """One line for the scripts, one for the years; none where nothing is known of them."""
    lines: list[str] = []
    scripts = balance.scripts.group_by("script").agg(pl.col("documents").sum())
    scripts = scripts.sort(["documents", "script"], descending=[True, False])
    if scripts.height:
        total = scripts["documents"].sum()
        parts = ", ".join(f"{name} {readable_share(n / total)}" for name, n in scripts.head(_NAMED_SCRIPTS).iter_rows())
        more = scripts.height - _NAMED_SCRIPTS
        lines.append(f"scripts seen: {parts}{f' and {more} more' if more > 0 else ''}")
    years = balance.years.group_by("year").agg(pl.col("documents").sum()).sort("year")
    if years.height:
        total = years["documents"].sum()
        top, count = years.sort(["documents", "year"], descending=[True, False]).row(0)
        first, last = years["year"][0], years["year"][-1]
        span = f"{first}" if first == last else f"{first} to {last}, most of {top} ({readable_share(count / total)})"
        lines.append(
            f"timestamps: {span}; {readable_share(total / balance.totals()['documents'])} of documents have one"
        )
    return lines


def estimate_lines(balance: Balance) -> list[str]:
    """What the ``~`` in the table means, and how much was read for it."""
    lines: list[str] = []
    read = balance.read.filter(pl.col("stage") == balance.subject)
    if read.height:
        lines.append(
            f"~ estimated from a sample: {readable_bytes(int(read['bytes'].sum()))} of the texts of {read.height} "
            f"languages were read ({read['documents'].sum():,} documents); --json has the 95% intervals, --exact reads "
            "everything"
        )
    encoded = balance.encoded
    if encoded.height:
        some = encoded.filter(pl.col("half_width") > 0)
        how = "all of them" if not some.height else f"{readable_bytes(int(encoded['bytes'].sum()))} of them encoded"
        total, half = encoded["tokens"].sum(), float((encoded["half_width"] ** 2).sum()) ** 0.5
        margin = f", within {readable_share(half / total)} at 95% confidence" if some.height and total else ""
        lines.append(f"tokens of the texts of {balance.subject} by {balance.tokenizer}: {how}{margin}")
    return lines


def reason_lines(balance: Balance) -> list[str]:
    """One line a step: what it removed, by reason."""
    summed = balance.removed.group_by("step", "reason").agg(pl.col("documents").sum())
    lines: list[str] = []
    for step in dict.fromkeys(("identify", "dedup", "sample", *sorted(summed["step"].unique()))):
        own = summed.filter(pl.col("step") == step).sort(["documents", "reason"], descending=[True, False])
        if own.height:
            parts = ", ".join(f"{count:,} {reason}" for reason, count in own.select("reason", "documents").iter_rows())
            lines.append(f"left at {step}: {parts}")
    return lines


def warning_lines(warnings: Sequence[BalanceWarning]) -> list[str]:
    """One line a warning, gravest kind first. Of kinds that many languages share, the languages on one line; of the
    others the first ``NAMED``."""
    lines: list[str] = []
    for kind, title in KINDS.items():
        own = [warning for warning in warnings if warning.kind == kind]
        more = len(own) - NAMED
        if kind in _SHORT and len(own) > 3:
            named = ", ".join(warning.lang for warning in own[:NAMED])
            lines.append(f"warning: {len(own)} languages: {title}: {named}{f' and {more} more' if more > 0 else ''}")
        else:
            lines.extend(f"warning: {warning}" for warning in own[:NAMED])
            if more > 0:
                lines.append(f"warning: {more} more: {title} (--json and --html name them all)")
    return lines


def to_json(
    balance: Balance,
    by: Grouping = "language",
    *,
    min_documents: int,
    against: Balance | None = None,
    against_name: str = "",
) -> dict[str, Any]:
    """The balance as one JSON object; every number in it is a plain count or a share in [0, 1].

    Keys: ``format`` (this layout's version), ``stages`` (names in order), ``subject`` (the stage described),
    ``unit`` (of shares), ``by``, ``rows`` (one a group) and ``totals`` (columns as in
    :func:`lola_data.balance.table.table`), ``evenness`` (by stage, and ``plan``; fields as in
    :class:`lola_data.balance.evenness.Evenness`), ``removed`` (group, step, reason, documents, bytes),
    ``confusions`` (claimed, detected, documents, share), ``scripts`` (lang, script, documents), ``domains`` (the
    five largest of a language), ``years`` (lang, year, documents), ``repeated`` (lang, looked, repeated),
    ``splits`` (of the token shards) and ``warnings`` (kind, lang, detail).

    ``exact`` says whether all was counted; if not, ``estimated`` names the columns of ``rows`` that hold estimates,
    ``confidence`` is that of the intervals beside them (``<column>_low``, ``<column>_high``), and ``read`` says how
    much of the texts was read (stage, lang, documents, bytes). With a tokenizer, ``tokenizer`` is its path and
    ``encoded`` how much was encoded (lang, tokens, half_width, documents, bytes).

    With ``against``: ``against`` has the other's path (``name``), the ``unit`` of shares, ``rows`` (columns as in
    :func:`lola_data.balance.compare.compare`), ``total_variation``, ``jensen_shannon``, ``only_here``,
    ``only_there``.
    """
    target = balance.target_evenness()
    ranked = balance.domains.sort(["lang", "documents", "domain"], descending=[False, True, False])
    more: dict[str, Any] = {}
    if balance.tokenizer is not None:
        more |= {"tokenizer": balance.tokenizer, "encoded": balance.encoded.to_dicts()}
    if against is not None:
        compared = compare(balance, against, by)
        more["against"] = {
            "name": against_name,
            "unit": shared_unit(balance, against, by),
            "rows": compared.head(MAX_ROWS).to_dicts() if by == "domain" else compared.to_dicts(),
            **asdict(distances(compared)),
        }
    return {
        "format": FORMAT,
        "stages": list(balance.stages),
        "subject": balance.subject,
        "unit": balance.unit,
        "by": by,
        "exact": balance.exact,
        "estimated": sorted(balance.estimated_columns(by)),
        "confidence": CONFIDENCE,
        "read": balance.read.to_dicts(),
        "rows": balance.table(by).to_dicts(),
        "totals": balance.totals(),
        "evenness": {
            **{stage: asdict(balance.evenness(stage)) for stage in balance.stages},
            **({} if target is None else {"plan": asdict(target)}),
        },
        "removed": balance.reasons(by).to_dicts(),
        "confusions": balance.confusions().to_dicts(),
        "scripts": balance.scripts.to_dicts(),
        "domains": ranked.group_by("lang", maintain_order=True).head(5).to_dicts(),
        "years": balance.years.to_dicts(),
        "repeated": balance.repeated.to_dicts(),
        "splits": balance.splits.to_dicts(),
        "warnings": [asdict(warning) for warning in warnings_of(balance, min_documents=min_documents)],
        **more,
    }


def json_text(
    balance: Balance,
    by: Grouping = "language",
    *,
    min_documents: int,
    against: Balance | None = None,
    against_name: str = "",
) -> str:
    """:func:`to_json`, written out."""
    found = to_json(balance, by, min_documents=min_documents, against=against, against_name=against_name)
    return json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False)
