"""What a stage has done so far: its fingerprint, a record per finished unit, its failures. Plain files, one per unit.

The records are the only truth about progress: a unit is finished when its record is there, and the record is written
after the unit's output. Executors, schedulers and restarts need to agree on nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lola_data import storage
from lola_data.credentials import redacted
from lola_data.errors import StageError
from lola_data.manifest import NOT_CONTENT, UnitReport
from lola_data.remote_trees import read_json_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
LANES = "lanes"
"""Folder of the plans of lanes, in that of a phase."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Languages that go through a stage without waiting for the others.

    Args:
        name: in names of files and jobs.
        languages: their folders.
    """

    name: str
    languages: frozenset[str]

    def holds(self, key: str) -> bool:
        """Whether a unit of work is of this lane: a key begins with its language."""
        return key.split("/", 1)[0] in self.languages


class StageState:
    """The records of one stage below ``<workdir>/state/<stage>``. Cheap to make; holds no open file.

    ``lane``: see these languages alone. What a lane has planned lies beside the plan of the whole stage until
    :meth:`join_lanes`.
    """

    def __init__(self, layout: Layout, stage: str, lane: Lane | None = None) -> None:
        self.layout = layout
        self.stage = stage
        self.lane = lane

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
        lineage: dict[str, str] | None = None,
    ) -> bool:
        """Start or resume with this fingerprint.

        Args:
            fingerprint: what decides the stage's output.
            same_units: whether units finished under the recorded fingerprint are what this one would make of them; a
                stage that is not complete then goes on under this one.
            grows: whether such a stage also goes on after it was complete, with a plan made anew: more of the same.
            lineage: input -> what it was to be when this stage was begun before it was complete; see
                :func:`pipelines.run.lineage_of`.

        Returns:
            Whether the stage now goes on with another fingerprint than it was begun with.

        Raises:
            StageError: it was begun with another one; the first fields that changed are named.
        """
        recorded = self.recorded_fingerprint()
        if recorded is None or not self._has_output():
            storage.write_json(self._path("fingerprint.json"), fingerprint)
            return False
        before = _resolved(recorded, fingerprint, lineage or {})
        changed = differences(before, fingerprint)
        if not changed and before != recorded and not _is_open(fingerprint):
            storage.write_json(self._path("fingerprint.json"), fingerprint)
        if changed and same_units and (grows or not self.complete()) and same_units(recorded, fingerprint):
            storage.write_json(self._path("fingerprint.json"), fingerprint)
            if grows:
                self.forget_completion()
                storage.write_json(self._path(_REPLAN), {"because": changed})
            return True
        if changed:
            shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise StageError(
                f"{self.stage}: {self.layout.tree(self.stage)} was made with another recipe or input ({shown}). "
                f"Run with `--redo {self.stage}` to delete it and what was made from it, or set another `workdir`"
            )
        return False

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
        """The recorded plan of a phase; that of a lane is the whole one where the lane has none of its own."""
        if self.lane is not None and storage.is_filled(path := self._lane_plan(phase, self.lane.name)):
            return storage.read_json(path)
        path = self._path(phase, "plan.json")
        whole = storage.read_json(path) if storage.is_filled(path) else None
        return self._with_lanes(phase, whole) if self.lane is None else whole

    def _with_lanes(self, phase: str, whole: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        root = self._path(phase, LANES)
        for path, size in storage.list_files(root, ".json"):
            if size:
                whole = whole or []
                known = {digest(work) for work in whole}
                whole += [work for work in storage.read_json(storage.join(root, path)) if digest(work) not in known]
        return whole

    def _lane_plan(self, phase: str, lane: str) -> str:
        return self._path(phase, LANES, f"{lane}.json")

    def join_lanes(self, phases: Sequence[str]) -> None:
        """Make one plan of those of the lanes. Not while a lane is under way."""
        for phase in phases:
            lanes = storage.list_files(self._path(phase, LANES), ".json")
            if lanes:
                storage.write_record(self._path(phase, "plan.json"), self.plan(phase))
                for path, _ in lanes:
                    storage.remove(self._path(phase, LANES, path))

    def phases(self) -> list[str]:
        """The phases that have a plan, or a lane of which has one, in the order of their names."""
        files = storage.list_files(self.layout.state(self.stage), ".json")
        parts = [path.split("/") for path, _ in files]
        return sorted({part[0] for part in parts if part[1:] == ["plan.json"] or part[1:2] == [LANES]})

    def plan_is_old(self) -> bool:
        """Whether what is recorded was planned for a recipe that asked for less."""
        return storage.exists(self._path(_REPLAN))

    def write_plan(self, phase: str, plan: list[dict[str, Any]]) -> None:
        """Record the plan of a phase."""
        path = self._path(phase, "plan.json") if self.lane is None else self._lane_plan(phase, self.lane.name)
        storage.write_record(path, plan)
        storage.remove(self._path(_REPLAN))

    def done_keys(self, phase: str) -> set[str]:
        """Keys of the finished units of a phase."""
        return {key for key in map(_key, self._records(phase)) if self._holds(key)}

    def _holds(self, key: str) -> bool:
        return self.lane is None or self.lane.holds(key)

    def is_done(self, phase: str, key: str) -> bool:
        """Whether a unit is finished."""
        return storage.is_filled(self._path(phase, "done", _file(key)))

    def mark_done(self, phase: str, report: UnitReport) -> None:
        """Record a finished unit; an earlier failure of it is forgotten."""
        storage.write_record(self._path(phase, "done", _file(report.key)), report.to_json())
        if self._may_have_failed(phase, report.key):
            storage.remove(self._path(phase, "failed", _file(report.key)))

    def _may_have_failed(self, phase: str, key: str) -> bool:
        # On a store a request for each unit, so they are forgotten when the phase is planned.
        return not storage.is_remote(self._path(phase, "failed", _file(key)))

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
        records = [path for path in self._records(phase) if self._holds(_key(path))]
        values = read_json_of([storage.join(folder, path) for path in records])
        found = [UnitReport.from_json(value) for value in values]
        return sorted(found, key=lambda report: report.key)

    def _records(self, phase: str) -> list[str]:
        # A loss of power may leave the name of a record without its content; the unit is then done again.
        return [path for path, size in storage.list_files(self._path(phase, "done"), ".json") if size]

    def mark_failed(self, phase: str, key: str, *, message: str, log: str) -> None:
        """Record a unit that failed."""
        storage.write_json(
            self._path(phase, "failed", _file(key)),
            {"key": key, "phase": phase, "message": redacted(message), "log": log},
        )

    def failures(self, phase: str) -> list[dict[str, str]]:
        """Failed units of a phase, by key: key, phase, message, log."""
        folder = self._path(phase, "failed")
        files = [path for path, _ in storage.list_files(folder, ".json") if self._holds(_key(path))]
        found = read_json_of([storage.join(folder, path) for path in files])
        return sorted(found, key=lambda failure: failure["key"])

    def forget_failures(self, phase: str) -> None:
        """Forget the failures of an earlier attempt."""
        folder = self._path(phase, "failed")
        for path, _ in storage.list_files(folder, ".json"):
            if self._holds(_key(path)):
                storage.remove(storage.join(folder, path))

    def complete(self) -> bool:
        """Whether the stage is finished: its last act is to record this."""
        return storage.exists(self._path("complete.json"))

    def mark_complete(self) -> None:
        """Record that the stage is finished, with the digest of its fingerprint."""
        storage.write_json(self._path("complete.json"), {"fingerprint": digest(self.recorded_fingerprint())})


def _is_open(fingerprint: dict[str, Any]) -> bool:
    """Whether an input was not complete when the fingerprint was made."""
    return any(isinstance(value, dict) for value in fingerprint.get("inputs", {}).values())


def _resolved(recorded: dict[str, Any], new: dict[str, Any], lineage: dict[str, str]) -> dict[str, Any]:
    """``recorded`` with the inputs of ``new`` where one of the two knows an input only by what it was to be."""
    if "inputs" not in recorded:
        return recorded
    inputs = dict(recorded["inputs"])
    for name, value in new.get("inputs", {}).items():
        known = inputs.get(name)
        if isinstance(value, str) and isinstance(known, dict) and known.get("lineage") == lineage.get(name):
            inputs[name] = value
        elif isinstance(value, dict) and isinstance(known, str):
            # That it is still the same is looked at when the input is complete.
            inputs[name] = value
    return {**recorded, "inputs": inputs}


def _file(key: str) -> str:
    # One flat folder: a key holds slashes and may hold any character a file name can.
    return key.replace("%", "%25").replace("/", "%2F") + ".json"


def _key(path: str) -> str:
    return unquote(path.removesuffix(".json"))
