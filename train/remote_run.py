"""A training run whose directory lies on an object store: trained in a folder here, of which the store has a copy.

Checkpoints are written by renaming, and records by appending, which no store can. So a run at a URL is trained in a
working copy on this machine. What the store has of the run is fetched first, if it is ahead of what is here; each
checkpoint is sent when it is whole, and all the rest at the end. Of a checkpoint ``checkpoint.json`` is sent last, and
one without it is none. An object ``.lock`` keeps a second machine from training the same run.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.errors import ShardError, TrainingError
from lola_data.remote_trees import objects_below
from lola_data.store_lock import store_lock
from train.run_dir import sole_writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lola_data.remote_trees import Listed
    from lola_data.store_lock import HeldLock
    from train.ranks import Ranks

_CHECKPOINTS, _RECORD = "checkpoints/", "/checkpoint.json"
_LOCK = ".lock"


class RemoteRun:
    """The copy on the store of a run's directory.

    Args:
        url: of the run's directory.
        cache: folder here below which the working copy lies.
        ranks: processes of the run; the first of them alone talks to the store.

    Attributes:
        folder: the working copy.

    Raises:
        TrainingError: the processes run on several machines, which share no working copy.
    """

    def __init__(self, url: str, cache: Path, ranks: Ranks) -> None:
        self.url = url.rstrip("/")
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.folder = cache / "runs" / name / self.url.rpartition("/")[2]
        self._sent: dict[str, tuple[int, int]] = {}
        self._lock: HeldLock | None = None
        if ranks.world > int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world)):
            raise TrainingError(
                f"{url}: a run of several machines needs a RUN that all of them see: name a folder on a shared file "
                f"system, and copy it to the store when it is finished"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run, here and on the store, for one process at a time.

        Raises:
            TrainingError: another process trains it, here or elsewhere; or the store or the disk cannot be written to.
        """

        def in_use(holder: str) -> TrainingError:
            return TrainingError(f"{self.url}: {holder} is training there; wait for it or stop it")

        with ExitStack() as stack:
            stack.enter_context(sole_writer(self.folder))
            try:
                self._lock = stack.enter_context(store_lock(storage.join(self.url, _LOCK), in_use))
            except ShardError as error:
                raise TrainingError(str(error)) from error
            yield

    def fetch(self) -> None:
        """Bring what the store has of the run, where that is ahead of what is here.

        Raises:
            TrainingError: the store cannot be reached, or the disk not be written to.
        """
        try:
            there, here = self._there(), self._here()
            if not there or (here and _newest(there) <= _newest(here)):
                return
            for path in self.folder.iterdir() if self.folder.exists() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != _LOCK:  # Which is held: another file of the name would not be.
                    path.unlink()
            for path in there:
                storage.copy(storage.join(self.url, path), str(self.folder / path))
        except (ShardError, OSError) as error:
            raise TrainingError(f"{self.url}: cannot be fetched: {error}") from error

    def send(self) -> None:
        """Bring the copy on the store up to what is whole here; what is gone here is deleted there.

        Raises:
            TrainingError: the store cannot be written to, or another process has taken the run over. What is here
                stays.
        """
        if self._lock is not None and (other := self._lock.taken_by()) is not None:
            raise TrainingError(
                f"{self.url}: {other} has taken the run over, since nothing was heard of this process for a while. "
                f"Nothing more is sent; what was done here is in {self.folder}"
            )
        try:
            here = self._here()
            for path in sorted(here, key=_order):
                file = self.folder / path
                try:
                    found = file.stat()
                    version = (found.st_size, found.st_mtime_ns)
                    if self._sent.get(path) == version:
                        continue
                    storage.copy(str(file), storage.join(self.url, path))
                except FileNotFoundError:
                    continue  # A checkpoint that was dropped meanwhile.
                self._sent[path] = version
            gone = sorted(self._there().keys() - self._here(), key=_order)
            for path in reversed(gone):
                storage.remove(storage.join(self.url, path))
                self._sent.pop(path, None)
        except ShardError as error:
            raise TrainingError(
                f"{error}. The run itself is in {self.folder}; the same command goes on from there and sends it"
            ) from error

    def _there(self) -> dict[str, Listed]:
        found = objects_below(self.url, hidden=True)
        found.pop(_LOCK, None)
        return found

    def _here(self) -> set[str]:
        """Files that are whole. Of hidden ones those inside a checkpoint: torch calls its index ``.metadata``."""
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return {
            path.as_posix()
            for path in paths
            if not any(part.startswith(".") for part in path.parts[:-1])
            and path.name != _LOCK
            and not path.name.endswith(storage.TEMPORARY_SUFFIX)
        }


def _order(path: str) -> tuple[bool, bool, str]:
    """Checkpoints first, each with its record last; so what says that something is whole comes after it."""
    return not path.startswith(_CHECKPOINTS), path.endswith(_RECORD) or path == "summary.json", path


def _newest(files: Iterable[str]) -> str:
    """Name of the newest whole checkpoint, or an empty string."""
    whole = [path for path in files if path.startswith(_CHECKPOINTS) and path.endswith(_RECORD)]
    return max(whole, default="")


def place_of_tokens(tokens: str | Path, run: str | Path) -> str:
    """How a run's ``config.json`` names its token tree: relative to the run where both are local, or on one store."""
    one, other = str(tokens), str(run)
    if not storage.is_remote(one):
        return os.path.relpath(one, other) if not storage.is_remote(other) else str(Path(one).absolute())
    if one.split("/")[:3] == other.split("/")[:3]:  # The protocol, and the bucket.
        return posixpath.relpath(one.partition("://")[2], other.partition("://")[2])
    return one
