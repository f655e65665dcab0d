"""A :class:`lola_data.sampling.plan.PlannedSample` for reading: cells of a table, lines below it, CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from lola_data.sampling.plan import PlannedLanguage
from lola_data.text_tables import Column, as_it_is, fitted, readable_bytes, readable_count, readable_share

if TYPE_CHECKING:
    from lola_data.sampling.plan import PlannedSample
    from lola_data.sections import SampleSection

_KNOBS = {
    "proportional": ("total",),
    "temperature": ("alpha", "max_epochs", "total"),
    "unimax": ("max_epochs", "total"),
    "budgets": ("max_epochs",),
}
"""Fields of the section that a method goes by, beside the unit."""


def _epochs(value: float) -> str:
    return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def _columns(planned: PlannedSample) -> list[Column]:
    unit = planned.plan.unit
    amount = readable_bytes if unit == "bytes" else readable_count
    columns = [
        Column("lang", "lang", as_it_is, 99, False),
        Column("name", "name", as_it_is, 50, False),
        Column("documents", "documents", readable_count, 90),
    ]
    if unit != "documents":
        columns.append(Column(unit, unit, amount, 60))
    columns.append(Column("share", "share", readable_share, 80))
    if unit != "documents" or any(row.budget != row.documents_taken for row in planned.rows):
        columns.append(Column("budget", "budget", amount, 70))
    columns.append(Column("taken", "documents_taken", readable_count, 95))
    if any(row.tokens_taken is not None for row in planned.rows):
        columns.append(Column("tokens taken", "tokens_taken", readable_count, 85))
    columns += [Column("target", "target_share", readable_share, 94), Column("epochs", "epochs", _epochs, 93)]
    return columns


def table_cells(planned: PlannedSample, *, width: int | None = None) -> tuple[list[str], list[bool], list[list[str]]]:
    """Headers, which columns are right-aligned, and the rows, totals last. An estimate has a ``~`` before it.

    With a ``width`` (in cells) as many of the less important columns are left out as it takes to fit.
    """
    columns = _columns(planned)
    records = [asdict(row) for row in planned.rows] + [{**planned.totals(), "lang": "total"}]
    cells = [[_cell(record, column) for column in columns] for record in records]

    return fitted(columns, cells, width)


def _cell(record: dict[str, Any], column: Column) -> str:
    value = record.get(column.key)
    if value is None:
        return ""
    return f"{'~' if column.key in record['estimated'] else ''}{column.show(value)}"


def plan_lines(planned: PlannedSample) -> list[str]:
    """What was asked for and what cannot be spent, and how even the corpus is before and after."""
    made = planned.plan
    spent = _amount(made.total - made.unspent, made.unit)
    count = len(planned.rows)
    headline = f"plan: {_asked(planned.section)}: {spent} over {count} language{'' if count == 1 else 's'}"
    if made.unspent:
        total = _amount(made.total, made.unit)
        headline += f"; {_amount(made.unspent, made.unit)} of {total} left unspent: no language may take more"
    lines = [headline]
    lines += [
        f"evenness, {name}: {e.effective_languages:.1f} effective languages of {e.languages}, "
        f"entropy {e.normalised_entropy:.3f} of 1, Gini {e.gini:.3f}, smallest 100 hold "
        f"{readable_share(e.smallest_100_share)}, smallest half {readable_share(e.smallest_half_share)}"
        for name, e in planned.evenness().items()
    ]
    totals = planned.totals()
    if 0 < totals["tokens_of"] < len(planned.rows):
        of = totals["tokens_of_documents"] / max(1, totals["documents"])
        lines.append(
            f"tokens taken: of the {totals['tokens_of']} languages whose tokens are known, "
            f"{readable_share(of)} of all documents"
        )
    if planned.section.method == "lola-v1":
        lines.append(
            "lola-v1: the release itself holds one document less of each language, by an index that was off by one: "
            f"{totals['documents_taken'] - sum(row.documents_taken > 0 for row in planned.rows):,} documents"
        )
    return lines


def _asked(section: SampleSection) -> str:
    values = [(name, getattr(section, name)) for name in _KNOBS.get(section.method, ())]
    told = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in values
        if value is not None
    )
    return f"{section.method} by {section.unit}{f' ({told})' if told else ''}"


def _amount(count: int, unit: str) -> str:
    return readable_bytes(count) if unit == "bytes" else f"{count:,} {unit}"


def to_csv(planned: PlannedSample) -> bytes:
    """All rows, with the fields of :class:`lola_data.sampling.plan.PlannedLanguage` as columns; what is not known is
    empty, and ``estimated`` has names separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(PlannedLanguage)]
    writer.writerow(names)
    for row in planned.rows:
        record = {**asdict(row), "estimated": " ".join(row.estimated)}
        writer.writerow([record[name] for name in names])
    return text.getvalue().encode()
