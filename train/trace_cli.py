"""``lola-data trace``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from train.trace import TracedBatch, TracedDocument


@click.command()
@click.argument("run")
@click.option(
    "--step", type=int, required=True, help="Number of the step as in metrics.jsonl: 1 is the first optimiser step."
)
@click.option("--sample", type=int, help="Only this sample of the batch, from 0  [default: all].")
@click.option(
    "--tokens", "tokens_dir",
    help="Token tree of the run  [default: as config.json says, else RUN/../../tokens].",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def trace(run: str, step: int, sample: int | None, tokens_dir: str | None, as_json: bool) -> None:
    """Name the documents that a batch of the training run RUN is made of; RUN may lie on an object store.

    One line for each document of each sample: the sample, its language, the pass over the language (from 0), which of
    the document's tokens are in the sample (first - one behind the last, from 0) and how many it has, the token shard
    and its number there (from 0), the id <lang>/<shard>/<row> of the raw shard, and the address it came from. The last
    token of a sample is a target only.

    The order of the data follows from settings, seed and token shards. So any step of the run can be asked for, done or
    not, and no process needs to be training.

    \b
    Examples:
      lola-data trace work/demo/runs/moe --step 1200
      lola-data trace runs/first --step 1200 --sample 7 --tokens work/mine/tokens
      lola-data inspect work/demo de/de_part_00000/370     (the way of one of these documents)
    """
    from train.trace import trace_batch

    found = trace_batch(run, step, sample=sample, tokens_dir=tokens_dir)
    if as_json:
        from lola_data.shown_text import harmless_json

        click.echo(harmless_json(json.dumps(_plain(run, found), ensure_ascii=False)))
        return
    for line in _lines(found):
        click.echo(line)
    for notice in found.notices:
        click.echo(f"lola-data: note: {notice}", err=True)


def _plain(run: str, found: TracedBatch) -> dict[str, object]:
    return {
        "run": run,
        "step": found.step,
        "steps": found.steps,
        "tokens": str(found.tokens),
        "documents": [asdict(one) for one in found.documents],
        "notices": list(found.notices),
    }


def _lines(found: TracedBatch) -> list[str]:
    """The documents as a table."""
    rows = [("sample", "language", "epoch", "tokens", "shard", "document", "id", "url")]
    rows += [_row(one) for one in found.documents]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    right = (True, False, True, True, False, True, False)
    return [
        "  ".join(
            [
                cell.rjust(width) if flag else cell.ljust(width)
                for cell, width, flag in zip(row, widths, right, strict=False)
            ]
            + [row[-1]]
        )
        for row in rows
    ]


def _row(one: TracedDocument) -> tuple[str, ...]:
    from lola_data.shown_text import plain

    return (
        str(one.sample), plain(one.lang), str(one.epoch), f"{one.start}-{one.stop} of {one.length}", plain(one.shard),
        str(one.document), plain(one.id or "-"), plain(one.url or "-"),
    )  # fmt: skip
