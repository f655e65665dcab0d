"""Token files of Megatron-Core and datatrove, each written by the tool itself."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lola_data.errors import RecipeError, ShardError, TrainingError
from train.data import Loader
from train.foreign_tokens import DatatroveShard, find_foreign_shards, language_of
from train.loop import train
from train.token_tree import open_token_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.train_config import TrainConfig

EOD = 1
VOCAB = 60


def documents(seed: int, count: int = 30) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(2, VOCAB, rng.integers(1, 40)).tolist(), EOD] for _ in range(count)]


def writers_of_datatrove() -> Any:
    """datatrove's module that writes and merges token files. It imports `tokenizers`, of which nothing is used here,
    and which is not among our dependencies: an empty module stands for it where it is not there."""
    if importlib.util.find_spec("tokenizers") is None and "tokenizers" not in sys.modules:
        processors = types.ModuleType("tokenizers.processors")
        processors.TemplateProcessing = type("TemplateProcessing", (), {})  # type: ignore[attr-defined]
        sys.modules["tokenizers"], sys.modules["tokenizers.processors"] = types.ModuleType("tokenizers"), processors
        try:
            return importlib.import_module("datatrove.pipeline.tokens.merger")
        finally:
            del sys.modules["tokenizers"], sys.modules["tokenizers.processors"]
    return importlib.import_module("datatrove.pipeline.tokens.merger")


def trove(folder: Path, name: str, docs: list[list[int]], token_size: int = 2, **options: Any) -> Path:
    """Documents as datatrove's own writer leaves them."""
    file = writers_of_datatrove().TokenizedFile(str(folder), name, token_size=token_size, **options)
    for doc in docs:
        file.write(doc, None)
    file.close()
    return folder / name


