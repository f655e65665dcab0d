"""A :class:`Balance` for reading: aligned text for people, one JSON document for scripts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.cells import cell_len

from lola_data.balance_warnings import KINDS, warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.balance import Balance
    from lola_data.balance_table import Grouping
    from lola_data.balance_warnings import BalanceWarning
    from lola_data.evenness import Evenness

FORMAT = 1
"""Version of the JSON document."""
NAMED = 6
"""Languages that a warning line names before it says how many more there are."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SHORT = ("empty", "few_documents", "one_domain", "unknown_code")
_GAP = "  "


def readable_bytes(size: float) -> str:
    """Size in decimal units with three digits: 999 B, 12.3 kB, 4.00 GB."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if unit == 0:
        return f"{size:.0f} B"
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {_UNITS[unit]}"


def readable_share(share: float) -> str:
    """Per cent with enough digits to tell small shares apart, but never "0" for something: 12.3%, 0.04%, <0.01%."""
    percent = 100 * share
    if percent == 0 or percent >= 9.95:
        return f"{percent:.1f}%"
    return f"{percent:.2f}%" if percent >= 0.01 else "<0.01%"


@dataclass(frozen=True)
class _Column:
    """A column of the table: where its values come from, and how soon it gives way on a narrow terminal."""

    header: str
    key: str
    show: Callable[[Any], str]
    keep: int
    """Columns with the smallest number go first."""
    right: bool = True


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _text(value: str) -> str:
    return value


def _columns(balance: Balance, by: Grouping) -> list[_Column]:
    columns = (
        [
            _Column("lang", "lang", _text, 99, False),
            _Column("name", "name", _text, 88, False),
            _Column("script", "script", _text, 40, False),
            _Column("family", "family", _text, 10, False),
        ]
        if by == "language"
        else [_Column(by, by, _text, 99, False), _Column("languages", "languages", _count, 70)]
    )
    if len(balance.stages) > 1:
        ends = (balance.stages[0], balance.subject)
        columns += [
            _Column(name, f"{name}_documents", _count, 90 if name in ends else 60)
            for name in balance.stages
            if name in balance.text_stages or not balance.text_stages
        ]
    else:
        columns.append(_Column("documents", "documents", _count, 90))
    if balance.text_stages:
        columns.append(_Column("bytes", "bytes", readable_bytes, 85))
    columns += [
        _Column("share", "share", readable_share, 84),
        _Column("target", "target_share", readable_share, 83),
        _Column("epochs", "epochs", lambda value: f"{value:.2f}", 82),
        _Column("relabelled in", "relabelled_in", _count, 46),
        _Column("relabelled out", "relabelled_out", _count, 45),
        _Column("removed", "removed_share", readable_share, 81),
        _Column("other lang", "elsewhere", _count, 50),
        _Column("empty", "empty", _count, 15),
        _Column("mean chars", "mean_length", _count, 20),
        _Column("p50", "p50_length", _count, 30),
        _Column("p90", "p90_length", _count, 29),
        _Column("tokens", "tokens", _count, 75),
        _Column("bytes/token", "bytes_per_token", lambda value: f"{value:.2f}", 25),
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
    shown = frame if top is None else frame.head(top)
    total = balance.totals()
    columns = [
        column
        for column in _columns(balance, by)
        if not column.right or any(value not in (None, 0) for value in frame[column.key])
    ]
    records = [*shown.iter_rows(named=True), {**total, columns[0].key: "total"}]
    cells = [["" if r.get(c.key) is None else c.show(r[c.key]) for c in columns] for r in records]
    if shown.height < frame.height:
        cells.insert(-1, [f"... {frame.height - shown.height:,} more", *[""] * (len(columns) - 1)])

    def widths() -> list[int]:
        return [max(cell_len(c.header), *(cell_len(row[i]) for row in cells)) for i, c in enumerate(columns)]

    while width is not None and len(columns) > 2 and sum(widths()) + len(_GAP) * (len(columns) - 1) > width:
        gone = min(range(len(columns)), key=lambda i: columns[i].keep)
        del columns[gone]
        for row in cells:
            del row[gone]
    return [column.header for column in columns], [column.right for column in columns], cells


def plain_table(headers: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, a rule under the header and one above the last row; no line is wrapped."""
    widths = [max(cell_len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    # A long label in the first column ("... 12 more") may run into the empty cells beside it.
    widths[0] = max(cell_len(row[0]) for row in (headers, *rows) if not row[0].startswith("..."))

    def line(row: Sequence[str]) -> str:
        spare = [" " * max(0, width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [s + cell if r else cell + s for cell, s, r in zip(row, spare, right, strict=True)]
        return _GAP.join(padded).rstrip()

    rule = _GAP.join("-" * width for width in widths)
    return "\n".join([line(headers), rule, *map(line, rows[:-1]), rule, line(rows[-1])])


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


def to_json(balance: Balance, by: Grouping = "language", *, min_documents: int) -> dict[str, Any]:
    """The balance as one JSON object; every number in it is a plain count or a share in [0, 1].

    Keys: ``format`` (this layout's version), ``stages`` (names in order), ``subject`` (the stage described), ``unit``
    (of shares), ``by``, ``rows`` (one a group) and ``totals`` (columns as in :func:`lola_data.balance_table.table`),
    ``evenness`` (by stage, and ``plan``; fields as in :class:`lola_data.evenness.Evenness`), ``removed`` (group, step,
    reason, documents, bytes), ``confusions`` (claimed, detected, documents, share), ``scripts`` (lang, script,
    documents), ``domains`` (the five largest of a language), ``splits`` (of the token shards) and ``warnings`` (kind,
    lang, detail).
    """
    target = balance.target_evenness()
    ranked = balance.domains.sort(["lang", "documents", "domain"], descending=[False, True, False])
    return {
        "format": FORMAT,
        "stages": list(balance.stages),
        "subject": balance.subject,
        "unit": balance.unit,
        "by": by,
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
        "splits": balance.splits.to_dicts(),
        "warnings": [asdict(warning) for warning in warnings_of(balance, min_documents=min_documents)],
    }


def json_text(balance: Balance, by: Grouping = "language", *, min_documents: int) -> str:
    """:func:`to_json`, written out."""
    return json.dumps(to_json(balance, by, min_documents=min_documents), ensure_ascii=False, indent=1, allow_nan=False)
