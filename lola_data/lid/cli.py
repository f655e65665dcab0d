"""Commands ``lid train`` and ``lid evaluate``."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lola_data.lid.train import Trained


@click.group()
def lid() -> None:
    """Train a language identification model, or compare models."""


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where labelled text comes from."""
    options = (
        click.option("--data", "paths", multiple=True, required=True, metavar="PATH",
                     help="Labelled text: a folder of <lang>/*.parquet, or a .parquet, .tsv, .jsonl or fastText .txt "
                     "file. May be given several times."),
        click.option("--text-column", default="text", show_default=True, help="Column of the text."),
        click.option("--label-column", default="lang", show_default=True,
                     help="Column of the label; in a folder the label is the folder's name."),
        click.option("--where", metavar="SQL",
                     help="Only rows for which this holds, such as \"kind = 'article' and length(text) >= 20\"."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@lid.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@_data_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of the tables.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write a row a model and language; tab-separated if FILE ends in .tsv.")  # fmt: skip
@click.option("--min-documents", type=click.IntRange(min=1), default=1, show_default=True,
              help="Leave languages with fewer texts out of the averages.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help="Only the N hardest languages in the table  [default: all].")  # fmt: skip
@click.option("--replicates", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Bootstrap draws behind the interval of a difference.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
def evaluate(
    models: tuple[str, ...],
    paths: tuple[str, ...],
    text_column: str,
    label_column: str,
    where: str | None,
    as_json: bool,
    csv_path: str | None,
    min_documents: int,
    top: int | None,
    replicates: int,
    seed: int,
) -> None:
    """Score models on labelled text, per language and side by side.

    MODEL is a registered name (lid.176.ftz, glotlid-v3, ...) or the path of a fastText classifier. Several are shown
    side by side, each compared with the first. FIRST+SECOND is a pair: the first answers, unless the second is sure of
    a language that the first has no label for.

    \b
    Examples:
      lola-data lid evaluate lid.176.ftz --data labelled.tsv
      lola-data lid evaluate lid.176.ftz my.bin my.bin+lid.176.ftz --data labelled.tsv
      lola-data lid evaluate lid.176.ftz --data my-tree --top 30 --csv scores.tsv
      lola-data lid evaluate lid.176.ftz --data udhr.parquet --label-column culturax --where "length(text) >= 20" --json

    Macro F1 is the mean of F1 over the languages of the data; one that a model cannot name counts as 0, and the column
    "of those named" is over the others alone. "in group" also accepts an answer that is near kin, such as hr for bs.
    """
    from lola_data import storage
    from lola_data.lid.evaluate import evaluate as judge
    from lola_data.lid.evaluate import parts_of
    from lola_data.lid.evaluate_text import csv_text, json_text, report
    from lola_data.lid.labelled import read_labelled

    for model in models:
        # A misspelt name is told before anything is read.
        parts_of(model)
    with _progress() as tell:
        data = read_labelled(
            paths, text_column=text_column, label_column=label_column, where=where,
            progress=lambda path: tell(f"reading {path}", None),
        )  # fmt: skip
        evaluation = judge(
            models, data, min_documents=min_documents, replicates=replicates, seed=seed,
            progress=lambda model: tell(f"asking {model}", None),
        )  # fmt: skip
    if csv_path is not None:
        with storage.atomic_output(csv_path) as handle:
            handle.write(csv_text(evaluation, separator="\t" if csv_path.endswith(".tsv") else ",").encode())
    click.echo(json_text(evaluation) if as_json else report(evaluation, top=top))
    if csv_path is not None:
        click.echo(f"written: {csv_path}", err=True)


@lid.command()
@_data_options
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The model; its card is written beside it, FILE.json.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the model if it is there.")
@click.option("--licence", default="", help="A note for the card: the terms that the data puts on the model.")
@click.option("--epochs", type=click.IntRange(min=1), default=5, show_default=True, help="Passes over the text.")
@click.option("--dim", type=click.IntRange(1, 1000), default=32, show_default=True, help="Numbers in a vector.")
@click.option("--minn", type=click.IntRange(0, 20), default=2, show_default=True,
              help="Shortest n-grams of characters.")  # fmt: skip
@click.option("--maxn", type=click.IntRange(0, 20), default=4, show_default=True,
              help="Longest n-grams of characters.")  # fmt: skip
@click.option("--word-ngrams", "--wordNgrams", type=click.IntRange(1, 10), default=1, show_default=True,
              help="Longest n-grams of words.")  # fmt: skip
@click.option("--bucket", type=click.IntRange(min=1), default=200_000, show_default=True,
              help="Vectors that hashed n-grams share.")  # fmt: skip
@click.option("--min-count", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Words that occur less often have no vector of their own.")  # fmt: skip
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Learning rate.")
@click.option("--loss", type=click.Choice(["softmax", "hs"]), default="softmax", show_default=True,
              help="hs is faster with very many languages.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Balance: shares of text go by size to this power; 1 as it is, 0 all alike.")  # fmt: skip
@click.option("--repeats", type=click.FloatRange(min=1), default=10.0, show_default=True,
              help="Use a small language's text at most so many times.")  # fmt: skip
@click.option("--max-chars", type=click.IntRange(min=1), default=20_000_000, show_default=True, metavar="N",
              help="Characters of training text in an epoch, at the most.")  # fmt: skip
@click.option("--shortest", type=click.IntRange(min=1), default=10, show_default=True,
              help="Characters of the shortest pieces that documents are cut into.")  # fmt: skip
@click.option("--longest", type=click.IntRange(min=1), default=150, show_default=True, help="And of the longest.")
@click.option("--held-out", type=click.FloatRange(0, 0.5), default=0.05, show_default=True,
              help="Share of the documents kept out of training to measure on.")  # fmt: skip
@click.option("--quantize", is_flag=True, help="Compress the model to a few MB.")
@click.option("--cutoff", type=click.IntRange(min=1), default=50_000, show_default=True,
              help="Vectors that --quantize keeps.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of all draws.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="More are faster, and give another model each time.")  # fmt: skip
def train(
    paths: tuple[str, ...],
    text_column: str,
    label_column: str,
    where: str | None,
    out: Path,
    force: bool,
    licence: str,
    **options: Any,
) -> None:
    """Train a fastText model from labelled text.

    Documents are cut into pieces of a sentence or a few, languages balanced, and a part of the documents is kept out to
    measure on. The model can be used at once: `identify.model: FILE` in a recipe, or `lola-data identify --model FILE`.

    \b
    Examples:
      lola-data lid train --data my-tree --out my.bin
      lola-data lid train --data a.tsv --data b.jsonl --out small.ftz --quantize --max-chars 20000000
      lola-data lid evaluate lid.176.ftz my.bin --data other-text.tsv

    Its own held-out figures flatter a model, since training and held-out text are of the same kind: judge it with
    `lola-data lid evaluate` on text of another source.
    """
    from lola_data.errors import RecipeError
    from lola_data.lid.labelled import read_labelled
    from lola_data.lid.train import TrainOptions, card_path
    from lola_data.lid.train import train as make

    chosen = TrainOptions(**options)
    chosen.check()
    for path in (out, card_path(out)):
        if path.exists() and not force:
            raise RecipeError(f"{path}: is there already; name another file with --out, or overwrite it with --force")
    with _progress() as tell:
        data = read_labelled(
            paths, text_column=text_column, label_column=label_column, where=where,
            progress=lambda path: tell(f"reading {path}", None),
        )  # fmt: skip
        trained = make(data, out, chosen, licence=licence, progress=tell)
    click.echo(_told(trained))


def _told(trained: Trained) -> str:
    from lola_data.lid.train import card_path
    from lola_data.text_tables import readable_bytes

    card = trained.card
    lines = [
        f"{trained.path}: {len(card['model']['languages'])} languages, {readable_bytes(card['model']['bytes'])}, from "
        f"{card['training']['lines']:,} pieces of {card['data']['texts'] - card['data']['held_out']:,} documents",
    ]
    for name, scores in (("documents", trained.documents), ("pieces of them", trained.pieces)):
        if scores is not None:
            lines.append(
                f"held-out {name}: macro F1 {scores.macro_f1:.3f} over {len(scores.codes)} languages, accuracy "
                f"{scores.accuracy:.3f}, {scores.texts:,} texts"
            )
    if trained.documents is not None:
        lines.append("These are of the same sources as the training text; judge it on others: lola-data lid evaluate")
    lines.append(f"card: {card_path(trained.path)}")
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[Callable[[str, float | None], None]]:
    """A bar on stderr when that is a terminal; tells nothing else."""
    if not sys.stderr.isatty():
        yield lambda step, share: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)

        def tell(step: str, share: float | None) -> None:
            bar.update(task, description=escape(step), total=None if share is None else 1.0, completed=share or 0.0)

        yield tell
