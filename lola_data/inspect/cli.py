"""Command ``inspect``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lola_data.errors import RecipeError
from lola_data.inspect.here import means_document, workdir_here

if TYPE_CHECKING:
    from lola_data.inspect.documents import Seen
    from lola_data.inspect.trace import Journey

TERMINAL_CHARACTERS = 600
PAGE_CHARACTERS = 5000


@click.command()
@click.argument("path", metavar="[PATH]", required=False)
@click.argument("document", metavar="[ID]", required=False)
@click.option("--id", "other", metavar="ID", help="The same as ID.")
@click.option("--lang", "languages", metavar="A,B,...", multiple=True, help="Only these languages  [default: all].")
@click.option("--removed", is_flag=True, help="Read what was removed, with the text that was kept instead.")
@click.option("--reason", "reasons", metavar="REASON", multiple=True,
              help="Only what was removed for this: near, exact, url, wrong_language, ...")  # fmt: skip
@click.option("--n", "count", type=click.IntRange(min=1), default=20, show_default=True, help="Documents to read.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another one shows other documents.")
@click.option("--max-chars", type=click.IntRange(min=0), metavar="N",
              help="Characters shown of a text; 0: all  [default: 600; 5000 in a page; all in JSON].")  # fmt: skip
@click.option("--raw", metavar="PATH", help="The raw shards of a work folder that were left where they are.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write a page that opens offline instead.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def inspect(
    path: str | None,
    document: str | None,
    other: str | None,
    languages: tuple[str, ...],
    removed: bool,
    reasons: tuple[str, ...],
    count: int,
    seed: int,
    max_chars: int | None,
    raw: str | None,
    html_path: str | None,
    as_json: bool,
) -> None:
    """Read random documents, or follow one through the stages.

    PATH is the work folder of a run (its last tree of text is read), any tree of it, a folder of <language>/*.parquet,
    one language of it, one .parquet file, a folder of token shards, or a URL (s3://...).

    With an ID, <language>/<shard>/<row>: where that document of a work folder came from, its scores, whether it was
    removed, where, why and for which other one, and its tokens.

    Without PATH: the work folder that this folder is or lies in, or the only one below it.

    \b
    Examples:
      lola-data inspect work/demo --lang yo --n 5
      lola-data inspect work/demo --removed --reason near-duplicate
      lola-data inspect work/demo/raw --seed 7 --html raw.html
      lola-data inspect work/demo de/de_part_00000/370
      lola-data inspect de/de_part_00000/370

    Every document is as likely as any other; the same seed shows the same ones. What a run removed, summed up:
    `lola-data diff WORKDIR`.
    """
    if document is not None and other is not None and document != other:
        raise RecipeError(f"two ids, {document} and --id {other}; give one")
    wanted = document or other
    if wanted is None and (path is None or means_document(path)):
        path, wanted = None, path
    path = path or workdir_here(Path.cwd())
    most = _most(max_chars, html_path is not None, as_json)
    if wanted is None:
        _inspect_sample(path, languages, removed or bool(reasons), reasons, count, seed, most, raw, html_path, as_json)
        return
    if removed or reasons or languages:
        raise RecipeError(f"{wanted}: a document is followed by its id alone; leave --lang, --removed and --reason out")
    _inspect_one(path, wanted, most, raw, html_path, as_json)


def _most(given: int | None, page: bool, as_json: bool) -> int | None:
    if given is not None:
        return given or None
    if as_json:
        return None
    return PAGE_CHARACTERS if page else TERMINAL_CHARACTERS


def _inspect_sample(
    path: str,
    languages: tuple[str, ...],
    removed: bool,
    reasons: tuple[str, ...],
    count: int,
    seed: int,
    most: int | None,
    raw: str | None,
    html_path: str | None,
    as_json: bool,
) -> None:
    from lola_data.inspect.documents import sample_documents
    from lola_data.inspect.places import check_languages, find_places
    from lola_data.section_options import split_codes

    places = find_places(path, removed=removed)
    codes = [code for given in languages for code in split_codes(given)]
    check_languages(places, codes, path)
    places = [place for place in (place.of(codes) for place in places) if place.shards]
    found, total = sample_documents(places, count, seed, reasons=reasons, raw=raw)
    what = "removed documents" if places[0].kind == "removed" else "documents"
    names = " and ".join(place.name for place in places)
    title = f"{len(found):,} of {total:,} {what}"
    note = f"{names}, seed {seed}"
    if html_path is not None:
        from lola_data.inspect.page import documents_page, write_page

        write_page(html_path, documents_page(found, title, f"{path}: {note}", most))
        click.echo(f"written: {html_path}", err=True)
    if as_json:
        from lola_data.inspect.to_json import documents_json

        _echo_json(documents_json(found, total, seed, most))
    elif html_path is None:
        _print_sample(found, title, note, most)


def _print_sample(found: list[Seen], title: str, note: str, most: int | None) -> None:
    from lola_data.inspect.lines import BLANK, document_lines, heading, print_lines

    colour = sys.stdout.isatty()
    for number, seen in enumerate(found, 1):
        print_lines([*document_lines(seen, number, len(found), most, colour=colour), BLANK])
    print_lines([heading(title, f"{note}; --seed N shows others")])


def _inspect_one(
    path: str, wanted: str, most: int | None, raw: str | None, html_path: str | None, as_json: bool
) -> None:
    from lola_data.inspect.documents import run_layout
    from lola_data.inspect.places import find_places, work_folder
    from lola_data.inspect.trace import trace

    workdir = work_folder(path) or find_places(path)[0].workdir
    if workdir is None:
        raise RecipeError(f"{path}: not the work folder of a run; a document is followed through the stages of one")
    journey: Journey = trace(run_layout(workdir, raw), wanted)
    if html_path is not None:
        from lola_data.inspect.page import journey_page, write_page

        write_page(html_path, journey_page(journey, path, most))
        click.echo(f"written: {html_path}", err=True)
    if as_json:
        from lola_data.inspect.to_json import journey_json

        _echo_json(journey_json(journey, most))
    elif html_path is None:
        from lola_data.inspect.lines import journey_lines, print_lines

        print_lines(journey_lines(journey, most, colour=sys.stdout.isatty()))


def _echo_json(value: object) -> None:
    from lola_data.shown_text import harmless_json

    click.echo(harmless_json(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)))
