"""Records of a run: one JSON line each in ``metrics.jsonl``, and the same numbers to TensorBoard and a tracker.

``kind`` is ``train`` (every ``log_every`` steps: step, tokens, loss in nats per token, balance, z, lr, grad_norm, load
by MoE layer and expert, its entropy, max_load and min_load by MoE layer, dead experts by MoE layer, dropped share,
epochs by language, tokens_per_second, mfu, memory_bytes, loader_share) or ``valid`` (held-out loss by language, its
unigram loss, bits per byte, mean). :data:`MACHINE` hang on the machine and the hour; all else is the same in a run that
was resumed and one that was not.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, TextIO

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

    from train.trackers import Tracker


SLOW_LOADER = 0.2
"""Share of the time from which a person is told that training waits for its data."""
MACHINE = ("tokens_per_second", "mfu", "memory_bytes", "loader_share")
"""Keys of a record that are not the same in every run of the same settings."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a line that a kill cut off is left out. Empty if there is no file."""
    records = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


class MetricsLog:
    """Writes records, as a context manager. On resume what was recorded after ``step`` is dropped first, so each step
    stands in the file once.

    Args:
        run_dir: where ``metrics.jsonl`` and ``tensorboard/`` are.
        step: steps done; 0 begins anew.
        tensorboard: whether to write events too.
        tracker: that gets the same numbers, with those of earlier records that it lacks; closed together with this.

    Raises:
        TrainingError: the folder cannot be written to.
    """

    def __init__(self, run_dir: Path, *, step: int, tensorboard: bool, tracker: Tracker | None = None) -> None:
        self._tracker = tracker
        self.path = run_dir / "metrics.jsonl"
        self.notice = ""
        """Why no TensorBoard events are written though they were asked for; empty otherwise."""
        kept = [record for record in read_metrics(self.path) if step and record["step"] <= step]
        temporary = self.path.with_name(".metrics.jsonl.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.writelines(_line(record) for record in kept)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
            self._stream: TextIO = self.path.open("a", encoding="utf-8")
        except OSError as error:
            if tracker is not None:
                tracker.close(failed=True)
            raise self._cannot_write(error) from error
        if tracker is not None and tracker.missing_from is not None:
            for record in kept:
                if record["step"] >= tracker.missing_from:
                    tracker.write(dict(_scalars(record)), record["step"])
        self._events: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
            except ImportError:
                self.notice = "no TensorBoard events: pip install tensorboard"

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stream.close()
        if self._events is not None:
            self._events.close()
        if self._tracker is not None:
            self._tracker.close(failed=kind is not None)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is handed to the system at once, so a kill of the process does not lose it."""
        try:
            self._stream.write(_line(record))
            self._stream.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        if self._events is not None:
            for name, value in _scalars(record):
                self._events.add_scalar(name, value, record["step"])
        if self._tracker is not None:
            self._tracker.write(dict(_scalars(record)), record["step"])

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        os.fsync(self._stream.fileno())
        if self._events is not None:
            self._events.flush()

    def _cannot_write(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.path}: cannot be written: {error.strerror or error}; free space and run again")


class NoLog:
    """Writes nothing: the log of all processes but the first."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_without_nan(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a number that does not exist is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(record: dict[str, Any]) -> list[tuple[str, float]]:
    """Tags and values: ``train/loss``, ``load/layer1/expert03``, ``epochs/de``, ``valid/loss/de``, ..."""
    kind = record["kind"]
    scalars: list[tuple[str, float]] = []
    for key, value in record.items():
        if key in ("kind", "step"):
            continue
        if isinstance(value, list):
            scalars += [(f"{kind}/{key}/{number}", item) for number, item in enumerate(value)]
        elif key == "load":
            for layer, load in value.items():
                scalars += [(f"load/layer{layer}/expert{number:02d}", share) for number, share in enumerate(load)]
        elif isinstance(value, dict):
            scalars += [(f"{kind}/{key}/{name}", item) for name, item in value.items()]
        elif isinstance(value, int | float):
            scalars.append((f"{kind}/{key}", value))
    return [(name, value) for name, value in scalars if value is not None and math.isfinite(value)]
