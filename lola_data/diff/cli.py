"""Command ``diff``."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lola_data.diff.views import View

TERMINAL_CHARACTERS = 300
PAGE_CHARACTERS = 3000


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@click.option("--by", type=click.Choice(["language", "source", "reason"]), default="language", show_default=True,
              help="What a row of the table is; reason: of what work folders removed.")  # fmt: skip
@click.option("--lang", "languages", metavar="A,B,...", multiple=True, help="Only these languages  [default: all].")
@click.option("--match", "match_by", type=click.Choice(["id", "text"]),
              help="What documents are known by  [default: id where both sides have it].")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=0), default=3, show_default=True, metavar="N",
              help="Documents shown of each kind, from as many languages as there are.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Another one shows other documents.")
@click.option("--max-chars", type=click.IntRange(min=0), metavar="N",
              help="Characters shown of a text; 0: all  [default: 300; 3000 in a page; all in JSON].")  # fmt: skip
@click.option("--raw", metavar="PATH", help="The raw shards of a work folder that were left where they are.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write a page that opens offline instead.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def diff(
    first: str,
    second: str | None,
    by: Literal["language", "source", "reason"],
    languages: tuple[str, ...],
    match_by: Literal["id", "text"] | None,
    samples: int,
    seed: int,
    max_chars: int | None,
    raw: str | None,
    html_path: str | None,
    as_json: bool,
) -> None:
    """What came, went and changed between two corpora, or what one run removed.

    A and B are two trees of <language>/*.parquet (any stage, raw shards, another tool's), or two work folders: then
    also which settings differ, and what each stage kept and removed. One work folder alone: its removal audit, by
    language, source or reason, with texts that were removed beside those that were kept instead.

    \b
    Examples:
      lola-data diff work/demo
      lola-data diff work/demo --by reason --samples 5 --lang yo
      lola-data diff work/demo work/threshold-0.7 --html diff.html
      lola-data diff work/demo/raw /data/other --match text --by source --json

    Documents are known by their ids where both sides have them, else by their texts: an edited text is then one that
    went and one that came.
    """
    from lola_data.diff.views import Options, compared
    from lola_data.section_options import split_codes

    codes = [code for given in languages for code in split_codes(given)]
    options = Options(by, codes, match_by, samples, seed, raw)
    with _progress() as progress:
        view = compared(first, second, options, progress)
    if html_path is not None:
        _write(view, html_path, PAGE_CHARACTERS if max_chars is None else max_chars or None)
    if as_json:
        from lola_data.shown_text import harmless_json

        click.echo(harmless_json(json.dumps(view.value, ensure_ascii=False, indent=1, allow_nan=False)))
    elif html_path is None:
        _print(view, TERMINAL_CHARACTERS if max_chars is None else max_chars or None)


def _write(view: View, path: str, most: int | None) -> None:
    from lola_data.diff.page import diff_page
    from lola_data.inspect.page import write_page

    page = diff_page(view.title, view.lead, view.tables, most, samples=view.samples, removed=view.removed)
    write_page(path, page)
    click.echo(f"written: {path}", err=True)


def _print(view: View, most: int | None) -> None:
    from lola_data.diff.lines import sample_lines, table_lines
    from lola_data.inspect.lines import BLANK, document_lines, heading, print_lines
    from lola_data.shown_text import plain

    colour = sys.stdout.isatty()
    shown = [heading(view.title, plain(view.lead)), BLANK]
    for table in view.tables:
        shown += table_lines(table)
    for sample in view.samples:
        shown += [*sample_lines(sample, most, colour=colour), BLANK]
    for number, seen in enumerate(view.removed, 1):
        shown += [*document_lines(seen, number, len(view.removed), most, colour=colour), BLANK]
    if view.hint:
        shown.append(heading("read more of them:", plain(view.hint)))
    print_lines(shown)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr when that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("reading shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
