"""The fairness of a tokenizer as a table for a terminal.

In: rows of :mod:`tokenizer.fairness`. Out: lines of text, costliest language first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizer.fairness import Fairness

HEADERS = ("language", "documents", "tokens/word", "tokens/char", "bytes/token", "byte fallback", "parity", "failures")


def table_rows(rows: Sequence[Fairness]) -> list[tuple[str, ...]]:
    """One row of cells per language, most tokens per word first."""
    return [
        (
            row.lang,
            f"{row.documents:,}",
            f"{row.tokens_per_word:.2f}",
            f"{row.tokens_per_character:.2f}",
            f"{row.bytes_per_token:.2f}",
            f"{row.fallback_share:.2%}",
            "" if row.parity is None else f"{row.parity:.2f}",
            f"{row.round_trip_failures:,}",
        )
        for row in sorted(rows, key=lambda row: (-row.tokens_per_word, row.lang))
    ]


def summary(rows: Sequence[Fairness], *, reference: str) -> list[str]:
    """What to know of all languages together, in a few lines."""
    documents = sum(row.documents for row in rows)
    failures = sum(row.round_trip_failures for row in rows)
    back = f"{documents - failures:,} of {documents:,} documents"
    lines = [f"round trip: {back} in {len(rows)} languages came back as they were"]
    paying = [row for row in rows if row.parity is not None and row.lang != reference]
    if paying:
        worst = max(paying, key=lambda row: row.parity or 0.0)
        lines.append(f"parity against {reference}: at most {worst.parity:.2f} ({worst.lang})")
    spelled = max(rows, key=lambda row: row.fallback_share, default=None)
    if spelled is not None:
        lines.append(f"byte fallback: at most {spelled.fallback_share:.2%} of the tokens ({spelled.lang})")
    return lines


def plain_table(cells: Sequence[tuple[str, ...]]) -> str:
    """A table without a terminal's help: the first column to the left, the others to the right."""
    table = [HEADERS, *cells]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADERS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
