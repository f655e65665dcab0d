"""Stage ``dedup``: shards of identified documents in, shards without duplicates out.

fast-dedup is not among the contenders: version 0.1.0 has sketches that can be compared in pairs, but neither buckets
nor a way to get at a sketch's values, so that whole deduplication with it means comparing all pairs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import DEDUP_NEEDS
from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.match import RECIPE, THRESHOLD
from benchmarks.stages.signatures import BANDS, NGRAM, ROWS, SEED, prepare, shingler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS, DATATROVE = "lola-data stage dedup", "datatrove MinHash, four stages"
TEXT_DEDUP, RENSA = "text-dedup minhash", "rensa RMinHashDeduplicator, regex words"


def load_ours(task: Task) -> Work:
    """The stage, which also writes the removed rows, the audit and the recall on planted copies."""
    from benchmarks.ours import stages, warm

    tree = inputs.sampled(task.corpus)
    trees = {"identify": str(tree)}
    warm(task.out, ["dedup"], raw=tree, trees=trees, recipe=RECIPE)
    return stages(task.out, ["dedup"], trees=trees, recipe=RECIPE)


def load_datatrove(task: Task) -> Work:
    """Its four stages; nothing but the kept rows is written, to one file."""
    from benchmarks.datatrove_peer import minhash, quiet, reader, run_blocks, writer
    from lola_data.schemas import IDENTIFIED

    quiet()
    out, tree = task.out, inputs.sampled(task.corpus)
    find = minhash(out, ngram=NGRAM, bands=BANDS, rows=ROWS)

    def work() -> None:
        run_blocks(reader(tree), find(reader(tree, read_metadata=False)), writer(out / "kept", IDENTIFIED))

    return work


def load_text_dedup(task: Task) -> Work:
    """Its command as a function, in this process, with its faster hash. It writes Arrow files, not compressed."""
    minhash: Any = import_module("text_dedup.minhash")
    utils: Any = import_module("text_dedup.utils")
    datasets: Any = import_module("datasets")

    datasets.disable_progress_bars()
    out = task.out
    files = [str(path) for path in sorted(inputs.sampled(task.corpus).rglob("*.parquet"))]
    read = utils.IOArgs(
        path="parquet",
        output=str(out / "kept"),
        data_files=files,
        split="train",
        cache_dir=str(out / "cache"),
        num_proc=None,
    )
    how = utils.MinHashArgs(
        ngram=NGRAM, min_length=0, num_perm=BANDS * ROWS, b=BANDS, r=ROWS, hash_func="xxh3", hash_bits=32
    )
    column = utils.MetaArgs(column="text")
    return lambda: minhash.main.callback(io_args=read, meta_args=column, minhash_args=how)


def load_rensa(task: Task) -> Work:
    """A loop that its users would write: Parquet in, sets of words, its deduplicator (which compares the sketches of a
    pair that shares a band), Parquet out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lola_data.schemas import IDENTIFIED

    rensa: Any = import_module("rensa")
    shingles = shingler()
    files = sorted(inputs.sampled(task.corpus).rglob("*.parquet"))
    rensa.RMinHash.from_token_sets([["to warm up"]], BANDS * ROWS, SEED)

    def work() -> None:
        dedup = rensa.RMinHashDeduplicator(
            threshold=THRESHOLD, num_perm=BANDS * ROWS, use_lsh=True, num_bands=BANDS, seed=SEED
        )
        with pq.ParquetWriter(task.out / "kept.parquet", IDENTIFIED, compression="zstd") as writer:
            for path in files:
                table = pq.read_table(path, columns=IDENTIFIED.names)
                entries = (
                    (one, shingles(text))
                    for one, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)
                )
                writer.write_table(table.filter(pa.array(dedup.add_pairs(entries))))

    return work


def kept_ids(name: str, folder: Path) -> set[str]:
    """Ids that a contender has kept."""
    from benchmarks.agreement import read_tree

    if name == TEXT_DEDUP:
        datasets: Any = import_module("datasets")
        return set(datasets.load_from_disk(str(folder / "kept"))["id"])
    if name == OURS:
        folder = folder / "deduped"
    elif name == DATATROVE:
        folder = folder / "kept"
    return set(read_tree(folder, ["id"])["id"].to_pylist())


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Every document that only one of two removed, by the kind of reason."""
    from benchmarks.agreement import read_tree
    from benchmarks.differences import CUTS, Truth, explain, told

    table = read_tree(inputs.sampled(corpus), ["id", "text"])
    truth = Truth(table["id"].to_pylist(), table["text"].to_pylist(), THRESHOLD)
    everything = set(truth.ids)
    kept = {name: kept_ids(name, folder) for name, folder in outputs.items()}
    ours = everything - kept[OURS]
    found = [Agreement(OURS, f"{len(ours):,} removed")]
    for name, theirs in kept.items():
        if name != OURS:
            removed = everything - theirs
            counts = explain(truth, ours, removed, CUTS.get(name))
            text = f"{len(removed):,} removed; {told(counts)}"
            found.append(Agreement(name, text, not counts.get("unexplained", 0)))
    return found


STAGE = Stage(
    name="dedup",
    title="whole deduplication, shards in, shards out",
    contenders=(
        Contender(OURS, load_ours),
        Contender(DATATROVE, load_datatrove, needs=DEDUP_NEEDS, goal=15),
        Contender(TEXT_DEDUP, load_text_dedup, needs=("text_dedup", "datasets", "click_option_group"), goal=10),
        Contender(RENSA, load_rensa, needs=("rensa", "regex")),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "text-dedup", "datasets", "rensa", "regex", "xxhash"),
)
