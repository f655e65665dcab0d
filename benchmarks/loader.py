"""Section ``loader``: tokens a second that the training loader hands over on one core, from the page cache.

Documents of 50 languages, of realistic lengths and sizes, are made of random ids; both loaders read the same shards in
one process, turn about. The peer is what nanoGPT does (``get_batch``): random crops of a memory-mapped file, stacked as
inputs and targets. It knows no documents, languages, passes or resuming, and so has less to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.section import Bench, Section, Told
from benchmarks.summary import MET, MISSED, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.tokens import TokenShard

NAME = "loader"
GOAL = 20.0
"""Million tokens a second and core."""
TOKENS = 250_000_000
LANGUAGES = 50
MEAN_DOCUMENT = 700
"""Tokens of a document, log-normal with sigma 1, as web text has them."""
SEQ_LENS = (1024, 2048)
BATCH_SIZE = 256
STEPS = 30
VOCAB, EOD = 60_000, 1


def make_shards(root: Path, tokens: int = TOKENS, languages: int = LANGUAGES) -> dict[str, list[TokenShard]]:
    """A shard for each language, sizes falling as 1 / rank, of ``tokens`` uint16 ids in all."""
    from lola_data.tokens import TokenShard, TokenShardWriter

    rng = np.random.default_rng(0)
    sizes = tokens / np.arange(1, languages + 1)
    sizes *= tokens / sizes.sum()
    shards: dict[str, list[TokenShard]] = {}
    for number, size in enumerate(sizes):
        count = max(2, round(size / MEAN_DOCUMENT))
        lengths = np.maximum(2, rng.lognormal(np.log(MEAN_DOCUMENT) - 0.5, 1.0, count)).astype(np.int64)
        ids = rng.integers(2, VOCAB, lengths.sum(), dtype=np.uint16)
        ids[np.cumsum(lengths) - 1] = EOD
        prefix = root / f"l{number:02d}_00000"
        with TokenShardWriter(prefix, np.uint16, durable=False) as writer:
            writer.add_documents(ids, lengths)
        shards[f"l{number:02d}"] = [TokenShard(prefix)]
    return shards


def random_crops(data: np.ndarray, seq_len: int) -> Callable[[int], object]:
    """nanoGPT's ``get_batch``: crops at random places, inputs and targets stacked apart."""
    import torch

    def batch(step: int) -> object:
        places = torch.randint(len(data) - seq_len, (BATCH_SIZE,))
        inputs = torch.stack([torch.from_numpy(data[i : i + seq_len].astype(np.int64)) for i in places])
        targets = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + seq_len].astype(np.int64)) for i in places])
        return inputs, targets

    return batch


def speed(batch: Callable[[int], object], seq_len: int, first: int) -> float:
    """Million tokens a second of processor time over ``STEPS`` batches from ``first`` on."""
    start = time.process_time()
    for step in range(first, first + STEPS):
        batch(step)
    return STEPS * BATCH_SIZE * seq_len / (time.process_time() - start) / 1e6


def measure(bench: Bench) -> Told:
    """Both loaders at each sequence length, weights by size and flattened."""
    import torch

    from train.data import Loader

    torch.set_num_threads(1)
    bench.say(f"{NAME}: writing {TOKENS * 2 / 1e6:.0f} MB of tokens")
    shards = make_shards(bench.work)
    sizes = {name: float(parts[0].num_tokens) for name, parts in shards.items()}
    for parts in shards.values():
        parts[0].tokens.max()  # into the page cache
    largest = np.asarray(shards["l00"][0].tokens)
    lines = [["sequence", "weights", "ours", "random crops", "ours / random crops", "first batch", ""]]
    entries: list[Entry] = []
    values: list[dict[str, float | str]] = []
    for seq_len in SEQ_LENS:
        peer = random_crops(largest, seq_len)
        for told, power in (("by size", 1.0), ("size ^ 0.3", 0.3)):
            weights = {name: size**power for name, size in sizes.items()}
            loader = Loader(shards, weights, seq_len=seq_len, batch_size=BATCH_SIZE, seed=0)
            start = time.process_time()
            loader.batch(0)
            opening = time.process_time() - start
            ours, theirs = [], []
            for turn in range(max(3, bench.rounds)):
                ours.append(speed(loader.batch, seq_len, 1 + turn * STEPS))
                theirs.append(speed(peer, seq_len, 0))
            mine, bound = float(np.median(ours)), float(np.median(theirs))
            verdict = MET if mine >= GOAL else MISSED
            bench.say(f"{NAME}: {seq_len}, {told}: {mine:.1f} M tokens/s, random crops {bound:.1f}")
            cells = [f"{mine:.1f}", f"{bound:.1f}", f"{mine / bound:.2f}", f"{opening:.2f} s", verdict]
            lines.append([f"{seq_len:,}", told, *cells])
            entries.append(
                Entry(NAME, f"{seq_len:,}, {told}", f"{GOAL:g} M tokens/s", f"{mine:.1f} M tokens/s", verdict)
            )
            values.append({"seq_len": seq_len, "weights": told, "ours": mine, "crops": bound, "first": opening})
    body = (
        f"Million tokens a second of processor time, one core, batches of {BATCH_SIZE} sequences as int64, "
        f"{TOKENS * 2 / 1e6:.0f} MB of uint16 in {LANGUAGES} languages, documents of {MEAN_DOCUMENT} tokens, "
        "everything in the page cache; medians, the loaders turn about. Random crops: what nanoGPT does, without "
        "documents, languages and passes; it stacks inputs and targets apart. First batch: each language is entered, "
        "and the order of its first pass summed up.\n\n"
        f"{markdown_table(lines)}"
    )
    return Told(body, entries, values, all(entry.verdict == MET for entry in entries))


SECTION = Section(
    name=NAME, title="the training loader, tokens a second and core", measure=measure, versions=("torch",)
)
