"""What a stage has done so far: its fingerprint, a record per finished unit, its failures. Plain files, one per unit.

The records are the only truth about progress: a unit is finished when its record is there, and the record is written
after the unit's output. Executors, schedulers and restarts need to agree on nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lola_data import storage
from lola_data.errors import StageError
from lola_data.manifest import NOT_CONTENT, UnitReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from lola_data.layout import Layout


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The digest by which a stage knows its input: of all that says something about the tree."""
    return digest({key: value for key, value in manifest.items() if key not in NOT_CONTENT})


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Fields in which two JSON values differ, as ``name: old -> new``, in order."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted({*old, *new}):
            found += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        return found
    return [] if old == new else [f"{prefix}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


_REPLAN = "replan.json"


class StageState:
    """The records of one stage below ``<workdir>/state/<stage>``. Cheap to make; holds no open file."""

    def __init__(self, layout: Layout, stage: str) -> None:
        self.layout = layout
        self.stage = stage

    def _path(self, *parts: str) -> str:
        return self.layout.state(self.stage, *parts)

    def recorded_fingerprint(self) -> dict[str, Any] | None:
        """The fingerprint this stage was begun with, if it was."""
        path = self._path("fingerprint.json")
        return storage.read_json(path) if storage.exists(path) else None

    def begin(
        self,
        fingerprint: dict[str, Any],
        *,
        same_units: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
        grows: bool = False,
    ) -> None:
        """Start or resume with this fingerprint.

        Args:
            fingerprint: what decides the stage's output.
            same_units: whether units finished under the recorded fingerprint are what this one would make of them; a
                stage that is not complete then goes on under this one.
            grows: whether such a stage also goes on after it was complete, with a plan made anew: more of the same.

        Raises:
            StageError: it was begun with another one; the first fields that changed are named.
        """
        recorded = self.recorded_fingerprint()
        if recorded is None or not self._has_output():
            storage.write_json(self._path("fingerprint.json"), fingerprint)
            return
        changed = differences(recorded, fingerprint)
        if changed and same_units and (grows or not self.complete()) and same_units(recorded, fingerprint):
            storage.write_json(self._path("fingerprint.json"), fingerprint)
            if grows:
                self.forget_completion()
                storage.write_json(self._path(_REPLAN), {"because": changed})
        elif changed:
            shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise StageError(
                f"{self.stage}: {self.layout.tree(self.stage)} was made with another recipe or input ({shown}). "
                f"Run with `--redo {self.stage}` to delete it and what was made from it, or set another `workdir`"
            )

    def _has_output(self) -> bool:
        """Whether anything has been made: a unit finished, or, where there are no units, a file in the tree."""
        if self.complete():
            return True
        root = self.layout.state(self.stage)
        return bool(
            any("/done/" in f"/{path}" for path, _ in storage.list_files(root, ".json"))
            or storage.list_files(self.layout.tree(self.stage), "")
        )

    def plan(self, phase: str) -> list[dict[str, Any]] | None:
        """The recorded plan of a phase."""
        path = self._path(phase, "plan.json")
        return storage.read_json(path) if storage.is_filled(path) else None

    def plan_is_old(self) -> bool:
        """Whether what is recorded was planned for a recipe that asked for less."""
        return storage.exists(self._path(_REPLAN))

    def write_plan(self, phase: str, plan: list[dict[str, Any]]) -> None:
        """Record the plan of a phase."""
        storage.write_record(self._path(phase, "plan.json"), plan)
        storage.remove(self._path(_REPLAN))

    def done_keys(self, phase: str) -> set[str]:
        """Keys of the finished units of a phase."""
        return {_key(path) for path in self._records(phase)}

    def is_done(self, phase: str, key: str) -> bool:
        """Whether a unit is finished."""
        return storage.is_filled(self._path(phase, "done", _file(key)))

    def mark_done(self, phase: str, report: UnitReport) -> None:
        """Record a finished unit; an earlier failure of it is forgotten."""
        storage.write_record(self._path(phase, "done", _file(report.key)), report.to_json())
        if not storage.is_remote(self.layout.workdir):
            storage.remove(self._path(phase, "failed", _file(report.key)))

    def forget_completion(self) -> None:
        """Forget that the stage is finished; its units stay so."""
        storage.remove(self._path("complete.json"))

    def forget(self, phase: str, key: str) -> None:
        """Forget that a unit, and so the stage, is finished."""
        self.forget_completion()
        storage.remove(self._path(phase, "done", _file(key)))

    def report(self, phase: str, key: str) -> UnitReport | None:
        """The report of a unit, if it is finished."""
        path = self._path(phase, "done", _file(key))
        return UnitReport.from_json(storage.read_json(path)) if storage.is_filled(path) else None

    def reports(self, phase: str) -> list[UnitReport]:
        """Reports of all finished units, by key."""
        folder = self._path(phase, "done")
        found = [UnitReport.from_json(storage.read_json(storage.join(folder, path))) for path in self._records(phase)]
        return sorted(found, key=lambda report: report.key)

    def _records(self, phase: str) -> list[str]:
        # A loss of power may leave the name of a record without its content; the unit is then done again.
        return [path for path, size in storage.list_files(self._path(phase, "done"), ".json") if size]

    def mark_failed(self, phase: str, key: str, *, message: str, log: str) -> None:
        """Record a unit that failed."""
        storage.write_json(
            self._path(phase, "failed", _file(key)), {"key": key, "phase": phase, "message": message, "log": log}
        )

    def failures(self, phase: str) -> list[dict[str, str]]:
        """Failed units of a phase, by key: key, phase, message, log."""
        folder = self._path(phase, "failed")
        found = [storage.read_json(storage.join(folder, path)) for path, _ in storage.list_files(folder, ".json")]
        return sorted(found, key=lambda failure: failure["key"])

    def forget_failures(self, phase: str) -> None:
        """Forget the failures of an earlier attempt. (Those below a remote work folder stay.)"""
        if storage.is_remote(self.layout.workdir):
            return
        folder = storage.local_path(self._path(phase, "failed"))
        for path, _ in storage.list_files(str(folder), ".json"):
            (folder / path).unlink(missing_ok=True)

    def complete(self) -> bool:
        """Whether the stage is finished: its last act is to record this."""
        return storage.exists(self._path("complete.json"))

    def mark_complete(self) -> None:
        """Record that the stage is finished, with the digest of its fingerprint."""
        storage.write_json(self._path("complete.json"), {"fingerprint": digest(self.recorded_fingerprint())})


def _file(key: str) -> str:
    # One flat folder: a key holds slashes and may hold any character a file name can.
    return key.replace("%", "%25").replace("/", "%2F") + ".json"


def _key(path: str) -> str:
    return unquote(path.removesuffix(".json"))


@contextmanager
def workdir_lock(layout: Layout) -> Iterator[None]:
    """Hold a local work folder for one run at a time.

    Raises:
        StageError: another process holds it; host and process id are named.
        ShardError: the work folder cannot be made or written to.
    """
    if storage.is_remote(layout.workdir):
        yield
        return
    with _open_lock(storage.local_path(layout.kept) / "state" / "lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().decode(errors="replace").strip() or "another process"
            raise StageError(
                f"{layout.workdir}: in use by {holder}. Wait for it, stop it, or set another `workdir`"
            ) from error
        handle.truncate(0)
        # The lock holds without its holder's name, for which a full disk has no room.
        with suppress(OSError):
            handle.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            handle.truncate(0)


def _open_lock(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+", buffering=0)
    except OSError as error:
        raise storage.disk_error(path, error) from error
