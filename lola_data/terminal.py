"""What commands show people on a terminal: bars on long work, tables in colour. Scripts get plain text instead."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lola_data.text_tables import Cells


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that is told (bytes done, bytes in all); None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(cells: Callable[[int], Cells], lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """A table in the width of the terminal, its last row bold, and lines below it.

    Args:
        cells: gives the table for a width.
        lines: printed below it.
        warnings: printed after them, in yellow.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    headers, right, rows = cells(console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", collapse_padding=True)
    for header, is_right in zip(headers, right, strict=True):
        table.add_column(header, justify="right" if is_right else "left", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(*map(Text, row), style="bold" if number == len(rows) - 1 else None)
    console.print(table)
    console.print()
    for line in lines:
        console.print(Text(line))
    for line in warnings:
        console.print(Text(line, style="yellow"))
