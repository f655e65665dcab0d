"""What stages read beside the raw corpus: a tree of sampled shards, a tokenizer in two formats.

Each is made once per corpus, before any clock starts, and kept.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.corpus import Corpus

VOCABULARY = 32_000
TRAIN_BYTES = 16_000_000
"""Text the tokenizers are trained on, of a corpus that has so much."""
EOD = "</s>"


@contextmanager
def _whole(folder: Path) -> Iterator[Path | None]:
    """A folder to fill, which gets its name when it is filled; None if it is there."""
    if folder.exists():
        yield None
        return
    filling = folder.with_name(folder.name + ".part")
    shutil.rmtree(filling, ignore_errors=True)
    filling.mkdir(parents=True)
    yield filling
    filling.rename(folder)


def sampled(corpus: Corpus) -> Path:
    """The corpus as the stage `sample` would hand it on, nothing removed: the tree that `tokenize` reads."""
    tree = corpus.inputs / "sampled"
    with _whole(tree) as filling:
        if filling is not None:
            write_sampled(corpus.raw, filling)
    return tree


def write_sampled(raw: Path, tree: Path) -> None:
    """The rows of a raw tree with ids, each document said to be in the language of its folder."""
    import numpy as np
    import pyarrow as pa

    from lola_data.schemas import DEDUPED, RAW
    from lola_data.shards import ShardWriter, plan_units, read_batches
    from pipelines.identify import add_ids

    root = str(raw)
    for unit in plan_units(root):
        row = 0
        with ShardWriter(str(tree / unit.lang / f"{unit.name}.parquet"), DEDUPED) as writer:
            for batch in read_batches(root, unit, RAW):
                rows = add_ids(batch, unit, first_row=row)
                row += batch.num_rows
                same = pa.array([unit.lang] * batch.num_rows, pa.string())
                writer.write(
                    pa.RecordBatch.from_arrays(
                        [
                            *rows.columns,
                            same,
                            same,
                            pa.array(np.ones(batch.num_rows, np.float32)),
                            pa.array(["Zyyy"] * batch.num_rows, pa.string()),
                            pa.array(np.ones(batch.num_rows, np.int32)),
                        ],
                        schema=DEDUPED,
                    )
                )


def tokenizer(corpus: Corpus) -> Path:
    """Folder of ``tokenizer.model``: a lossless SentencePiece BPE model of the corpus's own text."""
    folder = corpus.inputs / "tokenizer"
    tree = sampled(corpus)
    with _whole(folder) as filling:
        if filling is not None:
            from tokenizer.train import train_tokenizer

            train_tokenizer(
                str(tree), filling, vocab_size=VOCABULARY, train_bytes=min(TRAIN_BYTES, corpus.bytes // 2), seed=0
            )
    return folder


def tokenizer_json(corpus: Corpus) -> Path:
    """The same pieces and merges for Hugging Face's tokenizers, as gigatoken converts them.

    A byte-level BPE of as many pieces, trained on the same text, was tried in its place: it took twice as long. Control
    tokens that are written out in a text stay text, as with our encoder.
    """
    folder = corpus.inputs / "tokenizer-json"
    model = tokenizer(corpus) / "tokenizer.model"
    with _whole(folder) as filling:
        if filling is not None:
            gigatoken: Any = import_module("gigatoken")
            config: dict[str, Any] = gigatoken.Tokenizer.from_sentencepiece(model.read_bytes())._hf_config()
            config["added_tokens"] = []
            (filling / "tokenizer.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return folder / "tokenizer.json"
