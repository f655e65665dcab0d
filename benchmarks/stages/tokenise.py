"""Stage ``tokenise``: shards of text in, token ids with document boundaries out."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import GIGATOKEN_NEEDS, TOKENIZER_NEEDS
from benchmarks.harness import Agreement, Contender, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS = "lola-data stage tokenize"
SENTENCEPIECE = "sentencepiece encode + write"
GIGATOKEN = "gigatoken, a call per document"
DATATROVE = "datatrove DocumentTokenizer"
RECIPE: dict[str, Any] = {"tokenize": {"valid_share": 0.0}}
BATCH = 1_000
"""Documents of a call. datatrove's default of 10,000 takes more memory and no less time."""


def prepare(corpus: Corpus) -> None:
    """The tree and the tokenizers."""
    inputs.sampled(corpus)
    if find_spec("gigatoken"):
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
    model = _sentencepiece(task.corpus)
    model.encode(["warm up"], out_type=int, num_threads=1)
    return _by_hand(task, lambda texts: model.encode(texts.to_pylist(), out_type=int, num_threads=1))


def load_gigatoken(task: Task) -> Work:
    """The same with the fastest encoder that we know of. Its call for a document keeps in mind the words it has met;
    that for a batch does not, and takes longer on one core."""
    from pathlib import Path

    gigatoken: Any = import_module("gigatoken")
    model = gigatoken.Tokenizer.from_json(Path(inputs.tokenizer_json(task.corpus)).read_text(encoding="utf-8"))
    model.encode(b"warm up")
    return _by_hand(task, lambda texts: map(model.encode, texts.cast("binary").to_pylist()))


def _sentencepiece(corpus: Corpus) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(inputs.tokenizer(corpus) / "tokenizer.model"))


def _by_hand(task: Task, encode: Callable[[Any], Iterable[Any]]) -> Work:
    """``encode``: a column of texts to the ids of each."""
    import numpy as np
    import pyarrow.parquet as pq

    from lola_data.tokens import index_bytes, token_dtype

    files = sorted(inputs.sampled(task.corpus).rglob("*.parquet"), key=str)
    model = _sentencepiece(task.corpus)
    dtype = token_dtype(model.vocab_size())
    eod = np.array([model.eos_id()], dtype).tobytes()

    def work() -> None:
        lengths: list[int] = []
        with (task.out / "tokens.bin").open("wb") as handle:
            for path in files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
                        for ids in encode(batch["text"]):
                            lengths.append(len(ids) + 1)
                            handle.write(np.array(ids, dtype).tobytes() + eod)
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
    for name in (SENTENCEPIECE, GIGATOKEN):
        if name in outputs:
            equal, documents = ids_equal(ours, read_shard(outputs[name] / "tokens"))
            text = f"ids bit-equal to ours on {equal:,} of {documents:,} documents"
            # What another encoder makes of a text is shown, no promise of ours.
            found.append(Agreement(name, text, equal == documents if name == SENTENCEPIECE else None))
    if SENTENCEPIECE in outputs and corpus.others.exists():
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

    from benchmarks.agreement import ids_equal, read_tree
    from tokenizer.encode import Encoder

    texts = read_tree(corpus.others, ["text"])["text"]
    rows = _sentencepiece(corpus).encode(texts.to_pylist(), out_type=int)
    encoder = Encoder(inputs.tokenizer(corpus) / "tokenizer.model")
    return ids_equal(encoder.encode(texts), (np.concatenate(rows), np.array([len(row) for row in rows])))


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
        Contender(GIGATOKEN, load_gigatoken, needs=GIGATOKEN_NEEDS),
        Contender(DATATROVE, load_datatrove, needs=TOKENIZER_NEEDS, goal=10),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "sentencepiece", "gigatoken", "tokenizers"),
    times=2,
)
