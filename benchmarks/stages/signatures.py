"""Stage ``signatures``: texts in memory to the keys of 14 bands of 8 MinHash values over sets of 5 words."""

from __future__ import annotations

from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import DEDUP_NEEDS
from benchmarks.harness import Agreement, Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Finish, Task, Work

OURS, DATATROVE = "lola-data sign_batch", "datatrove MinhashDedupSignature, regex words"
RENSA, DATASKETCH = "rensa RMinHash, regex words", "datasketch MinHash, regex words"
NGRAM, BANDS, ROWS, SEED = 5, 14, 8, 1
GAP = 0.02
"""How far recall may be from the S-curve at any level."""
PAIRS, SEEDS = 1_500, 4
"""Pairs made for each level to measure recall on, and the hash seeds each is signed with."""
COLUMNS = ["id", "text", "url", "lang_score"]
KEYS = "keys.npy"


def prepare(corpus: Corpus) -> None:
    """The tree with ids."""
    inputs.sampled(corpus)


def batches(corpus: Corpus, columns: list[str]) -> list[Any]:
    """The corpus in memory, as the stage reads it."""
    from lola_data.schemas import IDENTIFIED
    from lola_data.shards import plan_units, read_batches

    root = str(inputs.sampled(corpus))
    return [
        batch for unit in plan_units(root) for batch in read_batches(root, unit, IDENTIFIED, columns=columns)
    ]  # fmt: skip


def texts(corpus: Corpus) -> list[str]:
    """The same texts as Python strings."""
    return [text for batch in batches(corpus, ["text"]) for text in batch["text"].to_pylist()]


def load_ours(task: Task) -> Work:
    """All that the stage keeps of a document: digest, URL hash, counts and band keys."""
    import numpy as np

    read = batches(task.corpus, COLUMNS)
    sign_batches([read[0].slice(0, 2)])

    def work() -> Finish:
        signed = sign_batches(read)

        def finish() -> None:
            keys = [np.stack([one[f"band_{band}"].to_numpy() for band in range(BANDS)], axis=1) for one in signed]
            some = np.concatenate([one["shingles"].to_numpy() > 0 for one in signed])
            _save(np.concatenate(keys), some, task.out)

        return finish

    return work


def sign_batches(read: Iterable[Any]) -> list[Any]:
    """What the stage keeps of each batch."""
    from lola_data.minhash import MinHash
    from pipelines.dedup import sign_batch

    minhash = MinHash(BANDS, ROWS, SEED)
    return [sign_batch(batch, minhash=minhash, ngram=NGRAM, bands=BANDS)[0] for batch in read]


def load_datatrove(task: Task) -> Work:
    """The block's own two functions on each text. Writing, sorting and checking its files is left out."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    from benchmarks.datatrove_peer import quiet, regex_words, text_hashing

    quiet()
    read = texts(task.corpus)
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    block = text_hashing(MinhashDedupSignature(str(task.out), config=config, language=regex_words()))
    assert block.get_signature(block.get_shingles("to warm up a few words are enough"))

    def work() -> Finish:
        signed: list[Any] = []
        for text in read:
            shingles = block.get_shingles(text)
            signed.append(block.get_signature(shingles) if shingles.size else None)
        return lambda: _save_lanes(signed, task.out)

    return work


def shingler() -> Any:
    """Text -> list of its runs of five words, the words by the expression that datatrove gets."""
    import regex

    from benchmarks.datatrove_peer import word_pattern

    find = regex.compile(word_pattern()).findall

    def shingles(text: str) -> list[str]:
        words = find(text.lower())
        return [" ".join(run) for run in zip(*(words[start:] for start in range(NGRAM)), strict=False)]

    return shingles


def load_rensa(task: Task) -> Work:
    """Its fastest way that uses every word: all texts to one matrix."""
    sketch: Any = import_module("rensa").RMinHash
    read, shingles = texts(task.corpus), shingler()
    sketch.digest_matrix_from_token_sets([["to warm up"]], BANDS * ROWS, SEED)

    def work() -> Finish:
        sets = [shingles(text) for text in read]
        matrix = sketch.digest_matrix_from_token_sets(sets, BANDS * ROWS, SEED)

        def finish() -> None:
            rows = [row if one else None for row, one in zip(matrix.to_rows(), sets, strict=True)]
            _save_lanes(rows, task.out)

        return finish

    return work


def load_datasketch(task: Task) -> Work:
    """``MinHash.generator``, which shares the permutations."""
    sketch: Any = import_module("datasketch").MinHash
    read, shingles = texts(task.corpus), shingler()

    def sign(sets: Iterable[list[bytes]]) -> Any:
        return sketch.generator(sets, num_perm=BANDS * ROWS, seed=SEED)

    next(iter(sign([[b"to warm up"]])))

    def work() -> Finish:
        signed: list[Any] = []
        for one in sign([run.encode() for run in shingles(text)] for text in read):
            signed.append(None if one.is_empty() else one.hashvalues)
        return lambda: _save_lanes(signed, task.out)

    return work


def _save_lanes(signed: Iterable[Any], out: Path) -> None:
    """Keys of signatures; None for a text without any run of five words."""
    import numpy as np

    rows = list(signed)
    lanes = np.zeros((len(rows), BANDS, ROWS), dtype=np.uint64)
    for number, row in enumerate(rows):
        if row is not None:
            lanes[number] = np.asarray(row, dtype=np.uint64).reshape(BANDS, ROWS)
    keys = np.zeros((len(rows), BANDS), dtype=np.uint64)
    for lane in range(ROWS):
        keys = (keys ^ lanes[:, :, lane]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(31)
    _save(keys, np.array([row is not None for row in rows]), out)


def _save(keys: Any, some: Any, out: Path) -> None:
    import numpy as np

    np.save(out / KEYS, np.where(some[:, None], keys, 0))


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Recall beside the S-curve: on planted pairs for all, on many made pairs for ours."""
    import numpy as np

    from benchmarks.alike import chance, within_chance

    place = {one: row for row, one in enumerate(_ids(corpus))}
    plants = [plant for plant in corpus.planted() if plant.kind == "near"]
    ones, others = (
        np.array([place[f"{plant.lang}/{file.removesuffix('.parquet')}/{row}"] for plant, file, row in rows])
        for rows in (
            [(plant, plant.file, plant.row) for plant in plants],
            [(plant, plant.of_file, plant.of_row) for plant in plants],
        )
    )
    chances = chance([plant.jaccard for plant in plants], BANDS, ROWS)
    found: list[Agreement] = []
    for name, folder in outputs.items():
        keys = np.load(folder / KEYS)
        met = ((keys[ones] == keys[others]) & (keys[ones] != 0)).any(axis=1)
        expected, spread, holds = within_chance(int(met.sum()), chances)
        text = f"of {met.size:,} planted pairs {int(met.sum()):,} met (S-curve: {expected:.0f} +- {spread:.0f})"
        found.append(Agreement(name, text, holds if name == OURS else None))
    levels = recall_of_ours(PAIRS)
    worst = max(levels, key=lambda one: abs(one.gap))
    text = (
        f"of {PAIRS * len(levels):,} made pairs in 6 scripts, {SEEDS} hash seeds each, recall within "
        f"{abs(worst.gap):.3f} of the S-curve at every 0.05 from {levels[0].level:.2f} to {levels[-1].level:.2f} "
        f"(worst at {worst.level:.2f}: "
        f"{worst.share:.3f}, S-curve {worst.expected:.3f})"
    )
    found.append(Agreement(OURS, text, abs(worst.gap) <= GAP))
    return found


