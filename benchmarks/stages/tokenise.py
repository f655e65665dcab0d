"""Stage ``tokenise``: shards of text in, token ids with document boundaries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import TOKENIZER_NEEDS
from benchmarks.harness import Agreement, Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS = "lola-data stage tokenize"
SENTENCEPIECE = "sentencepiece encode + write"
DATATROVE = "datatrove DocumentTokenizer"
RECIPE: dict[str, Any] = {"tokenize": {"valid_share": 0.0}}
BATCH = 1_000
"""Documents of a call. datatrove's default of 10,000 takes more memory and no less time."""


def prepare(corpus: Corpus) -> None:
    """The tree and the tokenizers."""
    inputs.sampled(corpus)
    inputs.tokenizer_json(corpus)


def load_ours(task: Task) -> Work:
    """The whole stage, to .bin, .idx and the ids of the documents."""
    from benchmarks.ours import stages, warm

    tree = inputs.sampled(task.corpus)
    trees = {"sample": str(tree), "tokenizer": str(inputs.tokenizer(task.corpus))}
    warm(task.out, ["tokenize"], raw=tree, trees=trees, recipe=RECIPE)
    return stages(task.out, ["tokenize"], trees=trees, recipe=RECIPE)


def load_sentencepiece(task: Task) -> Work:
    """What one would write by hand: batches of texts to ids, ids to one .bin file, the index at the end."""
    import numpy as np
    import pyarrow.parquet as pq
    import sentencepiece

    from lola_data.tokens import index_bytes, token_dtype

    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(inputs.tokenizer(task.corpus) / "tokenizer.model"))
    files = sorted(inputs.sampled(task.corpus).rglob("*.parquet"), key=str)
    eod, dtype = model.eos_id(), token_dtype(model.vocab_size())
    model.encode(["warm up"], out_type=int, num_threads=1)

    def work() -> None:
        lengths: list[int] = []
        with (task.out / "tokens.bin").open("wb") as handle:
            for path in files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
                        for ids in model.encode(batch["text"].to_pylist(), out_type=int, num_threads=1):
                            ids.append(eod)
                            lengths.append(len(ids))
                            handle.write(np.array(ids, dtype).tobytes())
        (task.out / "tokens.idx").write_bytes(index_bytes(np.array(lengths), dtype))

    return work


def load_datatrove(task: Task) -> Work:
    """Hugging Face's tokenizers with the same pieces and merges."""
    from benchmarks.datatrove_peer import quiet, reader, run_blocks, tokenizer

    quiet()
    block = tokenizer(task.out, inputs.tokenizer_json(task.corpus), eod=inputs.EOD, batch_size=BATCH)
    blocks = [reader(inputs.sampled(task.corpus), read_metadata=False), block]
    return lambda: run_blocks(*blocks)


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Ids against sentencepiece's, document by document."""
    from benchmarks.agreement import ids_equal

    found: list[Agreement] = []
    ours = read_ours(outputs[OURS] / "tokens" / "train")
    if SENTENCEPIECE in outputs:
        theirs = read_shard(outputs[SENTENCEPIECE] / "tokens")
        equal, documents = ids_equal(ours, theirs)
        text = f"ids bit-equal to ours on {equal:,} of {documents:,} documents"
        found.append(Agreement(SENTENCEPIECE, text, equal == documents))
        if corpus.others.exists():
            equal, documents = _both_on(corpus)
            text = f"in {len(corpus.facts['others'])} other languages on {equal:,} of {documents:,}"
            found.append(Agreement(SENTENCEPIECE, text, equal == documents))
    if DATATROVE in outputs:
        equal, documents = ids_equal(ours, read_datatrove(outputs[DATATROVE]))
        found.append(Agreement(DATATROVE, f"ids equal to ours on {equal:,} of {documents:,} documents"))
    return found


def _both_on(corpus: Corpus) -> tuple[int, int]:
    """Documents of the languages that were not timed to which both give the same ids, and all of them."""
    import numpy as np
    import sentencepiece

    from benchmarks.agreement import ids_equal, read_tree
    from tokenizer.encode import Encoder

    path = inputs.tokenizer(corpus) / "tokenizer.model"
    texts = read_tree(corpus.others, ["text"])["text"]
    model: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
    rows = model.encode(texts.to_pylist(), out_type=int)
    return ids_equal(Encoder(path).encode(texts), (np.concatenate(rows), np.array([len(row) for row in rows])))


def read_ours(folder: Path) -> tuple[Any, Any]:
    """Ids and lengths of all documents of a split, in the order of the shards of text."""
    import numpy as np

    shards = [read_shard(path.with_suffix("")) for path in sorted(folder.glob("*.idx"))]
    return np.concatenate([ids for ids, _ in shards]), np.concatenate([lengths for _, lengths in shards])


def read_shard(prefix: Path) -> tuple[Any, Any]:
    """Ids and lengths of a Megatron-Core shard."""
    import numpy as np

    from lola_data.tokens import TokenShard

    shard = TokenShard(prefix)
    return np.fromfile(prefix.with_suffix(".bin"), shard.dtype), np.asarray(shard.lengths)


def read_datatrove(folder: Path) -> tuple[Any, Any]:
    """Ids and lengths of datatrove's token file."""
    import numpy as np

    path = next(folder.glob("*.ds"))
    ends = np.fromfile(f"{path}.index", "<u8").astype(np.int64)
    return np.fromfile(path, "<u2"), np.diff(ends, prepend=0)


STAGE = Stage(
    name="tokenise",
    title=f"text to token files, {inputs.VOCABULARY:,} pieces",
    contenders=(
        Contender(OURS, load_ours),
        Contender(SENTENCEPIECE, load_sentencepiece, goal=5),
        Contender(DATATROVE, load_datatrove, needs=TOKENIZER_NEEDS, goal=10),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "sentencepiece", "gigatoken", "tokenizers"),
    times=2,
)
