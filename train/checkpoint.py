"""Checkpoints: the state of a run in, a folder that is whole or not there out, and back.

``checkpoints/step_00000100/`` holds the tensors as ``torch.distributed.checkpoint`` writes them, each process its own
part, and ``checkpoint.json`` (step, tokens, settings, shard digests, held-out loss, size and SHA-256 of every file). It
is written under a temporary name, by a thread while training goes on, synced and renamed, so a kill at any byte leaves
the one before as it was; a copy that lost bytes on the way is told by its digest. A tensor is read back by any number
of processes, however it is spread over them. No random state is kept: all randomness of a step is a function of
(seed, step).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from lola_data.errors import TrainingError
from lola_data.plain_settings import flat_settings
from lola_data.storage import sync_folder
from lola_data.train_config import TrainConfig
from train.checkpoint_index import IndexedReader
from train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

# Of torch, in whichever thread: that a run of one process has no others.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

_NAME = re.compile(r"step_(\d{8,})")
_RECORD = "checkpoint.json"


@dataclass(frozen=True)
class Identity:
    """What a run is made of; a checkpoint of another identity is refused.

    Attributes:
        config: settings, as plain values.
        shards: SHA-256 of each file of the token tree, by path.
        tokenizer: ``vocab_size``, ``eod_id`` and ``sha256``.
    """

    config: dict[str, Any]
    shards: dict[str, str]
    tokenizer: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        path: its folder.
        step: steps done.
        tokens: tokens seen.
        identity: of the run.
        held_out: mean held-out loss at that step, if it was measured then.
        extra: plain values kept beside the tensors.
    """

    path: Path
    step: int
    tokens: int
    identity: Identity
    held_out: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, whole, on the CPU."""
        reader = IndexedReader(self.path)
        state = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        load(state, storage_reader=reader, no_dist=True)
        return state

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix.``, without it: ``model``, ``optimizer``."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def load_into(self, state: dict[str, Tensor], ranks: Ranks = ALONE) -> None:
        """Fill tensors of those names in place, each process its part.

        Raises:
            TrainingError: a tensor that the checkpoint has not, or of another shape; an index that is not of tensors.
        """
        reader = IndexedReader(self.path)
        try:
            load(state, storage_reader=reader, no_dist=ranks.world == 1)
        except (RuntimeError, ValueError, KeyError, CheckpointException) as error:
            raise TrainingError(f"{self.path}: cannot be loaded: {_said(error)}") from error


class _Writer(FileSystemWriter):
    """Leaves out what would be another each time: a random name, and the temporary folder."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()


