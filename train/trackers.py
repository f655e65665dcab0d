"""The records of a run to Weights & Biases or to trackio, if the settings say so: numbers by tag in, nothing out.

``metrics.jsonl`` stays the truth: the tracker gets the numbers that TensorBoard gets, and whatever goes wrong with it
while training is told once and ends neither the run nor its records. Accounts, servers and offline work are the
libraries' own matter, by their own environment variables (``WANDB_MODE``, ``TRACKIO_SPACE_ID``, ...); no key is ever
read from here to be kept or shown.

A run directory holds ``tracker.json``, which says under which id the run is known there, so that a resumed run goes on
in its place.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import uuid
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from lola_data.errors import TrainingError
from lola_data.plain_settings import flat_settings
from train.run_dir import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from lola_data.train_config import TrainConfig

IDS = "tracker.json"
"""In a run's directory: the id of the run by tracker. Not a secret."""
FINISH_SECONDS = "120"
"""How long W&B may go on sending at the end. Without a limit, a network that is down would hold a job that was told to
stop until it is killed; what was not sent is kept for ``wandb sync``."""


class Library(Protocol):
    """A run as a tracker's library knows it."""

    missing_from: int | None
    """Of the records before this session, the tracker lacks those from this step on; None: it has them."""

    def log(self, scalars: dict[str, float], step: int) -> None:
        """Send numbers by tag."""

    def finish(self, failed: bool) -> None:
        """Send what is left and say how the run ended."""


class Tracker:
    """Sends numbers to a library, and stops at its first error.

    Args:
        name: of the tracker.
        library: the run.
        note: told the error, once.
    """

    def __init__(self, name: str, library: Library, note: Callable[[str], None]) -> None:
        self.name, self._library, self._note = name, library, note
        self.missing_from = library.missing_from
        self._told = False

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Send the numbers of a record.

        Args:
            scalars: finite numbers by tag.
            step: steps done.
        """
        if scalars and not self._told:
            self._try(lambda: self._library.log(scalars, step))

    def close(self, *, failed: bool = False) -> None:
        """Send what is left and end the session; the run can be gone on with."""
        self._try(lambda: self._library.finish(failed))

    def _try(self, call: Callable[[], None]) -> None:
        # Whatever a library of others raises, days of training do not hang on it.
        try:
            call()
        except Exception as error:
            if not self._told:
                self._told = True
                self._note(f"tracker: {self.name}: {_said(error)}; training goes on, metrics.jsonl has all records")


def check_tracker(config: TrainConfig) -> None:
    """Raises:
    TrainingError: the settings name a tracker whose package is not installed.
    """
    if config.tracker == "none":
        return
    spec = find_spec(config.tracker)
    # Offline runs of W&B leave a folder of that name, which Python takes for a package without a file.
    if spec is None or spec.origin is None:
        raise TrainingError(
            f"tracker: {config.tracker} is not installed; pip install lola-data[{config.tracker}], or train without it "
            "(tracker: none)"
        )


def open_tracker(config: TrainConfig, run_dir: Path, *, step: int, note: Callable[[str], None]) -> Tracker | None:
    """Begin a session of the run in the tracker that the settings name; None if they name none.

    Args:
        config: settings; they become the run's configuration.
        run_dir: the run's directory, which exists.
        step: steps done. At 0 the run is a new one; later it goes on under the id it had.
        note: told what a person should know.

    Raises:
        TrainingError: the package is not installed; or the tracker cannot be reached before step 0. Later on that is
            told, and None returned, so that a job that is started again at night does go on.
    """
    if config.tracker == "none":
        return None
    check_tracker(config)
    ids = _read_ids(run_dir / IDS) if step else {}
    known = config.tracker in ids
    ids.setdefault(config.tracker, uuid.uuid4().hex[:8])
    start = _Wandb if config.tracker == "wandb" else _Trackio
    try:
        library = start(importlib.import_module(config.tracker), config, run_dir, ids[config.tracker], known)
    except Exception as error:
        said = f"tracker: {config.tracker} did not start: {_said(error)}"
        if step:
            note(f"{said}; training goes on without it")
            return None
        hint = "; WANDB_MODE=offline keeps the records here for wandb sync" if config.tracker == "wandb" else ""
        raise TrainingError(f"{said}{hint}, or train without it (tracker: none)") from error
    if not known:
        write_json(run_dir / IDS, ids)
    return Tracker(config.tracker, library, note)


class _Wandb:
    """A run of Weights & Biases. Its files lie in the run's directory, unless ``WANDB_DIR`` says otherwise."""

    def __init__(self, wandb: ModuleType, config: TrainConfig, run_dir: Path, id: str, known: bool) -> None:
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_SECONDS)
        self._run: Any = wandb.init(
            project=config.project, name=_name(config, run_dir), id=id, resume="allow",
            config=flat_settings(config.to_dict()), allow_val_change=True,
            dir=os.environ.get("WANDB_DIR", str(run_dir)),
        )  # fmt: skip
        # W&B takes no step twice. Its server says where the run stands; offline, nobody knows what an earlier session
        # had written before it was killed.
        self._first: int = self._run.starting_step
        self.missing_from = None if known and self._run.offline else self._first

    def log(self, scalars: dict[str, float], step: int) -> None:
        if step >= self._first:
            self._run.log(scalars, step=step)

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """A run of trackio, which tells runs apart by their names alone: the id stands behind the name."""

    def __init__(self, trackio: ModuleType, config: TrainConfig, run_dir: Path, id: str, known: bool) -> None:
        self._trackio = trackio
        self.missing_from = None if known else 0
        # trackio talks on standard output, which belongs to the results of the command.
        with redirect_stdout(sys.stderr):
            self._run: Any = trackio.init(
                project=config.project, name=f"{_name(config, run_dir)}-{id}", resume="allow",
                config=flat_settings(config.to_dict()),
            )  # fmt: skip

    def log(self, scalars: dict[str, float], step: int) -> None:
        self._run.log(scalars, step=step)

    def finish(self, failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


def _name(config: TrainConfig, run_dir: Path) -> str:
    return config.run_name or run_dir.resolve().name


def _read_ids(path: Path) -> dict[str, str]:
    try:
        ids = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return ids if isinstance(ids, dict) else {}


def _said(error: Exception) -> str:
    """An error in one line, without any value of the environment that is a key."""
    said = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if len(value) >= 8 and name.endswith(("_KEY", "_TOKEN", "_SERVER_URL")):
            said = said.replace(value, "***")
    return said.rstrip(".")