def megatron(prefix: Path, docs: list[list[int]], dtype: Any = np.uint16) -> None:
    """Documents as Megatron-Core's own writer leaves them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that Transformer Engine and Apex are absent
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for doc in docs:
        builder.add_document(torch.tensor(doc), [len(doc)])
    builder.finalize(f"{prefix}.idx")


def read_back(shard: Any) -> list[list[int]]:
    return [shard.document(number).tolist() for number in range(shard.num_documents)]


@pytest.mark.parametrize("token_size", [2, 4])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_file_of_datatrove_comes_back_as_it_was_written(tmp_path: Path, token_size: int, metadata: bool):
    docs = [*documents(1), [], [2 ** (8 * token_size) - 1, EOD]]
    shard = DatatroveShard(trove(tmp_path, "de.ds", docs, token_size, save_final_metadata=metadata))
    assert shard.dtype.itemsize == token_size
    assert shard.num_tokens == sum(map(len, docs))
    assert read_back(shard) == docs
    assert shard.lengths.tolist() == [len(doc) for doc in docs]


def test_what_the_merger_of_datatrove_writes_is_read(tmp_path: Path):
    docs = documents(1)
    for number in range(3):
        trove(
            tmp_path / "parts",
            f"0000{number}_shuffled.ds",
            docs[number::3],
            save_final_metadata=True,
            tokenizer_name_or_path="words",
        )
    merger = writers_of_datatrove().DocumentTokenizerMerger(
        str(tmp_path / "parts"), str(tmp_path / "merged"), "yo", progress=False, seed=1
    )
    merger.run()
    tree = open_token_tree(tmp_path / "merged", vocab_size=VOCAB, eod_id=EOD)
    assert list(tree.train) == ["yo"]
    assert read_back(tree.train["yo"][0]) != docs
    assert sorted(read_back(tree.train["yo"][0])) == sorted(docs)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_pairs_of_megatron_come_back_as_they_were_written(tmp_path: Path, dtype: Any):
    sets = {"de": documents(1), "sw": documents(2)}
    for lang, docs in sets.items():
        megatron(tmp_path / f"{lang}_text_document", docs, dtype)
    megatron(tmp_path / "valid" / "sw_text_document", documents(3, 4), dtype)
    tree = open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD)
    assert {lang: read_back(shards[0]) for lang, shards in tree.train.items()} == sets
    assert {lang: read_back(shards[0]) for lang, shards in tree.valid.items()} == {"sw": documents(3, 4)}
    assert tree.shares == {}
    assert tree.notices == ()
    file = tmp_path / "valid" / "sw_text_document.bin"
    assert tree.digests["valid/sw_text_document.bin"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(tree.digests) == 6


def test_the_order_of_the_data_does_not_hang_on_the_format(tmp_path: Path):
    docs = documents(1, 200)
    megatron(tmp_path / "m" / "de_text_document", docs)
    trove(tmp_path / "d", "de.ds", docs)
    rows = []
    for name in "md":
        tree = open_token_tree(tmp_path / name, vocab_size=VOCAB, eod_id=EOD)
        loader = Loader(tree.train, {"de": 1.0}, seq_len=16, batch_size=8, seed=3)
        rows.append(np.concatenate([loader.batch(step).tokens for step in range(20)]))
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("kind", ["megatron", "datatrove"])
def test_a_model_is_trained_on_them(tmp_path: Path, tiny: Callable[..., TrainConfig], kind: str):
    # The command names vocabulary and end of document by settings; here they are given by hand.
    if kind == "megatron":
        megatron(tmp_path / "t" / "de_text_document", documents(1))
    else:
        trove(tmp_path / "t", "de.ds", documents(1))
    with pytest.raises(RecipeError, match="give vocab_size and eod_id as well"):
        train(tiny(), tmp_path / "t", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="give eod_id as well"):
        open_token_tree(tmp_path / "t", vocab_size=VOCAB)


def test_several_files_of_a_language_in_folders_or_numbered(tmp_path: Path):
    trove(tmp_path / "de", "00000_shuffled.ds", documents(1, 3))
    trove(tmp_path / "de", "00001_shuffled.ds", documents(2, 3))
    trove(tmp_path, "sw_00000_00000_shuffled.ds", documents(3, 3))
    trove(tmp_path, "sw_00001_00000_shuffled.ds", documents(4, 3))
    tree = open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD)
    assert {lang: len(shards) for lang, shards in tree.train.items()} == {"de": 2, "sw": 2}
    assert read_back(tree.train["sw"][1]) == documents(4, 3)


@pytest.mark.parametrize(
    ("name", "lang"),
    [
        ("de_text_document.idx", "de"), ("zh-hans_raw_document.bin", "zh-hans"), ("de_00003_text_document.bin", "de"),
        ("de_00000.idx", "de"), ("000_sw.ds", "sw"), ("00012_unshuffled.ds.index", "root"), ("train/yo/x.ds", "yo"),
        ("valid/ig_text_document.bin", "ig"), ("my_corpus_text_document.bin", "my_corpus"),
    ],
)  # fmt: skip
def test_the_language_is_in_the_name(name: str, lang: str):
    assert language_of(Path("root") / name, Path("root")) == lang


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no ids", r"de\.ds: is not there"), ("no index", r"de\.ds\.index: is not there"),
        ("ids cut", r"de\.ds: .* bytes where de\.ds\.index names"),
        ("index cut", r"de\.ds\.index: is truncated"), ("an end too few", r"de\.ds: .* bytes where"),
        ("ends fall", r"de\.ds\.index: document 1 ends before it begins"), ("metadata", r"de\.ds: [0-9,]+ bytes where"),
    ],
)  # fmt: skip
def test_broken_files_of_datatrove_are_refused_by_name(tmp_path: Path, fault: str, message: str):
    ids = trove(tmp_path, "de.ds", documents(1, 100), save_final_metadata=True)
    index = tmp_path / "de.ds.index"
    if fault in ("no ids", "no index"):
        (ids if fault == "no ids" else index).unlink()
    elif fault == "ids cut":
        os.truncate(ids, ids.stat().st_size - 2)
    elif fault == "index cut":
        os.truncate(index, index.stat().st_size - 3)
    elif fault == "an end too few":
        os.truncate(index, index.stat().st_size - 8)
    elif fault == "ends fall":
        ends = np.fromfile(index, "<u8")
        ends[1] = ends[0] - 1
        ends.tofile(index)
    else:
        (tmp_path / "de.ds.metadata").write_text("gpt2|4\n1000\n1 kT", "utf-8")
    with pytest.raises(TrainingError, match=message):
        open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD)


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_half_a_pair_is_refused_by_name(tmp_path: Path, suffix: str):
    megatron(tmp_path / "de_text_document", documents(1))
    (tmp_path / f"de_text_document.{suffix}").unlink()
    with pytest.raises(TrainingError, match=rf"de_text_document\.{suffix}: is not there"):
        open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD)


def test_folders_that_make_no_sense_are_refused(tmp_path: Path):
    megatron(tmp_path / "both" / "de_text_document", documents(1))
    trove(tmp_path / "both", "de.ds", documents(1))
    with pytest.raises(ShardError, match=r"both \.bin/\.idx pairs"):
        find_foreign_shards(tmp_path / "both")
    megatron(tmp_path / "held" / "valid" / "de_text_document", documents(1))
    with pytest.raises(TrainingError, match="nothing to train on"):
        open_token_tree(tmp_path / "held", vocab_size=VOCAB, eod_id=EOD)
    with pytest.raises(RecipeError, match="eod_id: 60 is not below vocab_size 60"):
        open_token_tree(tmp_path / "held", vocab_size=VOCAB, eod_id=60)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path):
    trove(tmp_path, "de.ds", [[5, 70, EOD]])
    with pytest.raises(TrainingError, match=r"de\.ds: token id 70"):
        open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD)


def test_documents_without_an_end_and_no_held_out_split_are_told(tmp_path: Path):
    trove(tmp_path, "de.ds", [[5, 6], [7, 8]])
    trove(tmp_path, "sw.ds", [[5, EOD], [7, 8]])
    held_out, ends = open_token_tree(tmp_path, vocab_size=VOCAB, eod_id=EOD).notices
    assert "no folder `valid`" in held_out
    assert ends.startswith("de: no document looked at ends with eod_id 1 (the first one with 6)")


def test_sizes_alone_do_not_stand_for_digests(tmp_path: Path):
    ids = trove(tmp_path, "de.ds", [[5, EOD]])
    digests = open_token_tree(tmp_path, "size", vocab_size=VOCAB, eod_id=EOD).digests
    index = hashlib.sha256((tmp_path / "de.ds.index").read_bytes()).hexdigest()
    assert digests == {"de.ds": f"{ids.stat().st_size} bytes", "de.ds.index": index}
