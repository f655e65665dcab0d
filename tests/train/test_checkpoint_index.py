"""The index of a checkpoint is read as data: what a stranger puts into one is refused, and nothing of it is run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.distributed.checkpoint import metadata as kinds

from lola_data.errors import TrainingError
from train.checkpoint import Checkpoint, Identity, Saver, newest_checkpoint
from train.checkpoint_index import read_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {"model.weight": torch.arange(6.0).reshape(2, 3), "optimizer.step": torch.tensor(3)}


class Harm:
    """What a pickle does when it is read: make the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _checkpoint(folder: Path) -> Checkpoint:
    with Saver(folder, Identity({}, {}, {}), keep=1) as saver:
        saver.save(STATE, step=1, tokens=2)
    found = newest_checkpoint(folder)
    assert found is not None
    return found


def _with_index(folder: Path, content: bytes) -> Checkpoint:
    """A checkpoint with another index, and a record that vouches for it, as its maker would see to."""
    path = _checkpoint(folder).path
    (path / ".metadata").write_bytes(content)
    record = json.loads((path / "checkpoint.json").read_text("utf-8"))
    record["files"][".metadata"] = [len(content), hashlib.sha256(content).hexdigest()]
    (path / "checkpoint.json").write_text(json.dumps(record), "utf-8")
    found = newest_checkpoint(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_every_type_of_tensor_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {"one": torch.ones(2, 3, dtype=dtype)[:, :2], "none": torch.zeros(0, dtype=dtype)}
    with Saver(tmp_path, Identity({}, {}, {}), keep=1) as saver:
        saver.save(state, step=1, tokens=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize("read", ["tensors", "load_into"])
def test_code_in_an_index_is_not_run(tmp_path: Path, read: str) -> None:
    harmed = tmp_path / "harmed"
    pickle.loads(pickle.dumps(Harm(harmed)))
    assert harmed.is_dir(), "such a pickle does do harm where it is read without care"
    harmed.rmdir()
    found = _with_index(tmp_path / "c", pickle.dumps(Harm(harmed)))
    with pytest.raises(TrainingError, match=r"\.metadata: not the index .* names `\w+\.mkdir`") as caught:
        _ = found.tensors if read == "tensors" else found.load_into({"model.weight": torch.zeros(2, 3)})
    assert "\n" not in str(caught.value)
    assert not harmed.exists()


def _bytes_entry(index: kinds.Metadata) -> None:
    index.state_dict_metadata["model.weight"] = kinds.BytesStorageMetadata()


def _disguised_entry(index: kinds.Metadata) -> None:
    index.state_dict_metadata["model.weight"] = index.storage_data


def _outside(index: kinds.Metadata) -> None:
    key = next(iter(index.storage_data))
    index.storage_data[key] = replace(index.storage_data[key], relative_path="../../other/__0_0.distcp")


def _transformed(index: kinds.Metadata) -> None:
    key = next(iter(index.storage_data))
    index.storage_data[key] = replace(index.storage_data[key], transform_descriptors=["stream.zstd"])


def _no_tables(index: kinds.Metadata) -> None:
    index.storage_data = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # torch would load this one with an unrestricted unpickler.
        (_bytes_entry, r"names `torch\.distributed\.checkpoint\.metadata\.BytesStorageMetadata`"),
        (_disguised_entry, "has an entry `model.weight` that is no tensor"),
        (_outside, r"names the file `\.\./\.\./other/__0_0\.distcp`"),
        (_transformed, "asks for transforms"),
        (_no_tables, "lacks its tables"),
    ],
)
def test_an_index_of_another_form_is_refused(
    tmp_path: Path, change: Callable[[kinds.Metadata], None], said: str
) -> None:
    index = read_index(_checkpoint(tmp_path / "first").path)
    change(index)
    found = _with_index(tmp_path / "second", pickle.dumps(index))
    with pytest.raises(TrainingError, match=said):
        found.load_into({"model.weight": torch.zeros(2, 3)})


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no pickle", pickle.dumps({}), pickle.dumps(torch.Size([1]))])
def test_what_is_no_index_is_said_in_a_line(tmp_path: Path, content: bytes) -> None:
    found = _with_index(tmp_path, content)
    with pytest.raises(TrainingError, match=r"\.metadata: not the index") as caught:
        _ = found.tensors
    assert "\n" not in str(caught.value)


def test_code_in_a_part_is_not_run(tmp_path: Path) -> None:
    """The tensors are torch's own files; torch reads them with ``weights_only``."""
    harmed = tmp_path / "harmed"
    path = _checkpoint(tmp_path / "c").path
    index = read_index(path)
    torch.save(Harm(harmed), path / "__0_0.distcp")
    size = (path / "__0_0.distcp").stat().st_size
    for key, place in index.storage_data.items():
        index.storage_data[key] = replace(place, offset=0, length=size)
    (path / ".metadata").write_bytes(pickle.dumps(index))
    found = Checkpoint(path, 1, 2, Identity({}, {}, {}))
    with pytest.raises(TrainingError, match="cannot be loaded"):
        found.load_into({"model.weight": torch.zeros(2, 3)})
    assert not harmed.exists()
