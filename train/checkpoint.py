"""Checkpoints: the state of a run in, a folder that is whole or not there out, and back.

``checkpoints/step_00000100/`` holds ``state.pt`` (tensors: model and optimiser) and
``checkpoint.json`` (step, tokens, settings, shard digests, size and SHA-256 of ``state.pt``). It is written under a
temporary name, synced and renamed, so a kill at any byte leaves the one before as it was; a copy that lost bytes on the
way is told by its digest. No random state is kept: all randomness of a step is a function of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from lola_data.errors import TrainingError
from lola_data.storage import sync_folder
from lola_data.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"step_(\d{8,})")
_STATE, _RECORD = "state.pt", "checkpoint.json"


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
    """A checkpoint as read back: ``step`` steps are done, ``tokens`` tokens seen; ``state`` holds the tensors."""

    path: Path
    step: int
    tokens: int
    identity: Identity
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, *, step: int, tokens: int, identity: Identity, state: dict[str, Any], keep: int
) -> Path:
    """Write a checkpoint of ``step`` into ``folder`` and drop all but the newest ``keep``; returns its path.

    Raises:
        TrainingError: the disk cannot be written to.
    """
    final = folder / f"step_{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step_*.tmp"):
            shutil.rmtree(leftover)
        temporary.mkdir()
        with (temporary / _STATE).open("wb") as stream:
            torch.save(state, stream)
            _sync(stream.fileno(), stream)
        size, digest = _fingerprint(temporary / _STATE)
        record = {"step": step, "tokens": tokens, "state": {"bytes": size, "sha256": digest}, **asdict(identity)}
        with (temporary / _RECORD).open("w", encoding="utf-8") as stream:
            json.dump(record, stream, indent=1)
            _sync(stream.fileno(), stream)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync_folder(folder)
        for _, old in _checkpoints(folder)[keep:]:
            shutil.rmtree(old)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(f"{final}: cannot be written: {error}; free space and run again, it goes on") from error
    return final


def newest_checkpoint(folder: Path, *, map_location: torch.device | str = "cpu") -> Checkpoint | None:
    """The newest whole checkpoint in ``folder``, or None; torn ones are passed over."""
    return next(whole_checkpoints(folder, map_location=map_location), None)


def whole_checkpoints(folder: Path, *, map_location: torch.device | str = "cpu") -> Iterator[Checkpoint]:
    """The whole checkpoints in ``folder``, newest first, each read when asked for."""
    for step, path in _checkpoints(folder):
        try:
            record = json.loads((path / _RECORD).read_text("utf-8"))
            expected = (record["state"]["bytes"], record["state"]["sha256"])
            if record["step"] != step or _fingerprint(path / _STATE) != expected:
                continue
            state = torch.load(path / _STATE, map_location=map_location, weights_only=True)
            identity = Identity(record["config"], record["shards"], record["tokenizer"])
            yield Checkpoint(path, step, int(record["tokens"]), identity, state)
        except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
            continue


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
        ("", _flat(found.config), _flat(wanted.config)),
        ("tokenizer.", found.tokenizer, wanted.tokenizer),
        ("token shard ", found.shards, wanted.shards),
    ):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key not in free:
                raise TrainingError(
                    f"{path}: made with {kind}{key} = {old.get(key)!r}, this run has {new.get(key)!r}; "
                    "set it back, or train into a new run directory"
                )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def _fingerprint(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(descriptor: int, stream: Any) -> None:
    stream.flush()
    os.fsync(descriptor)
