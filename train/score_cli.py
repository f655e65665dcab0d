"""``lola-data evaluate``."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from train.generate_cli import load, loading_options, precision_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from train.generate import Step
    from train.score import Score

_COLUMNS: tuple[str, ...] = ("lang", "documents", "tokens", "bytes", "loss", "perplexity", "bits_per_byte")


@click.command()
@click.argument("run")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--lang", "languages", metavar="A,B,...", multiple=True, help="Only these languages  [default: all].")
@click.option("--split", metavar="NAME", help="Of a token tree  [default: valid, if it has one].")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of a language, from the first on.")
@click.option("--documents", type=click.IntRange(min=1), metavar="N", help="Most documents of a language.")
@click.option("--per-line", is_flag=True, help="Each line of a .txt file is a document, rather than the file.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
              help="Windows in one forward pass.")  # fmt: skip
@loading_options
@precision_option
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False), metavar="FILE", help="Write the table as CSV too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def evaluate(
    run: str, paths: tuple[str, ...], languages: tuple[str, ...], split: str | None, max_tokens: int | None,
    documents: int | None, per_line: bool, batch_size: int, step: Step, tokenizer: Path | None, device: str,
    precision: str, csv_path: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Perplexity and bits per byte of a checkpoint of RUN, per language, on any text or tokens.

    RUN is a folder or an address on an object store, and so is PATH but for text files.

    PATH is a tree of <language>/*.parquet with a column `text`, one .parquet file, a file of JSON objects with `text`
    (and `lang`, if there are several languages), a .txt file (its name is the language), a token tree or token shard.

    \b
      loss           sum of -ln p(token) / tokens, in nats
      perplexity     exp(loss)
      bits per byte  sum of -ln p(token) / ln 2 / UTF-8 bytes of the text

    Both sums count the end-of-document token behind each document; it has no byte. Windows of the model's length do
    not overlap. The mean gives each language the same weight.

    \b
    Examples:
      lola-data evaluate runs/first work/demo/tokens
      lola-data evaluate runs/first flores/*.txt --per-line --csv flores.csv
      lola-data evaluate runs/first work/demo/sampled --lang de,yo --documents 100 --step best
      lola-data evaluate s3://bucket/corpus/runs/moe s3://bucket/corpus/tokens
    """
    loaded = load(run, tokenizer, step, device, precision)
    from train.score import mean_score, score_documents
    from train.score_input import ScoreInput

    wanted = [lang for given in languages for lang in given.split(",") if lang]
    source = ScoreInput(
        paths, loaded, wanted, split=split, max_tokens=max_tokens, documents=documents, per_line=per_line
    )
    with _shown() as told:
        scores = score_documents(loaded.model, source, rows=batch_size, autocast=loaded.autocast, told=told)
    for lang, skipped in sorted(source.skipped.items()):
        click.echo(f"{lang}: documents skipped: {skipped}", err=True)
    if not scores:
        from lola_data.errors import ShardError

        raise ShardError(f"{', '.join(paths)}: no document to score; name text or tokens that hold some")
    rows = [row_of(lang, score) for lang, score in scores.items()]
    mean = {key: _finite(value) for key, value in mean_score(scores).items()}
    if csv_path is not None:
        write_csv(csv_path, rows)
    if as_json:
        record = {
            "run": run, "step": loaded.step, "paths": list(paths),
            "languages": {row["lang"]: {key: row[key] for key in _COLUMNS[1:]} for row in rows},
            "mean": mean,
            "skipped": {lang: {"invalid": s.invalid, "empty": s.empty} for lang, s in sorted(source.skipped.items())},
        }  # fmt: skip
        click.echo(json.dumps(record, ensure_ascii=False))
        return
    click.echo(f"step {loaded.step:,}")
    click.echo(table(rows, mean))


@contextmanager
def _shown() -> Iterator[Callable[[str, Score], None] | None]:
    """On a terminal a line that says what is being scored and how fast, while it lasts; elsewhere nothing.

    How much there is in all is not known before it was read.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn
    from rich.text import Text

    class What(TextColumn):
        """A name of a stranger's folder is text, not markup."""

        def render(self, task: Any) -> Text:
            seconds = task.elapsed or 0
            speed = f", {task.completed / seconds:,.0f} tokens/s" if seconds >= 1 else ""
            return Text(f"{task.description}{speed}", no_wrap=True)

    from lola_data.shown_text import plain

    read: dict[str, int] = {}
    total = 0
    bar = Progress(SpinnerColumn(), What(""), console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task("reading", total=None)

        def told(lang: str, score: Score) -> None:
            nonlocal total
            total += score.tokens - read.get(lang, 0)
            read[lang] = score.tokens
            said = f"{plain(lang)}: {score.documents:,} documents, {score.tokens:,} tokens"
            if len(read) > 1:
                said += f"; {len(read):,} languages, {total:,} tokens"
            bar.update(task, completed=total, description=said)

        yield told


def row_of(lang: str, score: Score) -> dict[str, Any]:
    """The figures of a language; None for those that do not exist or are infinite."""
    values = (score.documents, score.tokens, score.bytes, score.loss, score.perplexity, score.bits_per_byte)
    return dict(zip(_COLUMNS, (lang, *(_finite(value) for value in values)), strict=True))


def table(rows: list[dict[str, Any]], mean: dict[str, float | None]) -> str:
    """Rows of text, with the mean below."""
    from lola_data.text_tables import as_it_is, plain_table

    def cells(row: dict[str, Any]) -> list[str]:
        counts = [f"{row[key]:,}" if key in row else "" for key in _COLUMNS[1:4]]
        shares = [
            "-" if row[key] is None else f"{row[key]:,.{3 if key != 'perplexity' else 1}f}" for key in _COLUMNS[4:]
        ]
        return [as_it_is(row["lang"]), *counts, *shares]

    headers = ["language", "documents", "tokens", "bytes", "loss", "perplexity", "bits/byte"]
    return plain_table(headers, [False] + [True] * 6, [*map(cells, rows), cells({"lang": "mean", **mean})])


def write_csv(path: str, rows: list[dict[str, Any]]) -> None:
    """The rows, with a header; whole or not at all."""
    from lola_data.storage import atomic_output

    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_output(path) as handle:
        handle.write(text.getvalue().encode("utf-8"))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
