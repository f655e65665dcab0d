"""Command ``balance``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from polars import DataFrame

    from lola_data.balance.measure import Balance
    from lola_data.balance.table import Grouping
    from lola_data.balance.warnings import BalanceWarning


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--by", type=click.Choice(["language", "script", "family", "source", "domain"]), default="language",
              show_default=True, help="What a row of the table is.")  # fmt: skip
@click.option("--tokens", "tokenizer", metavar="TOKENIZER",
              help="A SentencePiece .model: estimate the tokens of the texts with it.")  # fmt: skip
@click.option("--exact", is_flag=True,
              help="Read all texts of a large tree too, and encode them all.")  # fmt: skip
@click.option("--against", metavar="OTHER", help="Another corpus, put beside this one.")
@click.option("--raw", metavar="PATH", help="The raw shards of a work folder that were left where they are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of the table.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write all rows and columns as CSV.")  # fmt: skip
@click.option("--html", "html_path", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write a page with charts that opens offline.")  # fmt: skip
@click.option("--title", default="Language balance", show_default=True, help="Title of the page.")
@click.option("--min-documents", type=click.IntRange(min=0), default=100, show_default=True,
              help="Warn of languages with fewer documents.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help="Only the N largest rows in the table; N languages in the charts (default: all; 40).")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Threads (default: one a core, at most 8).")
def balance(
    paths: tuple[str, ...],
    by: Grouping,
    tokenizer: str | None,
    exact: bool,
    against: str | None,
    raw: str | None,
    as_json: bool,
    csv_path: str | None,
    html_path: str | None,
    title: str,
    min_documents: int,
    top: int | None,
    workers: int | None,
) -> None:
    """What each language has: documents, bytes, characters, tokens, shares, and what removed the rest.

    PATH is the work folder of a run (all stages side by side), a folder of <language>/*.parquet, one language of it,
    one .parquet file, a folder of token shards, or a URL (s3://...). Several are compared as stages, in that order.

    \b
    Examples:
      lola-data balance work/demo
      lola-data balance work/demo/raw --by script --top 10
      lola-data balance work/demo --html balance.html --csv balance.csv
      lola-data balance /data/culturax --tokens tokenizer.model
      lola-data balance work/demo/sampled --against /data/other
      lola-data balance work/demo --json | jq '.rows[] | {lang, share, removed_share}'

    Of trees of more than 256 MB only some of the texts are read: what is estimated from them (lengths, characters,
    tokens) has a ~ before it, documents and what hangs on the other columns are counted.

    The layout of the JSON document is described in lola_data.balance.text.to_json; its `format` is 1.
    """
    from lola_data import storage
    from lola_data.balance.measure import measure
    from lola_data.balance.text import json_text
    from lola_data.balance.warnings import warnings_of
    from lola_data.errors import ShardError
    from lola_data.terminal import bytes_bar

    everything = True if exact else None
    with bytes_bar("counting") as progress:
        measured = measure(*paths, raw=raw, workers=workers, exact=everything, tokens=tokenizer, progress=progress)
        other = None
        if against is not None:
            other = measure(against, workers=workers, exact=everything, tokens=tokenizer, progress=progress)
    if csv_path is not None:
        try:
            with storage.atomic_output(csv_path) as handle:
                _csv_table(measured, other, by).write_csv(handle)
        except OSError as error:
            raise ShardError(f"{csv_path}: cannot be written ({error.strerror or error}); name another file") from error
    if html_path is not None:
        from lola_data.report.page import DEFAULT_TOP, write_report

        names = (_short_name(paths[0]), _short_name(against or ""))
        write_report(
            measured,
            html_path,
            title=title,
            top=top or DEFAULT_TOP,
            min_documents=min_documents,
            against=other,
            names=names if names[0] != names[1] else (paths[0], against or ""),
        )
    if as_json:
        from lola_data.shown_text import harmless_json

        told = json_text(measured, by, min_documents=min_documents, against=other, against_name=against or "")
        click.echo(harmless_json(told))
        return
    _print(measured, by, top, warnings_of(measured, min_documents=min_documents))
    if other is not None:
        _print_against(measured, other, against or "", by, top)
    for written in (csv_path, html_path):
        if written is not None:
            click.echo(f"written: {written}", err=True)


def _short_name(path: str) -> str:
    """The last part of a path."""
    return path.rstrip("/").rpartition("/")[2] or path


def _place(steps: list[str], key: tuple[Any, ...]) -> tuple[int, str]:
    return steps.index(key[0]), key[1]


def _csv_table(measured: Balance, other: Balance | None, by: Grouping) -> DataFrame:
    """All rows and columns, and what left by step and reason (``dedup_near``); with another corpus how the two compare,
    and at the end the rows that only it has. Nothing stands where nothing left."""
    import polars as pl

    table = measured.table(by)
    reasons = measured.reasons(by)
    steps = list(dict.fromkeys(["identify", "dedup", "sample", *reasons["step"]]))
    for (step, reason), left in sorted(reasons.group_by(["step", "reason"]), key=lambda part: _place(steps, part[0])):
        counts = left.select(left.columns[0], pl.col("documents").alias(f"{step}_{reason}"))
        table = table.join(counts, on=left.columns[0], how="left", maintain_order="left")
    if other is None:
        return table
    from lola_data.balance.compare import compare

    compared = compare(measured, other, by)
    key = compared.columns[0]
    described = [name for name in ("name", "script", "family") if name in compared.columns and name != key]
    added = [name for name in compared.columns if name not in table.columns]
    joined = table.join(compared.select(key, *added), on=key, how="left", maintain_order="left")
    only_there = compared.join(table, on=key, how="anti", maintain_order="left")
    return pl.concat([joined, only_there.select(key, *described, *added)], how="diagonal")


def _print_against(measured: Balance, other: Balance, name: str, by: Grouping, top: int | None) -> None:
    from lola_data.balance.compare import compare, shared_unit
    from lola_data.balance.compare_text import comparison_cells, comparison_lines
    from lola_data.text_tables import as_it_is, plain_table

    compared = compare(measured, other, by)
    lines = comparison_lines(compared, shared_unit(measured, other, by))
    lines = [as_it_is(line) for line in lines]
    click.echo("\n".join(["", f"against {name}", plain_table(*comparison_cells(compared, top=top)), "", *lines]))


def _print(measured: Balance, by: Grouping, top: int | None, warnings: list[BalanceWarning]) -> None:
    from lola_data.balance.text import (
        content_lines,
        estimate_lines,
        evenness_lines,
        reason_lines,
        table_cells,
        warning_lines,
    )
    from lola_data.text_tables import as_it_is, plain_table

    terminal = sys.stdout.isatty()
    notes = [*estimate_lines(measured), *evenness_lines(measured), *content_lines(measured), *reason_lines(measured)]
    notes = [as_it_is(line) for line in notes]
    told = [as_it_is(line) for line in warning_lines(warnings)]
    if not terminal:
        click.echo("\n".join([plain_table(*table_cells(measured, by, top=top)), "", *notes, *told]))
        return
    from lola_data.terminal import print_table

    print_table(lambda width: table_cells(measured, by, top=top, width=width), notes, told)