class Saver:
    """Writes the checkpoints of a run, one at a time. A context manager: what is under way is finished at its end.

    Args:
        folder: where they go.
        identity: of the run.
        keep: newest ones that stay.
        keep_best: whether that of the lowest held-out loss stays, too.
        ranks: processes of the run, which call this together.
        asynchronous: whether to write while the run goes on; the state is copied to memory of the CPU first.
        written: called in the first process when a checkpoint is whole; it may take its time.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        keep: int,
        keep_best: bool = False,
        ranks: Ranks = ALONE,
        asynchronous: bool = True,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.identity, self.keep, self.keep_best = folder, identity, keep, keep_best
        self._written = written
        self.ranks, self.asynchronous = ranks, asynchronous
        self._threads = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        # Of its own, so that its messages do not meet those of the step that runs meanwhile.
        group = dist.new_group(backend="gloo") if ranks.world > 1 else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif self._under_way is not None:
                self._under_way.exception()
        finally:
            self._threads.shutdown()

    def save(
        self,
        state: dict[str, Tensor],
        *,
        step: int,
        tokens: int,
        held_out: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint of ``step`` and drop the old ones. Returns when ``state`` may change again.

        Raises:
            TrainingError: the disk cannot be written to; or that was so for the one before.
        """
        self.wait()
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".{final.name}.tmp"
        record = {"step": step, "tokens": tokens, "held_out": held_out, "extra": extra or {}, **asdict(self.identity)}
        try:
            if self.ranks.is_first:
                self.folder.mkdir(parents=True, exist_ok=True)
                for leftover in self.folder.glob(".step_*.tmp"):
                    shutil.rmtree(leftover)
                temporary.mkdir()
            self.ranks.wait()
            written = self._write(state, temporary)
        except (OSError, RuntimeError, CheckpointException) as error:
            raise self._failed(final, temporary, error) from error
        self._under_way = self._threads.submit(self._finish, written, temporary, final, record)
        if not self.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Until what is under way is whole.

        Raises:
            TrainingError: it could not be written.
        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def _write(self, state: dict[str, Tensor], folder: Path) -> Any:
        # One thread: the order of writing, and so the files, are the same each time.
        writer = _Writer(folder, thread_count=1)
        if not self.asynchronous:
            save(state, storage_writer=writer, process_group=self._group, no_dist=self.ranks.world == 1)
            return None
        return async_save(state, storage_writer=writer, process_group=self._group, no_dist=self.ranks.world == 1)

    def _finish(self, written: Any, temporary: Path, final: Path, record: dict[str, Any]) -> None:
        try:
            if written is not None:
                (written if isinstance(written, Future) else written.upload_completion).result()
            if not self.ranks.is_first:
                return
            names = sorted(path.name for path in temporary.iterdir())
            record["files"] = {name: list(_fingerprint(temporary / name)) for name in names}
            with (temporary / _RECORD).open("w", encoding="utf-8") as stream:
                json.dump(record, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(temporary)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            sync_folder(self.folder)
            self._prune()
            self._written()
        except (OSError, RuntimeError, CheckpointException) as error:
            raise self._failed(final, temporary, error) from error

    def _prune(self) -> None:
        there = _checkpoints(self.folder)
        kept = {path for _, path in there[: self.keep]}
        if self.keep_best:
            kept |= {path for path in (best_of(self.folder),) if path is not None}
        for _, path in there:
            if path not in kept:
                shutil.rmtree(path)

    def _failed(self, final: Path, temporary: Path, error: BaseException) -> TrainingError:
        shutil.rmtree(temporary, ignore_errors=True)
        return TrainingError(f"{final}: cannot be written: {_said(error)}; free space and run again, it goes on")


def _said(error: BaseException) -> str:
    """In a line; what torch raises holds the errors of all processes, and one of them tells enough."""
    failures = getattr(error, "failures", {})
    inner = next(iter(failures.values()), (error,))[0]
    return next(iter(str(inner).splitlines()), "") or type(inner).__name__


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in ``folder``, or None; torn ones are passed over."""
    return next(whole_checkpoints(folder), None)


def whole_checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """The whole checkpoints in ``folder``, newest first, each checked when asked for."""
    for step, path in _checkpoints(folder):
        found = _whole(step, path)
        if found is not None:
            yield found


def checkpoint_of(folder: Path, step: int) -> Checkpoint | None:
    """The checkpoint of ``step`` in ``folder``, if it is there and whole; no other one is read."""
    return next((found for at, path in _checkpoints(folder) if at == step and (found := _whole(at, path))), None)


def _whole(step: int, path: Path) -> Checkpoint | None:
    record = _record(path)
    try:
        if record is None or record["step"] != step:
            return None
        files = {name: tuple(print_) for name, print_ in record["files"].items()}
        if ".metadata" not in files or any(_fingerprint(path / name) != files[name] for name in files):
            return None
        identity = Identity(record["config"], record["shards"], record["tokenizer"])
        return Checkpoint(path, step, int(record["tokens"]), identity, record["held_out"], record["extra"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def best_of(folder: Path) -> Path | None:
    """The checkpoint of the lowest held-out loss, the earliest of equal ones; None where none was measured."""
    known = [
        (record["held_out"], step, path)
        for step, path in _checkpoints(folder)
        if (record := _record(path)) is not None and record.get("held_out") is not None
    ]
    return min(known)[2] if known else None


def has_checkpoints(folder: Path) -> bool:
    """Whether ``folder`` holds any checkpoint, whole or torn."""
    return bool(_checkpoints(folder))


def check_identity(found: Identity, wanted: Identity, path: Path) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        TrainingError: naming the first field that differs and both values.
    """
    free = TrainConfig.RESUME_FREE
    for kind, old, new in (
        ("", flat_settings(found.config), flat_settings(wanted.config)),
        ("tokenizer.", found.tokenizer, wanted.tokenizer),
        ("token shard ", found.shards, wanted.shards),
    ):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key not in free:
                raise TrainingError(
                    f"{path}: made with {kind}{key} = {old.get(key)!r}, this run has {new.get(key)!r}; "
                    "set it back, or train into a new run directory"
                )


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((path / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _fingerprint(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()
