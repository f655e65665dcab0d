"""Command ``tokenizer``: ``train``, ``report`` and ``encode``."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lola_data import storage
from lola_data.errors import RecipeError
from lola_data.layout import Layout
from lola_data.section_options import section_options, section_values, split_codes
from lola_data.sections import TokenizerSection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizer.fairness import Fairness

REPORT_BYTES = 200_000
"""Text of each language that is measured, unless told otherwise."""


@click.group()
def tokenizer() -> None:
    """Train a SentencePiece tokenizer on a balanced sample, measure it in every language, try it on a text."""


@tokenizer.command()
@click.argument("tree", required=False)
@click.option("--out", metavar="DIR", help="Folder for tokenizer.model, tokenizer.vocab and the card.")
@click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="Options, TREE and DIR as it has them.")
@section_options(TokenizerSection)
@click.option("--languages", metavar="A,B,...", help="Only these languages  [default: all in TREE].")
@click.option("--seed", type=int, help="Of the choice of documents  [default: 1234].")
@click.option("--report/--no-report", default=True, help="Measure every language afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print the card, and the report, as one JSON document on stdout.")
def train(
    tree: str | None, out: str | None, recipe_path: Path | None, languages: str | None, seed: int | None, report: bool,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train on TREE, a folder or URL of <lang>/*.parquet with a column `text`.

    The same text, options and seed give the same model, whatever the shards and threads.

    \b
    Examples:
      lola-data tokenizer train work/demo/sampled --out work/tokenizer --vocab-size 8000 --train-bytes 10000000
      lola-data tokenizer train s3://bucket/sampled --out tok --vocab-size 128000 --memory-limit-mb 64000
      lola-data tokenizer train --recipe my.yaml
    """
    from lola_data.recipe import load_recipe, parse_recipe
    from tokenizer.sample import tree_source
    from tokenizer.train import make_tokenizer

    given = section_values(TokenizerSection, options)
    overrides = [f"tokenizer.{key}={json.dumps(value)}" for key, value in given.items()]
    if seed is not None:
        overrides.append(f"seed={seed}")
    if recipe_path is not None:
        recipe = load_recipe(recipe_path, overrides=overrides)
        tree = tree or Layout(recipe.workdir).tree("sample")
        out = out or Layout(recipe.workdir).tree("tokenizer")
    else:
        recipe = parse_recipe("", name="tokenizer train", overrides=overrides)
    if out is None or (tree is None and not recipe.tokenizer.model):
        raise click.UsageError("name TREE (text to train on) and --out, or give --recipe")
    if storage.exists(storage.join(out, "manifest.json")):
        raise RecipeError(
            f"{out}: the tokenizer of a run, which its token shards depend on; name another --out, or make it anew "
            f"with `lola-data run RECIPE --only tokenizer --redo tokenizer`"
        )
    codes = recipe.selected if languages is None else split_codes(languages)
    with _working("training"):
        source = {} if recipe.tokenizer.model else tree_source(tree or "", codes)
        card = make_tokenizer(recipe.tokenizer, source, out, seed=recipe.seed)
    rows: list[Fairness] = []
    if report and tree is not None:
        with _working("measuring"):
            rows = _measure(f"{out}/tokenizer.model", tree, codes, REPORT_BYTES, "en")
    if as_json:
        click.echo(json.dumps({"card": card.to_json(), "report": [row.to_json() for row in rows]}, ensure_ascii=False))
        return
    if rows:
        _print(rows, "en")
    if card.languages:
        used = sum(language.used_bytes for language in card.languages.values())
        click.echo(f"{card.vocab_size:,} pieces from {used:,} bytes in {len(card.languages)} languages")
        click.echo(f"bytes dropped per language: {max(lang.bytes_dropped for lang in card.languages.values())}")
    click.echo(f"written: {out}/tokenizer.model, tokenizer.vocab, card.json, card.md", err=True)


@tokenizer.command()
@click.argument("model")
@click.argument("tree")
@click.option("--languages", metavar="A,B,...", help="Only these languages  [default: all in TREE].")
@click.option("--reference", default="en", show_default=True, metavar="LANG", help="Parity is measured against this.")
@click.option("--bytes", "max_bytes", type=click.IntRange(min=1), default=REPORT_BYTES, show_default=True,
              help="Text of each language to measure.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout instead of the table.")
def report(model: str, tree: str, languages: str | None, reference: str, max_bytes: int, as_json: bool) -> None:
    """Measure MODEL on TREE: tokens per word, byte fallback, parity and round trip of every language.

    \b
    Example:
      lola-data tokenizer report work/demo/tokenizer/tokenizer.model work/demo/sampled --json
    """
    with _working("measuring"):
        rows = _measure(model, tree, None if languages is None else split_codes(languages), max_bytes, reference)
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], ensure_ascii=False, indent=1))
    else:
        _print(rows, reference)


@tokenizer.command()
@click.argument("model")
@click.option("--text", help="Text to encode  [default: standard input].")
@click.option("--json", "as_json", is_flag=True, help="Ids and pieces as one JSON document.")
def encode(model: str, text: str | None, as_json: bool) -> None:
    """Show how MODEL splits a text, piece by piece.

    \b
    Example:
      lola-data tokenizer encode work/demo/tokenizer/tokenizer.model --text "Habari ya dunia"
    """
    import pyarrow as pa

    from tokenizer.encode import Encoder

    encoder = Encoder(model)
    content = text if text is not None else _standard_input()
    ids = encoder.encode(pa.array([content]))[0].tolist()
    pieces = [encoder.piece(token) for token in ids]
    if as_json:
        click.echo(json.dumps({"ids": ids, "pieces": pieces}, ensure_ascii=False))
        return
    click.echo(" ".join(map(str, ids)))
    click.echo(" ".join(pieces))
    click.echo(f"{len(ids)} tokens, {len(content)} characters, {len(content.encode())} bytes", err=True)


def _standard_input() -> str:
    from lola_data.errors import ShardError

    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise ShardError("standard input is closed; give the text with --text")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise ShardError(f"standard input is not valid UTF-8 at byte {error.start}; convert it first") from error


def _measure(model: str, tree: str, languages: list[str] | None, max_bytes: int, reference: str) -> list[Fairness]:
    from tokenizer.encode import Encoder
    from tokenizer.fairness import head_of, measure_fairness
    from tokenizer.sample import tree_source

    source = tree_source(tree, languages)
    return measure_fairness(Encoder(model), head_of(source, max_bytes), reference=reference)


def _print(rows: list[Fairness], reference: str) -> None:
    from tokenizer.report import HEADERS, plain_table, summary, table_rows

    cells = table_rows(rows)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for number, header in enumerate(HEADERS):
            table.add_column(header, justify="right" if number else "left")
        for row in cells:
            table.add_row(*row)
        Console().print(table)
    else:
        click.echo(plain_table(cells))
    click.echo("\n".join(["", *summary(rows, reference=reference)]))


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A spinner on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ..."):
        yield
