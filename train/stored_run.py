"""A run that lies on an object store, for those who read it: its address in, a folder here with a copy of it out.

Brought here are the files of the run itself, the records of all checkpoints, and the tensors of the one that is asked
for. What is here already in the same size and version (ETag) is not fetched again; what the store has not is deleted
here. Of each run the tensors of the checkpoint that was read last are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import ShardError, TrainingError
from lola_data.remote_trees import objects_below
from lola_data.train_config import TrainConfig
from train.shard_cache import ShardCache, cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedRandom

    from lola_data.remote_trees import Listed
    from train.generate import Step

_CHECKPOINTS, _RECORD = "checkpoints/step_", "/checkpoint.json"
_CHUNK_BYTES = 2**22


def copies_folder() -> Path:
    """Where the copies lie: ``$LOLA_DATA_CACHE/runs``, else ``~/.cache/lola-data/runs``."""
    return cache_folder(TrainConfig()).parent / "runs"


def default_cache() -> ShardCache:
    """The cache of token shards, where no settings of a run speak of one."""
    config = TrainConfig()
    return ShardCache(cache_folder(config), int(config.cache_gb * 10**9))


@contextmanager
def run_here(
    run: str | Path, step: Step | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Iterator[Path]:
    """The directory of a run; of one at a URL that of a copy here, which no other process changes during the block.

    Args:
        run: a run's directory, or its URL.
        step: of the checkpoint whose tensors are wanted: a number, ``newest`` or ``best``. None: no tensors.
        progress: called with (bytes fetched, bytes to fetch in all).

    Raises:
        TrainingError: there is no run at the URL, it changes while it is fetched, the store cannot be reached, or the
            disk takes no copy. What is raised in the block names the URL in the place of the copy.
    """
    url = str(run).rstrip("/")
    if not storage.is_remote(url):
        yield Path(run)
        return
    place = copies_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    # The name is what figures call a run by.
    copy = _Copy(url, place / url.rpartition("/")[2], progress or (lambda done, total: None))
    with _locked(place):
        try:
            copy.fetch(step)
            yield copy.folder
        except (TrainingError, ShardError) as error:
            raise TrainingError(str(error).replace(str(copy.folder), url)) from error


@contextmanager
def _locked(place: Path) -> Iterator[BufferedRandom]:
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = (place / ".lock").open("ab+")
    except OSError as error:
        raise TrainingError(
            f"{place}: cannot be made: {error.strerror or error}; set LOLA_DATA_CACHE to a folder with room"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle


class _Copy:
    """The copy of a run at ``url`` in ``folder``. Beside the folder ``versions.json`` says what each file is of."""

    def __init__(self, url: str, folder: Path, progress: Callable[[int, int], None]) -> None:
        self.url, self.folder = url, folder
        self._progress = progress
        self._versions_path = folder.with_name("versions.json")
        self._versions = self._read_versions()
        self._fetched = self._total = 0

    def fetch(self, step: Step | None) -> None:
        """Bring the copy up to what the store has."""
        there = objects_below(self.url, hidden=True)
        if "config.json" not in there:
            raise TrainingError(
                f"{self.url}/config.json: is not there; name the directory of a run (`lola-data train`)"
            )
        told = {path for path in there if _is_small(path)}
        self._drop(lambda path: path not in there)
        self._take({path: there[path] for path in told})
        wanted = None if step is None else self._tensors_of(step, there)
        if wanted:
            # Those of another checkpoint make room first.
            self._drop(lambda path: path not in told and path not in wanted)
            self._take(wanted)

    def _tensors_of(self, step: Step, there: dict[str, Listed]) -> dict[str, Listed]:
        """The files of a checkpoint that is whole on the store; of one that is none nothing, which is told by others
        in the words that they have for it."""
        whole = sorted(
            path.removesuffix(_RECORD)
            for path in there
            if path.startswith(_CHECKPOINTS) and path.endswith(_RECORD) and path.count("/") == 2
        )
        if step == "newest":
            chosen = whole[-1] if whole else ""
        else:
            from train.generate import best_step

            chosen = f"{_CHECKPOINTS}{best_step(self.folder) if step == 'best' else step:08d}"
        if chosen not in whole:
            return {}
        return {path: listed for path, listed in there.items() if path.startswith(f"{chosen}/")}

    def _take(self, files: dict[str, Listed]) -> None:
        lacking = {path: listed for path, listed in sorted(files.items()) if not self._has(path, listed)}
        self._total += sum(listed.size for listed in lacking.values())
        try:
            for path, listed in lacking.items():
                self._versions.pop(path, None)
                self._bring(path)
                self._versions[path] = [listed.size, listed.version]
        finally:
            storage.write_json(str(self._versions_path), self._versions)

    def _has(self, path: str, listed: Listed) -> bool:
        file = self.folder / path
        known = bool(listed.version) and self._versions.get(path) == [listed.size, listed.version]
        return known and file.is_file() and file.stat().st_size == listed.size

    def _bring(self, path: str) -> None:
        source, target = storage.join(self.url, path), str(self.folder / path)
        try:
            with storage.open_input(source) as read, storage.atomic_output(target, durable=False) as written:
                while chunk := read.read(_CHUNK_BYTES):
                    written.write(chunk)
                    self._fetched += len(chunk)
                    self._progress(self._fetched, self._total)
        except FileNotFoundError as error:
            raise TrainingError(
                f"{source}: was deleted while the run was read, for it goes on; run the same command again"
            ) from error

    def _drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Delete files here, and the folders of checkpoints that nothing is left of."""
        for file in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
            path = file.relative_to(self.folder).as_posix()
            if file.is_file() and is_unwanted(path):
                file.unlink()
                self._versions.pop(path, None)
        for folder in self.folder.glob(f"{_CHECKPOINTS}*"):
            if not any(folder.iterdir()):
                shutil.rmtree(folder)

    def _read_versions(self) -> dict[str, Any]:
        try:
            found = json.loads(self._versions_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _is_small(path: str) -> bool:
    """Whether a file is one of the run itself, or the record of a checkpoint."""
    if "/" not in path:
        return not path.startswith(".")
    return path.startswith(_CHECKPOINTS) and path.endswith(_RECORD) and path.count("/") == 2