def recall_of_ours(count: int, seed: int = 0) -> list[Any]:
    """Recall of the function that the stage calls, level by level, on ``count`` texts with a copy for each level.

    The similarities are those of sets spelled out in :mod:`benchmarks.alike`.
    """
    import numpy as np

    from benchmarks.alike import by_level, grams_of, similarity_of
    from benchmarks.pairs import LEVELS, edited_pairs

    made = edited_pairs(count, seed=seed)
    similarities: list[Any] = []
    met: list[Any] = []
    while some := list(islice(made, 50)):
        rows = [row for _, text, copies in some for row in (text, *copies)]
        for hashing in range(SEEDS):
            keys = sign_texts(rows, hashing).reshape(len(some), 1 + len(LEVELS), BANDS)
            met.append((keys[:, 1:] == keys[:, :1]).any(axis=2).ravel())
        grams = grams_of(rows)
        originals = np.arange(len(rows)) // (1 + len(LEVELS)) * (1 + len(LEVELS))
        copies = np.flatnonzero(originals != np.arange(len(rows)))
        similarities += [similarity_of(grams, originals[copies], copies)] * SEEDS
    return by_level(np.concatenate(similarities), np.concatenate(met), LEVELS, bands=BANDS, rows=ROWS)


def sign_texts(rows: list[str], seed: int = SEED) -> Any:
    """Band keys (N, 14) of some texts by the function that the stage calls."""
    import numpy as np
    import pyarrow as pa

    from lola_data.minhash import MinHash
    from pipelines.dedup import sign_batch

    batch = pa.record_batch(
        {
            "id": pa.array([str(row) for row in range(len(rows))]),
            "text": pa.array(rows, pa.string()),
            "url": pa.nulls(len(rows), pa.string()),
            "lang_score": pa.array(np.ones(len(rows), np.float32)),
        }
    )
    signed, _ = sign_batch(batch, minhash=MinHash(BANDS, ROWS, seed), ngram=NGRAM, bands=BANDS)
    return np.stack([signed[f"band_{band}"].to_numpy() for band in range(BANDS)], axis=1)


def _ids(corpus: Corpus) -> list[str]:
    return [one for batch in batches(corpus, ["id"]) for one in batch["id"].to_pylist()]


STAGE = Stage(
    name="signatures",
    title="texts to MinHash band keys, 14 bands of 8, sets of 5 words",
    contenders=(
        Contender(OURS, load_ours),
        Contender(DATATROVE, load_datatrove, needs=DEDUP_NEEDS, goal=20),
        Contender(RENSA, load_rensa, needs=("rensa", "regex")),
        Contender(DATASKETCH, load_datasketch, needs=("datasketch", "regex")),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "rensa", "datasketch", "regex", "xxhash"),
)
