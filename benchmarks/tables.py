"""Tables in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table, its columns lined up; the first line is the heading.

    >>> print(markdown_table([("a", "b|"), ("cde", "")]))
    | a   | b/ |
    | --- | -- |
    | cde |    |
    """
    cleaned = [[cell.replace("|", "/") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cleaned) for column in range(len(cleaned[0]))]
    rows = [cleaned[0], ["-" * width for width in widths], *cleaned[1:]]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    )
