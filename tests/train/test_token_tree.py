from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from lola_data.errors import RecipeError, TrainingError
from lola_data.tokens import TokenShardWriter
from tests.train.conftest import EOD, VOCAB, documents, write_tree
from train.token_tree import check_ids, open_token_tree

if TYPE_CHECKING:
    from pathlib import Path

Verify = Literal["sha256", "size"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def spoil(tree: Path, fault: str) -> None:
    """Do to the shard ``train/bb_00000`` what ``fault`` says."""
    ids, index = tree / "train" / "bb_00000.bin", tree / "train" / "bb_00000.idx"
    if fault == "no ids":
        ids.unlink()
    elif fault == "no index":
        index.unlink()
    elif fault == "ids cut":
        os.truncate(ids, ids.stat().st_size - 2)
    elif fault == "ids cut to nothing":
        os.truncate(ids, 0)
    elif fault == "index cut":
        os.truncate(index, index.stat().st_size - 8)
    elif fault == "a bit of an id":
        flip(ids, 10)
    elif fault == "a bit of a length":
        flip(index, 34)
    elif fault == "another dtype":
        with TokenShardWriter(tree / "train" / "bb_00000", np.int32) as writer:
            docs = documents(3, 25, 30, 60)
            writer.add_documents(np.concatenate(docs), np.array([len(doc) for doc in docs]))
    elif fault == "another shard":
        for suffix in ("bin", "idx"):
            shutil.copy(tree / "train" / f"aa_00000.{suffix}", tree / "train" / f"bb_00000.{suffix}")
    elif fault == "documents swapped":
        docs = [documents(3, 25, 30, 60)[number] for number in (1, 0, *range(2, 25))]
        with TokenShardWriter(tree / "train" / "bb_00000", np.uint16) as writer:
            writer.add_documents(np.concatenate(docs), np.array([len(doc) for doc in docs]))


FAULTS = {
    "no ids": r"bb_00000\.bin: No such file",
    "no index": r"bb_00000\.idx: No such file",
    "ids cut": r"bb_00000\.bin: is truncated",
    "ids cut to nothing": r"bb_00000\.bin: is truncated",
    "index cut": r"bb_00000\.idx: index is truncated",
    "a bit of an id": r"bb_00000\.bin: SHA-256 is not the manifest's \([0-9a-f]{16}\.\.\., not [0-9a-f]{16}\.\.\.\)",
    "a bit of a length": r"bb_00000\.",
    "another dtype": r"bb_00000\.idx: SHA-256 is not the manifest's",
    "another shard": r"bb_00000",
    "documents swapped": r"bb_00000\.idx: SHA-256 is not the manifest's",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_a_shard_that_is_not_the_manifests_is_refused_by_name(tree: Path, fault: str, verify: Verify):
    open_token_tree(tree, verify)
    spoil(tree, fault)
    if fault == "a bit of an id" and verify == "size":
        assert open_token_tree(tree, verify).train  # the ids are not read: that is what `size` is for
        return
    with pytest.raises(TrainingError, match=FAULTS[fault]):
        open_token_tree(tree, verify)


@pytest.mark.parametrize("name", ["train/cc_00000.bin", "train/bb_00001.idx", "bb_00000.bin"])
def test_a_shard_that_the_manifest_does_not_speak_of_is_refused_by_name(tree: Path, name: str):
    shutil.copy(tree / "train" / "bb_00000.bin", tree / name)
    with pytest.raises(TrainingError, match=rf"{name}: is not in manifest\.json"):
        open_token_tree(tree, "size")


def test_what_is_no_shard_may_lie_in_the_tree(tree: Path):
    (tree / "train" / ".bb_00001.bin.tmp").write_bytes(b"x")
    (tree / "train" / ".cache").mkdir()
    (tree / "train" / ".cache" / "x.bin").write_bytes(b"x")
    (tree / "train" / "bb_00000.ids.parquet").write_bytes(b"x")
    assert open_token_tree(tree).train.keys() == {"aa", "bb"}


def test_the_first_of_several_faults_is_named(tmp_path: Path):
    # Shards are read several at a time; what is told must not hang on which of them is the quickest.
    parts = [documents(seed, 3, 2, 20) for seed in range(12)]
    tree = write_tree(tmp_path, {"train": {"aa": parts}})
    for number in (11, 5, 9):
        flip(tree / "train" / f"aa_{number:05d}.bin", 0)
    with pytest.raises(TrainingError, match="aa_00005"):
        open_token_tree(tree)


def test_what_the_manifest_says_of_the_vocabulary_is_not_overruled(tree: Path):
    assert open_token_tree(tree, vocab_size=VOCAB, eod_id=EOD).tokenizer.vocab_size == VOCAB
    with pytest.raises(RecipeError, match=f"vocab_size: 7, but .*manifest.json says {VOCAB}"):
        open_token_tree(tree, vocab_size=7)
    with pytest.raises(RecipeError, match=f"eod_id: 0, but .*manifest.json says {EOD}"):
        open_token_tree(tree, eod_id=0)


def test_the_digests_are_the_manifests(tree: Path):
    shards = json.loads((tree / "manifest.json").read_text())["shards"]
    expected = {f"{one['path']}.{kind}": one["sha256"][kind] for one in shards for kind in ("bin", "idx")}
    assert open_token_tree(tree).digests == open_token_tree(tree, "size").digests == expected


@pytest.mark.parametrize("token", [-1, 60])
def test_ids_that_the_vocabulary_does_not_have_are_refused(token: int):
    check_ids(np.array([0, 59]), 60, "here")
    with pytest.raises(TrainingError, match=f"here: token id {token} "):
        check_ids(np.array([0, token, 59]), 60, "here")
