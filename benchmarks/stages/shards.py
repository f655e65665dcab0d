"""Stage ``io``: read every shard of the corpus and write its rows to another, zstd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.harness import Agreement, Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS, DATATROVE = "lola-data", "datatrove ParquetReader + ParquetWriter"


def load_ours(task: Task) -> Work:
    """Record batches straight from reader to writer, a shard for a shard."""
    from lola_data.schemas import RAW
    from lola_data.shards import ShardWriter, plan_units, read_batches

    root = str(task.corpus.raw)

    def work() -> None:
        for unit in plan_units(root):
            with ShardWriter(str(task.out / unit.lang / f"{unit.name}.parquet"), RAW) as writer:
                for batch in read_batches(root, unit, RAW):
                    writer.write(batch)

    return work


def load_datatrove(task: Task) -> Work:
    """Documents from reader to writer, all to one file: fewer files than ours are the lesser work."""
    from benchmarks.datatrove_peer import quiet, reader, run_blocks, writer
    from lola_data.schemas import RAW

    quiet()
    blocks = reader(task.corpus.raw), writer(task.out, RAW)
    return lambda: run_blocks(*blocks)


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """The rows of the corpus come out of both, byte for byte."""
    from benchmarks.agreement import read_tree, rows_equal

    raw = read_tree(corpus.raw)
    found: list[Agreement] = []
    for name, folder in outputs.items():
        holds, text = rows_equal(raw, read_tree(folder))
        found.append(Agreement(name, text, holds))
    return found


STAGE = Stage(
    name="io",
    title="read shards + write shards (zstd)",
    contenders=(Contender(OURS, load_ours), Contender(DATATROVE, load_datatrove, goal=4)),
    agree=agree,
    versions=("datatrove",),
)
