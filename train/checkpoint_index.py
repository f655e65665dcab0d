"""The index of a checkpoint, read as data: a folder in, what torch's reader needs out, and no code of a stranger's run.

``torch.distributed.checkpoint`` keeps its index, the file ``.metadata``, as a pickle and reads it with ``pickle.load``,
which runs whatever the file says. Here only the handful of classes that such an index is made of can be named in it;
then its form is checked. Entries that are not tensors are refused too: torch loads those by an unrestricted unpickler.
The tensors themselves torch reads with ``weights_only=True``. So a checkpoint may come from a stranger, by a copy or
from a bucket.
"""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint import metadata as kinds
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo as StorageInfo  # pyright: ignore[reportPrivateUsage]
from torch.serialization import _get_layout  # pyright: ignore[reportPrivateUsage]

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = ".metadata"
_PART = re.compile(r"__\d+_\d+\.distcp")
"""File of tensors, as torch names it: process and number."""
_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (kinds.__name__, name): getattr(kinds, name)
        for name in (
            "_MEM_FORMAT_ENCODING", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
            "TensorProperties", "TensorStorageMetadata",
        )
    },
    (StorageInfo.__module__, StorageInfo.__name__): StorageInfo,
    ("torch", "Size"): torch.Size,
    # Looks a name up among torch's layouts, and does nothing else.
    ("torch.serialization", "_get_layout"): _get_layout,
    **{("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
}  # fmt: skip
"""All that an index may name. Calling these, with whatever arguments, makes values and does nothing."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"names `{module}.{name}`")
        return _ALLOWED[module, name]


def read_index(folder: Path) -> kinds.Metadata:
    """The index of the checkpoint in ``folder``.

    Raises:
        TrainingError: it cannot be read, or has something in it that an index of tensors has not.
    """
    path = folder / _NAME
    index: Any = None
    try:
        with path.open("rb") as stream:
            index = _Unpickler(stream).load()
        wrong = _wrong_in(index)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle raises nearly anything.
        wrong = next(iter(str(error).splitlines()), "") or type(error).__name__
    if wrong is not None:
        raise TrainingError(
            f"{path}: not the index of a checkpoint of tensors: it {wrong}. It was damaged or made to do harm; nothing "
            f"of it was run. Delete this checkpoint"
        )
    return index


def _wrong_in(index: Any) -> str | None:
    """What an index has that ours have not; None for a sound one."""
    if type(index) is not kinds.Metadata:
        return f"is of type {type(index).__name__}"
    if not isinstance(index.state_dict_metadata, dict) or not isinstance(index.storage_data, dict):
        return "lacks its tables"
    for name, entry in index.state_dict_metadata.items():
        if type(name) is not str or type(entry) is not kinds.TensorStorageMetadata:
            return f"has an entry `{name}` that is no tensor"
    for key, place in index.storage_data.items():
        if type(key) is not kinds.MetadataIndex or type(place) is not StorageInfo:
            return "has a place that is none"
        if not isinstance(place.relative_path, str) or not _PART.fullmatch(place.relative_path):
            return f"names the file `{place.relative_path!s:.100}`"
        if place.transform_descriptors:
            return "asks for transforms"
    return None


class IndexedReader(FileSystemReader):
    """torch's reader of a checkpoint, with the index as :func:`read_index` gives it.

    Raises:
        TrainingError: as :func:`read_index`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._index = read_index(folder)

    def read_metadata(self) -> kinds.Metadata:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The index. Without further parameters, so that torch asks for no other one."""
        if self._index.storage_meta is None:
            self._index.storage_meta = kinds.StorageMeta()
        self._index.storage_meta.load_id = self.load_id
        return self._index
